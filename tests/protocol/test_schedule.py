"""Schedules: what is one, when its occurrences are, and that hostile ones cost nothing."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.action import convert_action
from protocol.errors import InvalidInput
from protocol.schedule import MAX_RUNS, Calendar, Schedule, format_occurrence, parse_occurrence

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ACTION: dict[str, Any] = {
    "id": "018f0000-0000-7000-8000-000000000000",
    "name": "every night",
    "target": "os = 'linux'",
    "validfrom": "2026-11-20T12:00:00Z",
    "expireafter": "2026-12-20T12:00:00Z",
    "operations": [{"module": "agentinfo", "parameters": {}}],
    "syntaxversion": 2,
}


def calendar(*, days: float = 30, **members: Any) -> Calendar:
    return Calendar(msgspec.convert({"grace_s": 600, **members}, Schedule), NOW, NOW + timedelta(days=days))


def occurrences(found: Calendar, count: int = 5) -> list[str]:
    return [format_occurrence(moment) for moment in islice(found.upcoming(NOW), count)]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"cron": "0 3 * * *"}, ["2026-11-21T03:00:00Z", "2026-11-22T03:00:00Z"]),
        ({"cron": "*/30 12 * * *"}, ["2026-11-20T12:30:00Z", "2026-11-21T12:00:00Z"]),
        ({"cron": "0 0 1 * *"}, ["2026-12-01T00:00:00Z"]),
        ({"cron": "15 4 * * MON-TUE"}, ["2026-11-23T04:15:00Z", "2026-11-24T04:15:00Z"]),
        ({"cron": "0 0 1 * 7"}, ["2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"]),  # either, as Debian's cron
        ({"cron": "0 0 */10 * 2"}, ["2026-12-01T00:00:00Z"]),  # both: a star begins the day of month
        ({"every_s": 3600}, ["2026-11-20T13:00:00Z", "2026-11-20T14:00:00Z"]),
        ({"every_s": 1}, ["2026-11-20T12:00:01Z", "2026-11-20T12:00:02Z"]),
    ],
)
def test_the_occurrences_of_a_schedule(members: dict[str, Any], expected: list[str]) -> None:
    assert occurrences(calendar(**members), 2) == expected


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"grace_s": 600},
        {"grace_s": 600, "cron": "0 3 * * *", "every_s": 60},
        {"cron": "0 3 * * *"},
        {"grace_s": 0, "every_s": 60},
        {"grace_s": 600, "every_s": 0},
        {"grace_s": 600, "every_s": 60, "max_runs": 0},
        {"grace_s": 600, "every_s": 60, "max_runs": MAX_RUNS + 1},
        {"grace_s": 600, "every_s": 60, "timezone": "Europe/Paris"},
        *({"grace_s": 600, "cron": cron} for cron in ("", "* * * *", "* * * * * *", "@daily", "0 3 * * * ")),
        *({"grace_s": 600, "cron": cron} for cron in ("60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *")),
        *(
            {"grace_s": 600, "cron": cron}
            for cron in ("*/0 * * * *", "5-1 * * * *", "* * 30 2 *", "* * * * 8")
        ),
        *(
            {"grace_s": 600, "cron": cron}
            for cron in ("* * L * *", "* * LW * *", "* * * * 1#2", "* * * * 5L")
        ),
        *(
            {"grace_s": 600, "cron": cron}
            for cron in ("* * * FOO *", "1,,2 * * * *", "\u0661 * * * *", "-1 * * * *")
        ),
        {"grace_s": 600, "cron": ",".join(["1"] * 200) + " * * * *"},
    ],
)
def test_what_is_no_schedule_makes_the_action_a_bad_one(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="bad-action"):
        convert_action({**ACTION, "schedule": members})


def test_an_action_without_a_schedule_has_no_occurrences_and_the_bytes_that_it_had() -> None:
    action = convert_action(ACTION)
    assert action.calendar is None
    assert b"schedule" not in msgspec.json.encode(action)


def test_occurrences_lie_inside_the_validity_and_are_at_most_as_many_as_allowed() -> None:
    hourly = calendar(every_s=3600, days=1)
    assert len(list(hourly.upcoming(NOW - timedelta(days=9)))) == 23
    for schedule in ({"cron": "0 * * * *"}, {"every_s": 3600}):
        limited = calendar(**schedule, max_runs=3)
        assert occurrences(limited) == [f"2026-11-20T{hour}:00:00Z" for hour in (13, 14, 15)]
        assert limited.latest(NOW + timedelta(days=20)) == NOW + timedelta(hours=3)
        assert limited.due(NOW + timedelta(hours=4)) is None


def test_an_occurrence_is_due_for_its_grace_and_until_a_later_one_is() -> None:
    hourly = calendar(every_s=3600)
    first = NOW + timedelta(hours=1)
    second = timedelta(seconds=1)
    assert hourly.due(first - second) is None
    assert hourly.due(first) == first
    assert hourly.due(first + timedelta(seconds=599)) == first
    assert hourly.due(first + timedelta(seconds=600)) is None
    overlapping = calendar(every_s=60)
    assert overlapping.due(NOW + timedelta(seconds=120)) == NOW + timedelta(seconds=120)


def test_a_schedule_that_never_comes_is_found_out_at_once() -> None:
    leap = calendar(cron="0 0 29 2 *")
    assert occurrences(leap) == []
    assert leap.latest(NOW + timedelta(days=29)) is None


def test_an_occurrence_is_named_by_its_time() -> None:
    assert parse_occurrence(format_occurrence(NOW)) == NOW
    for text in ("", "2026-11-20T12:00:00+00:00", "2026-13-20T12:00:00Z", "2026-11-20T12:00:00.0Z", "x" * 90):
        assert parse_occurrence(text) is None


FIELDS = st.lists(
    st.text("0123456789*,-/#LWMONJ ", max_size=8) | st.sampled_from(["*", "*/2", "29", "30", "31", "2", "7"]),
    min_size=4,
    max_size=6,
).map(" ".join)


@given(st.text(max_size=300) | FIELDS, st.integers(0, 90 * 86400), st.none() | st.integers(1, MAX_RUNS))
def test_any_expression_is_a_schedule_or_a_bad_action(cron: str, offset: int, max_runs: int | None) -> None:
    members = {"cron": cron, "grace_s": 600} | ({"max_runs": max_runs} if max_runs else {})
    try:
        action = convert_action({**ACTION, "schedule": members})
    except InvalidInput as error:
        assert error.code == "bad-action"  # noqa: PT017  (both outcomes are right)
        return
    found = action.calendar
    assert found is not None
    moment = NOW + timedelta(seconds=offset)
    latest, following = found.latest(moment), found.following(moment)
    assert latest is None or (latest <= moment and latest in found)
    assert following is None or (following > moment and following in found)
    if latest is not None:
        assert found.following(latest) == following
        assert latest.second == 0


@given(
    st.integers(1, 10_000), st.integers(0, 2_000_000), st.none() | st.integers(1, 50), st.integers(0, 999_999)
)
def test_intervals_are_even_and_both_directions_agree(
    every_s: int, offset: int, max_runs: int | None, micros: int
) -> None:
    schedule = Schedule(every_s=every_s, grace_s=5, max_runs=max_runs)
    start = NOW + timedelta(microseconds=micros)
    found = Calendar(schedule, start, start + timedelta(days=9))
    all_of_them = list(islice(found.upcoming(start), 60))
    assert all(later - earlier == timedelta(seconds=every_s) for earlier, later in pairwise(all_of_them))
    assert len(all_of_them) <= (max_runs or 60)
    assert all(start < moment < start + timedelta(days=9) for moment in all_of_them)
    moment = start + timedelta(seconds=offset)
    latest = found.latest(moment)
    assert latest is None or (latest <= moment and found.latest(latest) == latest)
