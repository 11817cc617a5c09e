"""Recurring actions on the investigator's side: what is signed, and which answers are believed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from client.action import Completion, complete_action
from client.answers import Question, require_occurrence
from client.command_schedule import _complete
from protocol.errors import InvalidInput
from protocol.schedule import Schedule, format_occurrence
from tests.client.test_answers import ACTION_ASKED, ENVELOPE

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HOURLY = msgspec.structs.replace(
    ACTION_ASKED,
    schedule=Schedule(every_s=3600, grace_s=600),
    expireafter=ACTION_ASKED.validfrom + timedelta(days=1),
)
TEMPLATE = {"name": "watch", "operations": [{"module": "agentinfo", "parameters": {}}]}


def options(**changes: Any) -> dict[str, Any]:
    plain = {"cron": None, "every": None, "until": "30d", "max_runs": None, "grace": "10m", "target": None}
    return {**plain, **changes}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "watch.json"
    path.write_text(json.dumps(TEMPLATE))
    return path


def test_a_schedule_is_part_of_what_is_signed_and_ends_with_the_action(file: Path) -> None:
    action = _complete(file, options(cron="0 3 * * *", max_runs=7), NOW)
    assert action.schedule == Schedule(cron="0 3 * * *", grace_s=600, max_runs=7)
    assert (action.validfrom, action.expireafter) == (NOW, NOW + timedelta(days=30))
    assert action.calendar is not None
    assert [format_occurrence(moment) for moment in action.calendar.upcoming(NOW)][:2] == [
        "2026-11-21T03:00:00Z",
        "2026-11-22T03:00:00Z",
    ]


def test_ninety_days_are_not_a_second_too_long(file: Path) -> None:
    action = _complete(file, options(every="1d", until="90d"), NOW)
    assert action.expireafter - action.validfrom == timedelta(days=90)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "usage"),
        ({"cron": "0 3 * * *", "every": "1h"}, "usage"),
        ({"cron": "whenever"}, "bad-action"),
        ({"every": "1h", "grace": "2d"}, "bad-action"),
        ({"every": "often"}, "usage"),
    ],
)
def test_what_is_no_schedule_is_refused_before_it_is_signed(
    changes: dict[str, Any], code: str, file: Path
) -> None:
    with pytest.raises(InvalidInput, match=f"^{code}: "):
        _complete(file, options(**changes), NOW)


def test_a_schedule_may_stand_in_the_file_itself() -> None:
    template = {**TEMPLATE, "schedule": {"cron": "0 3 * * *", "grace_s": 60}}
    assert complete_action(template, Completion(NOW)).action.schedule is not None


@pytest.mark.parametrize("occurrence", ["", "yesterday", "2026-11-20T12:34:56Z", "1999-01-01T00:00:00Z"])
def test_an_occurrence_that_was_not_signed_is_not_believed(occurrence: str) -> None:
    with pytest.raises(InvalidInput, match="hostile-answer"):
        Question.of(HOURLY, ENVELOPE, frozenset(), occurrence)


def test_an_occurrence_of_the_signed_schedule_is_believed_and_one_of_no_schedule_is_not() -> None:
    occurrence = format_occurrence(HOURLY.validfrom + timedelta(hours=1))
    assert Question.of(HOURLY, ENVELOPE, frozenset(), occurrence).occurrence == occurrence
    require_occurrence(ACTION_ASKED, "")
    with pytest.raises(InvalidInput, match="no schedule"):
        require_occurrence(ACTION_ASKED, occurrence)
