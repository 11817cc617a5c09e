"""A disk without a byte left, at server and agents: what cannot be noted does not run, nothing is lost.

The state directories are small disks of their own. In CI few rounds with a fixed seed; longer as in
`test_crashes`. PostgreSQL's full disk is in `test_postgres`.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.crash.fleet import Fleet, wait_for
from tests.crash.promises import (
    ENDS,
    require_audit,
    require_bounds,
    require_nothing_refused,
    require_promises,
)
from tests.support.disk import SmallDisk, small_disk
from tests.support.gpg import Investigator
from tests.support.platform import wait_until

pytestmark = pytest.mark.system

ROUNDS = int(os.environ.get("MIG_CRASH_ROUNDS", "3"))
SEED = int(os.environ.get("MIG_CRASH_SEED", "20261129"))
AGENTS = 3
_SERVER_BYTES = 24 << 20
_AGENT_BYTES = 1 << 20
_DONE = frozenset({("done", "")})
_COMPLAINTS = ("nothing can be run", "an answer cannot be kept")


class Disks(NamedTuple):
    """The server's disk, and those of the first agents; the last agent has none of its own."""

    server: SmallDisk
    agents: dict[str, SmallDisk]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[tuple[Fleet, Disks]]:
    directory = tmp_path_factory.mktemp("disk")
    with ExitStack() as stack:
        fleet = Fleet(directory, ada, count=AGENTS, seed=SEED)
        server = stack.enter_context(small_disk(directory / "server", size_bytes=_SERVER_BYTES))
        agents = {
            name: stack.enter_context(small_disk(fleet.state_directory(name), size_bytes=_AGENT_BYTES))
            for name in fleet.names[:-1]
        }
        stack.callback(fleet.stop)
        fleet.start()
        yield fleet, Disks(server, agents)


@pytest.fixture(autouse=True)
def _room(place: tuple[Fleet, Disks]) -> Iterator[None]:
    """Leave no full disk to the next test, whatever became of this one."""
    yield
    _fleet, disks = place
    for disk in (disks.server, *disks.agents.values()):
        disk.free()


def _require_done(fleet: Fleet, tokens: Sequence[str]) -> None:
    """Require that some actions were done everywhere; before, another test may have killed an agent."""
    outcomes = fleet.settle()
    require_promises(fleet, outcomes, f"seed {SEED}")
    assert {(one.state, one.problem) for one in outcomes if one.token in tokens} == _DONE


def test_an_agent_whose_disk_is_full_runs_nothing_until_there_is_room(place: tuple[Fleet, Disks]) -> None:
    fleet, disks = place
    said = {name: _complaints(fleet, name) for name in disks.agents}
    for disk in disks.agents.values():
        disk.fill()
    tokens = [fleet.submit(pacing=()) for _ in range(3)]
    # The journal's last block may have room for one more: it runs, and its answer is kept in memory.
    for name, before in said.items():
        wait_until(lambda: _complaints(fleet, name) > before, f"{name}'s complaint")  # noqa: B023
    for token in tokens:
        wait_until(lambda: "done" in fleet.states(token), "the answer of the one with room")  # noqa: B023
        assert fleet.states(token).count("done") == 1  # nobody sends an answer that it could not keep
    runs: Counter[str] = Counter()
    for one in fleet.outcomes():
        runs[one.agent] += one.runs if one.token in tokens else 0
    assert max(runs.values()) == len(tokens), runs
    assert max(sorted(runs.values())[:-1]) <= 1, runs
    for disk in disks.agents.values():
        disk.free()
    _require_done(fleet, tokens)


def test_a_server_whose_disk_is_full_refuses_and_goes_on_when_there_is_room(
    place: tuple[Fleet, Disks],
) -> None:
    fleet, disks = place
    fleet.fill_server_disk(disks.server)
    file = fleet.sign("unheard-of")
    refused = fleet.platform.mig("action", "submit", str(file), "--yes", check=False)
    assert refused.returncode == 5, (refused.stdout, refused.stderr)
    assert "disk-full" in refused.stderr, refused.stderr
    disks.server.free()
    _require_done(fleet, [fleet.submit()])


def test_nothing_is_lost_and_nothing_runs_twice_whichever_disk_is_full(place: tuple[Fleet, Disks]) -> None:
    fleet, disks = place
    every = {"server": disks.server, **disks.agents}
    for _ in range(ROUNDS):
        fleet.submit()
        name = fleet.random.choice(sorted(every))
        wait_for(fleet.random.uniform(0, 0.8))
        if name == "server":
            fleet.fill_server_disk(disks.server)
        else:
            every[name].fill()
        dies = fleet.random.random() < 0.5
        if dies:
            fleet.platform.kill(name, signal.SIGKILL)
            _start(fleet, name)
        wait_for(fleet.random.uniform(0.5, 2))
        every[name].free()
        if dies and fleet.platform.processes[name].poll() is not None:
            _start(fleet, name)  # as a service manager does
        fleet.did[f"full{' and killed' if dies else ''}: {name}"] += 1
    require_promises(fleet, fleet.settle(), f"seed {SEED}", ends=ENDS)
    require_nothing_refused(fleet)
    require_audit(fleet)
    require_bounds(fleet)


def _complaints(fleet: Fleet, name: str) -> int:
    return sum(fleet.platform.log(name).count(complaint) for complaint in _COMPLAINTS)


def _start(fleet: Fleet, name: str) -> None:
    if name == "server":
        fleet.platform.spawn_server()
    else:
        fleet.start_agent(name)
