"""Tests of operations that depend on earlier ones."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.conditions import is_whole, not_run
from protocol.action import Operation
from protocol.result import OperationResult

FOUND = OperationResult(found=True, status="ok", records=({"path": "/x"},))
NOTHING = OperationResult(found=False, status="ok")
CUT = OperationResult(found=True, status="limit", records=({},), truncated=True)
HOLE = OperationResult(found=False, status="ok", statistics={"errors": 1})
FAILED = OperationResult(found=False, status="failed", truncated=True)
SKIPPED = OperationResult(found=False, status="skipped")


def operation(when: Any = None, of: int | None = None) -> Operation:
    return Operation(module="file", parameters={}, when=when, of=of)


@pytest.mark.parametrize(
    ("when", "earlier", "runs"),
    [
        ("found", FOUND, True),
        ("found", CUT, True),
        ("found", NOTHING, False),
        ("found", HOLE, False),
        ("found", FAILED, False),
        ("found", SKIPPED, False),
        ("not-found", NOTHING, True),
        ("not-found", FOUND, False),
        ("not-found", CUT, False),
        ("not-found", HOLE, False),
        ("not-found", FAILED, False),
        ("not-found", SKIPPED, False),
    ],
)
def test_a_condition_is_met_by_a_whole_answer_or_by_records(
    when: str, earlier: OperationResult, *, runs: bool
) -> None:
    skipped = not_run(operation(when), 1, [earlier])
    assert (skipped is None) == runs


def test_what_is_not_run_says_why() -> None:
    said = [not_run(operation("not-found"), 1, [earlier]) for earlier in (FOUND, HOLE, FAILED, SKIPPED)]
    assert [one and one.notes for one in said] == [
        ("not run: operation 0 found something",),
        ("not run: operation 0 has no whole answer (ok)",),
        ("not run: operation 0 has no whole answer (failed)",),
        ("not run: operation 0 was not run",),
    ]
    assert {one and one.status for one in said} == {"skipped"}


def test_an_operation_without_a_condition_always_runs() -> None:
    assert not_run(operation(), 1, [FAILED]) is None


def test_the_one_that_is_meant_may_stand_further_ahead() -> None:
    assert not_run(operation("found", 0), 2, [FOUND, NOTHING]) is None
    assert not_run(operation("found"), 2, [FOUND, NOTHING]) is not None


def test_what_has_not_ended_cannot_be_judged_by() -> None:
    with pytest.raises(ValueError, match="operation 0 has not ended"):
        not_run(operation("found"), 1, [None])


@given(
    st.builds(
        OperationResult,
        found=st.booleans(),
        status=st.sampled_from(["ok", "limit", "failed", "timed-out", "skipped", "refused"]),
        truncated=st.booleans(),
        statistics=st.dictionaries(st.sampled_from(["errors", "changed"]), st.integers(0, 2)),
    )
)
def test_never_are_both_conditions_met(earlier: OperationResult) -> None:
    met = [not_run(operation(when), 1, [earlier]) is None for when in ("found", "not-found")]
    assert sum(met) <= 1
    assert not met[1] or is_whole(earlier)
