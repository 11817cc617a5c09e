"""Clocks jump, an hour or a day back and forward, at the server and at agents, while actions run.

What a clock that is wrong may do: an action is refused by the agent or ended by the server as expired, or as
not valid yet. What it may not: run anything twice, lose an answer, call done what did not run, or leave
something broken when it is right again.
"""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.crash.fleet import Fleet, wait_for
from tests.crash.promises import (
    ENDS,
    require_audit,
    require_bounds,
    require_nothing_refused,
    require_promises,
)
from tests.support.clock import MovedClock
from tests.support.gpg import Investigator

pytestmark = pytest.mark.system

ROUNDS = int(os.environ.get("MIG_CRASH_ROUNDS", "4"))
SEED = int(os.environ.get("MIG_CRASH_SEED", "20261129"))
AGENTS = 3
_JUMPS_S = (-86_400, -3600, -200, 200, 3600, 86_400)
_DONE = frozenset({("done", "")})
_ENDS = ENDS | {
    ("refused", "expired"),
    ("refused", "not-yet-valid"),
    ("refused", "journal-closed"),
    ("expired", ""),
}

Clocks = dict[str, MovedClock]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[tuple[Fleet, Clocks]]:
    directory = tmp_path_factory.mktemp("clock")
    fleet = Fleet(directory, ada, count=AGENTS, seed=SEED)
    clocks = {name: MovedClock(directory / f"{name}.clock", "agent.runtime.resident") for name in fleet.names}
    clocks["server"] = MovedClock(directory / "server.clock", "server.parts")
    for name, clock in clocks.items():
        fleet.platform.prologues[name] = clock.prologue
    try:
        fleet.start()
        yield fleet, clocks
    finally:
        fleet.stop()


def test_an_agents_clock_that_jumps_refuses_and_is_heard_again_when_it_is_right(
    place: tuple[Fleet, Clocks],
) -> None:
    fleet, clocks = place
    ahead, behind, right = fleet.names
    clocks[ahead].move(3600)
    clocks[behind].move(-200)
    token = fleet.submit(pacing=())
    outcomes = {one.agent: one for one in fleet.settle() if one.token == token}
    assert sorted((one.state, one.problem) for one in outcomes.values()) == [
        ("done", ""),
        ("refused", "expired"),
        ("refused", "not-yet-valid"),
    ]
    assert sum(one.runs for one in outcomes.values()) == 1, right
    for name in (ahead, behind):
        clocks[name].move(0)
    token = fleet.submit(pacing=())
    fleet.settle()
    assert fleet.states(token) == ["done"] * AGENTS


def test_nothing_is_lost_and_nothing_runs_twice_however_clocks_jump(place: tuple[Fleet, Clocks]) -> None:
    fleet, clocks = place
    for _ in range(ROUNDS):
        fleet.submit()
        name = fleet.random.choice(["server", *fleet.names])
        for _ in range(fleet.random.randint(1, 3)):
            wait_for(fleet.random.uniform(0, 0.5))
            clocks[name].move(fleet.random.choice(_JUMPS_S))
        if fleet.random.random() < 0.3 and name != "server":
            fleet.strike("kill_agent")
        wait_for(fleet.random.uniform(0, 0.5))
        clocks[name].move(0)
        fleet.did[f"jump: {name}"] += 1
    for name in fleet.names:
        # To an agent hours behind no signature is valid yet, and what it cannot verify it does not answer. It
        # is asked again some minutes after; at its next login at once.
        fleet.platform.kill(name, signal.SIGTERM)
        fleet.start_agent(name)
    require_promises(fleet, fleet.settle(), f"seed {SEED}", ends=_ENDS)
    # All clocks are right again: everybody does what is asked.
    token = fleet.submit(pacing=("--waves", "1,2", "--wave-wait", "1s"))
    require_promises(fleet, fleet.settle(seconds=90), f"seed {SEED}", ends=_ENDS)
    assert fleet.states(token) == ["done"] * AGENTS
    require_nothing_refused(fleet)
    require_audit(fleet)
    require_bounds(fleet)
