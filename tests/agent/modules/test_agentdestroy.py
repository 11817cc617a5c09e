"""Tests of what the order to remove an agent answers."""

from typing import Any

import pytest

from agent.module import Context
from agent.modules.agentdestroy import MINIMUM_WEIGHT, Params, run
from tests.support.endpoint import AGENT_ID, FACTS


def ask(watchers: dict[str, Any] | None = {}, **params: Any) -> tuple[list[Any], list[str]]:  # noqa: B006  (read only)
    context = Context(facts=FACTS, watchers=watchers)
    return list(run(Params(**params), context)), context.notes


@pytest.mark.parametrize("version", [None, "1"])
def test_an_agent_that_will_remove_itself_says_so(version: str | None) -> None:
    [record], notes = ask(version=version, purge=True)
    assert (record.id, record.version, record.purge, notes) == (AGENT_ID, "1", True, [])


def test_an_agent_of_another_version_stays() -> None:
    records, notes = ask(version="2")
    assert (records, notes) == ([], ["this agent is of version 1, and stays"])


def test_without_a_resident_nothing_is_removed() -> None:
    records, notes = ask(watchers=None)
    assert (records, notes) == ([], ["asked without an agent: nothing is removed"])


def test_two_signers_are_needed_unless_somebody_decides_otherwise() -> None:
    assert MINIMUM_WEIGHT == 2
