from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.answers import Answer
from client.coverage import Coverage
from client.tally import Tally
from protocol.command import CommandState
from protocol.documents import Command
from protocol.result import OperationResult, Problem, Result

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
FOUND = OperationResult(found=True, status="ok", records=({},))
NOTHING = OperationResult(found=False, status="ok")


def answer(agent: str, *operations: OperationResult, status: Any = "done") -> Answer:
    problem = None if operations else Problem(code="acl-refused", step=9, detail="no")
    result = Result(
        action="x",
        action_sha256="y",
        occurrence="",
        agent=agent,
        status=status,
        started=NOW,
        finished=NOW,
        results=operations,
        problem=problem,
    )
    return Answer(agent, agent, result)


def tally(*agents: str) -> Tally:
    return Tally(
        "x",
        ["file"],
        [Command(id="", agent=agent, agent_name=agent, state=CommandState.SENT) for agent in agents],
    )


def operation(status: Any, *, found: bool = False) -> OperationResult:
    return OperationResult(found=found, status=status)


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([answer("a", FOUND), answer("b", NOTHING)], 0),
        ([answer("a", NOTHING), answer("b", NOTHING)], 1),
        ([answer("a", FOUND)], 3),
        ([], 3),
        ([answer("a", FOUND), answer("b", status="failed")], 3),
        ([answer("a", FOUND), answer("b", operation("unsupported"))], 3),
        ([answer("a", FOUND), answer("b", operation("limit", found=True))], 0),
        ([answer("a", FOUND), answer("b", operation("limit"))], 3),
        ([answer("a", FOUND), answer("b", status="refused")], 4),
        ([answer("a", FOUND), answer("b", operation("refused"))], 4),
        ([answer("a", status="refused")], 4),
        # What was not run, by its condition, was answered.
        ([answer("a", operation("skipped")), answer("b", NOTHING)], 1),
        ([answer("a", operation("skipped")), answer("b", FOUND)], 0),
    ],
)
def test_the_exit_code_is_the_least_favourable_of_what_happened(answers: list[Answer], code: int) -> None:
    account = tally("a", "b")
    for one in answers:
        account.add(one)
    assert account.exit_code == code
    assert account.summary()["exit"] == code


def test_an_answer_that_is_not_believed_is_a_refusal_and_out_of_reach_stands_above_it() -> None:
    account = tally("a")
    account.add(answer("a", FOUND))
    account.disbelieve("x")
    assert account.exit_code == 4
    account.is_out_of_reach = True
    assert account.exit_code == 5


def test_answers_without_end_that_are_not_believed_do_not_fill_the_memory() -> None:
    account = tally("a")
    for number in range(1000):
        account.disbelieve(f"reason {number}")
    assert (len(account.hostile), account.summary()["hostile_count"]) == (100, 1000)


def test_an_answer_overtakes_a_refusal_and_counts_once() -> None:
    account = tally("a")
    assert not account.add(answer("a", status="refused"))
    assert account.is_complete
    assert account.add(answer("a", FOUND))
    assert not account.add(answer("a", FOUND))
    assert not account.add(answer("a", status="refused"))
    assert (account.exit_code, account.missing(), account.coverage[0].answered) == (0, [], 1)


def test_the_roster_says_why_an_agent_is_missing() -> None:
    account = tally("a", "b", "c")
    account.add(answer("b", status="refused"))
    account.update_roster([Command(id="", agent="a", agent_name="a", state=CommandState.EXPIRED)])
    account.update_roster([Command(id="", agent="intruder", agent_name="x", state=CommandState.DONE)])
    assert [(line.agent, line.state, line.reason) for line in account.missing()] == [
        ("a", "expired", "the action expired before the agent answered"),
        ("b", "refused", "acl-refused: no"),
        ("c", "sent", "the command waits for the agent"),
    ]


def test_what_was_not_run_by_its_condition_is_neither_answered_nor_a_hole() -> None:
    coverage = Coverage("file")
    coverage.add(operation("skipped"))
    assert coverage.describe() == "file: not run on 1 agent, by its condition"
    coverage.add(NOTHING)
    assert (
        coverage.describe() == "file: 1 agent answered, nothing found; not run on 1 agent, by its condition"
    )
    assert (coverage.answered, coverage.holes(), coverage.members()["skipped_on"]) == (1, (), 1)


@pytest.mark.slow
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text()
            | st.dictionaries(st.text(), st.integers() | st.text()),
        )
    )
)
def test_any_statistics_can_be_added_up(all_statistics: list[dict[str, Any]]) -> None:
    coverage = Coverage("file")
    for statistics in all_statistics:
        coverage.add(OperationResult(found=False, status="ok", statistics=statistics))
    assert coverage.describe().startswith("file: ")
    assert coverage.answered == len(all_statistics)


def test_statistics_of_endless_names_do_not_fill_the_memory() -> None:
    coverage = Coverage("file")
    for number in range(1000):
        statistics = {
            f"n{number}": 1,
            f"t{number}_s": 1.0,
            f"d{number}": {"x": 1},
            "skipped": {f"r{number}": 1},
        }
        coverage.add(OperationResult(found=False, status="ok", statistics=statistics))
    assert max(len(coverage.totals), len(coverage.slowest), len(coverage.counted)) <= 66
    assert max(map(len, coverage.counted.values())) <= 66
    # What others say of holes is not lost in them.
    coverage.add(OperationResult(found=False, status="ok", statistics={"errors": 2, "skipped": {"late": 3}}))
    assert "2 errors" in coverage.holes()
    assert sum(coverage.counted["skipped"].values()) == 1003


@pytest.mark.parametrize(
    ("statistics", "hole"),
    [
        ({"files_seen": 3, "errors": 1}, "1 errors"),
        ({"files_seen": 3, "changed": 1}, "1 changed"),
        ({"files_seen": 3, "skipped": {"remote-filesystem": 1}}, "skipped: remote-filesystem 1"),
        ({"files_seen": 3, "skipped": {"vanished": 2}}, "skipped: vanished 2"),
        ({"files_seen": 3, "skipped": {"unknown-account": 1}}, "skipped: unknown-account 1"),
        ({"files_seen": 0}, "files_seen 0 on 1 agent"),
    ],
)
def test_one_agents_hole_keeps_all_from_being_shown_as_nothing_found(
    statistics: dict[str, Any], hole: str
) -> None:
    coverage = Coverage("file")
    coverage.add(OperationResult(found=False, status="ok", statistics={"files_seen": 9, "skipped": {}}))
    assert coverage.holes() == ()
    assert coverage.members()["holes"] == []
    assert "answered, nothing found; " in coverage.describe()
    coverage.add(OperationResult(found=False, status="ok", statistics=statistics))
    assert coverage.holes() == (hole,)
    assert coverage.members()["holes"] == [hole]
    assert f"nothing found in what could be looked at; files_seen {9 + statistics['files_seen']}" in (
        coverage.describe()
    )


def test_sums_maxima_and_reasons_are_kept_apart() -> None:
    coverage = Coverage("file")
    for seconds in (0.5, 2.0):
        statistics: dict[str, Any] = {
            "files_seen": 2,
            "cpu_s": seconds,
            "skipped": {"special": 3},
            "errors": 1,
        }
        coverage.add(OperationResult(found=False, status="ok", statistics=statistics))
    assert coverage.describe() == (
        "file: 2 agents answered, nothing found in what could be looked at; files_seen 4; 2 errors; "
        "skipped: special 6; cpu up to 2.000 s"
    )
