"""Whatever dies, whenever: every answer arrives exactly once, and no command runs twice.

`kill -9` of server, agent, child and broker, and each of them frozen for a while, at random moments over
actions on a fleet; a round is one action and some bad things. In CI few rounds with a fixed seed; longer:

    MIG_CRASH_ROUNDS=100 MIG_CRASH_SEED=7 MIG_CRASH_AGENTS=20 ./test tests/crash
"""

import os
from collections.abc import Iterator

import pytest

from tests.crash.fleet import Fleet, wait_for
from tests.crash.promises import require_audit, require_bounds, require_promises
from tests.support.gpg import Investigator

pytestmark = pytest.mark.system

ROUNDS = int(os.environ.get("MIG_CRASH_ROUNDS", "6"))
SEED = int(os.environ.get("MIG_CRASH_SEED", "20261120"))
AGENTS = int(os.environ.get("MIG_CRASH_AGENTS", "20"))
# The broker takes some seconds to come back; the others are cheap.
_DEEDS = (
    *("kill_agent", "kill_child", "freeze_agent", "kill_server") * 3,
    *("freeze_server", "freeze_broker"),
)


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
    outcomes = fleet.settle()
    said = f"seed {SEED}"
    require_promises(fleet, outcomes, said)
    # Most were not touched at all.
    assert sum(one.state == "done" for one in outcomes) > fleet.asked // 2, said
    require_audit(fleet)
    require_bounds(fleet)
