"""PostgreSQL dies, is frozen, or has a full disk, while actions run: nothing is lost and nothing runs twice.

In CI few rounds with a fixed seed; longer as in `test_crashes`.
"""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.fleet import Fleet, wait_for
from tests.crash.promises import require_audit, require_bounds, require_nothing_refused, require_promises
from tests.support.disk import SmallDisk, small_disk
from tests.support.gpg import Investigator
from tests.support.platform import wait_until
from tests.support.postgres import KILLED_SETTINGS, PostgresServer

pytestmark = pytest.mark.system

ROUNDS = int(os.environ.get("MIG_CRASH_ROUNDS", "4"))
SEED = int(os.environ.get("MIG_CRASH_SEED", "20261129"))
AGENTS = 3
_DISK_BYTES = 160 << 20
# Small segments of its write-ahead log, so that a full disk is met soon.
_SETTINGS = f"{KILLED_SETTINGS} -c max_wal_size=32MB -c min_wal_size=32MB"
_DONE = frozenset({("done", "")})  # neither server nor agents died


class Place:
    """A fleet, its database, and the disk on which that lies."""

    def __init__(self, fleet: Fleet, postgres: PostgresServer, disk: SmallDisk) -> None:
        self.fleet = fleet
        self.postgres = postgres
        self.disk = disk

    def strike(self, what: str) -> None:
        """Do one bad thing to the database, for a while, and start it again where it has ended."""
        self.fleet.did[what] += 1
        getattr(self, f"_{what}")()

    def _kill(self) -> None:
        self.postgres.kill()
        wait_for(self.fleet.random.uniform(0, 2))
        self.postgres.start()

    def _kill_backends(self) -> None:
        self.postgres.kill_backends()

    def _freeze(self) -> None:
        pids = self.postgres.family()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        wait_for(1.0)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def _fill_disk(self) -> None:
        self.disk.fill()
        wait_for(1.5)
        self.disk.free()
        if not self.postgres.is_running():  # no room for its log is a reason to end (PANIC)
            self.postgres.start()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[Place]:
    with ExitStack() as stack:
        # Beneath /tmp itself: PostgreSQL's account must reach it.
        point = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mig-pg-disk-")))
        point.chmod(0o755)
        disk = stack.enter_context(small_disk(point / "data", size_bytes=_DISK_BYTES))
        postgres = PostgresServer(point / "data", _SETTINGS)
        stack.callback(postgres.close)
        postgres.create()
        fleet = Fleet(
            tmp_path_factory.mktemp("postgres"), ada, count=AGENTS, seed=SEED, database=postgres.url
        )
        stack.callback(fleet.stop)
        fleet.start()
        yield Place(fleet, postgres, disk)


def test_nothing_is_lost_and_nothing_runs_twice_whatever_happens_to_postgresql(place: Place) -> None:
    fleet = place.fleet
    for number in range(ROUNDS):
        fleet.submit()
        for what in ("kill", "kill_backends", "freeze", "fill_disk")[number % 4 :][: 1 + number // 4]:
            wait_for(fleet.random.uniform(0, 0.5))
            place.strike(what)
    wait_until(place.postgres.is_running, "PostgreSQL")
    require_promises(fleet, fleet.settle(), f"seed {SEED}", ends=_DONE)
    require_nothing_refused(fleet)
    require_audit(fleet)
    require_bounds(fleet)
