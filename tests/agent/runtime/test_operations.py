"""Several operations of one action: side by side, in order, each for itself; with real children."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentLimits
from agent.runtime.journal import Tombstone, expiry_seconds
from protocol.result import decode_result
from tests.support.endpoint import sign_action, utc_now
from tests.support.gpg import Investigator
from tests.support.resident import MakeAgent

pytestmark = [pytest.mark.usefixtures("trouble"), pytest.mark.system]
ABOUT: dict[str, Any] = {"module": "agentinfo", "parameters": {}}


def trouble(how: str, path: Path | str = "", **more: Any) -> dict[str, Any]:
    return {"module": "trouble", "parameters": {"how": how, "path": str(path)}, **more}


def test_operations_run_side_by_side(make_agent: MakeAgent, ada: Investigator, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o700)
    # Each waits for the other: one after the other they would wait until their time is over.
    meeting = sign_action(ada, operations=[trouble("meet", place), trouble("meet", place)])
    result = make_agent(limits=AgentLimits(wall_s=30)).ask(meeting)
    assert [one.status for one in result.results] == ["ok", "ok"]
    pids = {one.records[0]["value"] for one in result.results}
    assert pids == {int(entry.name) for entry in place.iterdir()}


def test_no_more_run_at_once_than_are_configured(
    make_agent: MakeAgent, ada: Investigator, tmp_path: Path
) -> None:
    limits = AgentLimits(wall_s=1, concurrent_operations=1)
    meeting = sign_action(ada, operations=[trouble("meet", tmp_path / "none"), ABOUT])
    (tmp_path / "none").mkdir(mode=0o700)
    result = make_agent(limits=limits).ask(meeting)
    assert result.results[0].status == "timed-out"


def test_answers_stand_in_the_order_of_the_operations(
    make_agent: MakeAgent, ada: Investigator, tmp_path: Path
) -> None:
    (tmp_path / "place").mkdir(mode=0o700)
    operations = [trouble("meet", tmp_path / "place"), ABOUT, trouble("raise"), ABOUT]
    operations.append(trouble("meet", tmp_path / "place"))
    result = make_agent(limits=AgentLimits(concurrent_operations=3)).ask(
        sign_action(ada, operations=operations)
    )
    assert [one.status for one in result.results] == ["ok", "ok", "failed", "ok", "ok"]
    assert ["id" in one.records[0] for one in result.results if one.records] == [False, True, True, False]


def test_what_ends_the_process_of_one_operation_costs_no_other_its_answer(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    result = make_agent().ask(sign_action(ada, operations=[trouble("die"), ABOUT, ABOUT]))
    assert [one.status for one in result.results] == ["failed", "ok", "ok"]
    assert result.results[0].notes == ("the process that ran it ended with -9",)


def test_an_operation_is_run_when_the_earlier_one_found_something_and_else_skipped(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    nowhere = {
        "searches": {"s": {"paths": ["/etc"], "names": ["^no-such-name$"], "options": {"maxdepth": 1}}}
    }
    operations = [
        ABOUT,
        {**ABOUT, "when": "found"},
        {"module": "file", "parameters": nowhere},
        {**ABOUT, "when": "found"},
        {**ABOUT, "when": "not-found", "of": 2},
        {**ABOUT, "when": "not-found", "of": 3},
    ]
    for slots in (1, 2, 6):
        agent = make_agent(limits=AgentLimits(concurrent_operations=slots))
        result = agent.ask(sign_action(ada, operations=operations))
        assert [one.status for one in result.results] == ["ok", "ok", "ok", "skipped", "ok", "skipped"]
        assert [one.found for one in result.results] == [True, True, False, False, True, False]
        assert result.results[5].notes == ("not run: operation 3 was not run",)


def test_to_be_cancelled_ends_all_that_run_and_starts_no_more(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    operations = [trouble("count"), trouble("count"), ABOUT, {**ABOUT, "when": "found", "of": 0}]
    agent.submit(sign_action(ada, operations=operations))
    agent.run_until(lambda: bool(agent.progress))
    (entry,) = agent.journal.unanswered()
    agent.journal.insert_tombstone(
        Tombstone(
            digest=entry.digest,
            action_id=entry.action_id,
            signers=(ada.fingerprint,),
            expireafter=expiry_seconds(utc_now() + timedelta(minutes=5)),
        )
    )
    agent.supervisor.stop_cancelled(entry.digest)
    agent.run_until_idle()
    result = decode_result(agent.answers[0].payload)
    assert result.status == "cancelled"
    assert [one.status for one in result.results] == ["cancelled"] * 4
    assert [one.notes[0] for one in result.results] == [
        "cancelled",
        "cancelled",
        "not started",
        "not started",
    ]


def test_each_operation_says_how_far_it_is(make_agent: MakeAgent, ada: Investigator) -> None:
    agent = make_agent(limits=AgentLimits(wall_s=6))
    agent.submit(sign_action(ada, operations=[trouble("count"), trouble("count")]))
    agent.run_until_idle()
    said = {one.progress.operation for one in agent.progress if one.progress is not None}
    assert said
    assert said <= {0, 1}
