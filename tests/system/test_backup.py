"""A backup taken while the platform works, restored as docs/operating.md says: what it held is there."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.fleet import Fleet
from tests.support.gpg import Investigator
from tests.support.platform import wait_until
from tests.support.postgres import KILLED_SETTINGS, PostgresServer

pytestmark = pytest.mark.system

AGENTS = 2


@contextmanager
def _fleet(directory: Path, ada: Investigator, database: str = "") -> Iterator[Fleet]:
    fleet = Fleet(directory, ada, count=AGENTS, seed=1, database=database)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


def _ask(fleet: Fleet) -> str:
    token = fleet.submit(pacing=())
    wait_until(lambda: fleet.states(token) == ["done"] * AGENTS, "both answers")
    return token


def _require_restored(fleet: Fleet, *, before: str, after: str) -> None:
    """Require that the platform is as it was at the backup, and works."""
    fleet.platform.start_server()
    assert fleet.states(before) == ["done"] * AGENTS
    assert fleet.states(after) == []
    # The very question that is forgotten may be asked again, and is not run again: its agents remember.
    again = fleet.platform.directory / f"{after}.signed.json"
    fleet.platform.mig("action", "submit", str(again), "--yes")
    wait_until(lambda: fleet.states(after) == ["refused"] * AGENTS, "the agents' word that they have run it")
    _ask(fleet)
    assert [one for one in fleet.outcomes() if one.runs != 1] == []
    assert {one.problem for one in fleet.outcomes() if one.token == after} == {"replayed"}
    said = fleet.platform.mig_server("doctor", "--config", str(fleet.platform.config))
    assert "ok    database:" in said, said


def test_a_copy_of_sqlite_made_while_the_server_writes_is_a_whole_platform(
    tmp_path: Path, ada: Investigator
) -> None:
    with _fleet(tmp_path, ada) as fleet:
        file, backup = tmp_path / "server" / "mig.sqlite", tmp_path / "backup.sqlite"
        before = _ask(fleet)
        code = f"import sqlite3; sqlite3.connect({str(file)!r}).backup(sqlite3.connect({str(backup)!r}))"
        subprocess.run([sys.executable, "-c", code], check=True)
        after = _ask(fleet)
        fleet.platform.kill("server", signal.SIGTERM)
        for name in ("mig.sqlite", "mig.sqlite-wal", "mig.sqlite-shm"):
            (file.parent / name).unlink(missing_ok=True)
        shutil.copy(backup, file)
        _require_restored(fleet, before=before, after=after)


def test_a_dump_of_postgresql_made_while_the_server_writes_is_a_whole_platform(
    tmp_path: Path, ada: Investigator
) -> None:
    postgres = PostgresServer(settings=KILLED_SETTINGS)
    try:
        postgres.create()
        with _fleet(tmp_path, ada, postgres.url) as fleet:
            before = _ask(fleet)
            dump = postgres.dump()
            after = _ask(fleet)
            fleet.platform.kill("server", signal.SIGTERM)
            postgres.restore(dump)
            _require_restored(fleet, before=before, after=after)
    finally:
        postgres.close()
