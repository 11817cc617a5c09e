"""Whatever dies, whenever: every answer arrives exactly once, and no command runs twice.

`kill -9` of server, agent, child and broker, and each of them frozen for a while, at random moments over
actions on a fleet; a round is one action and some bad things. In CI few rounds with a fixed seed; longer:

    MIG_CRASH_ROUNDS=100 MIG_CRASH_SEED=7 MIG_CRASH_AGENTS=20 ./test tests/crash
"""

import os
from collections.abc import Iterator

import pytest

from tests.crash.fleet import Fleet, describe, wait_for
from tests.support.gpg import Investigator
from tests.support.platform import wait_until

pytestmark = pytest.mark.system

ROUNDS = int(os.environ.get("MIG_CRASH_ROUNDS", "6"))
SEED = int(os.environ.get("MIG_CRASH_SEED", "20261120"))
AGENTS = int(os.environ.get("MIG_CRASH_AGENTS", "20"))
# The broker takes some seconds to come back; the others are cheap.
_DEEDS = (
    *("kill_agent", "kill_child", "freeze_agent", "kill_server") * 3,
    *("freeze_server", "freeze_broker"),
)
_ENDS = {("done", ""), ("failed", "interrupted"), ("failed", "child-failed")}
_STATE_BYTES = 8 << 20


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[Fleet]:
    running = Fleet(tmp_path_factory.mktemp("crash"), ada, count=AGENTS, seed=SEED)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def test_nothing_is_lost_and_nothing_runs_twice_whatever_dies(fleet: Fleet) -> None:
    for number in range(ROUNDS):
        fleet.submit()
        for _ in range(fleet.random.randint(1, 3)):
            wait_for(fleet.random.uniform(0, 0.6))
            fleet.strike(fleet.random.choice(_DEEDS))
        if number == ROUNDS // 2:
            fleet.strike("kill_broker")
    wait_until(fleet.is_settled, "every answer", seconds=240)
    outcomes = fleet.outcomes()
    said = f"seed {SEED}, {dict(fleet.did)}: {describe(outcomes)}"
    assert len(outcomes) == fleet.asked, said
    # Each has exactly one answer: it was done, or its agent says what a crash did to it.
    assert {(one.state, one.problem) for one in outcomes} <= _ENDS, said
    assert [one for one in outcomes if one.answers != 1] == [], said
    # What is called done ran once; what was interrupted may have begun, and never began again.
    assert [one for one in outcomes if one.state == "done" and one.runs != 1] == [], said
    assert [one for one in outcomes if one.runs > 1] == [], said
    # Most were not touched at all.
    assert sum(one.state == "done" for one in outcomes) > fleet.asked // 2, said
    # The server's log is the one that all agents saw grow, and no agent hoards.
    verified = fleet.verify_audit()
    assert verified["exit"] == 0, verified["text"]
    assert fleet.largest_state_bytes() < _STATE_BYTES
