"""What /health says of a database or broker that is away, silent or full, each asked over real HTTP."""

import contextlib
import os
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.api import ApiServer, api_server
from tests.support.disk import small_disk
from tests.support.gpg import Investigator
from tests.support.platform import Platform, wait_until
from tests.support.postgres import KILLED_SETTINGS, PostgresServer

pytestmark = pytest.mark.system


def _database(api: ApiServer) -> str:
    answer = api.ask("GET", "/api/v1/health")  # which gives up where the server is not prompt
    assert answer.status == 200
    return str(answer.json["database"])


def test_a_database_that_somebody_else_has_locked_is_silent_until_it_is_free(tmp_path: Path) -> None:
    with api_server(tmp_path) as api:
        assert _database(api) == "ok"
        with contextlib.closing(sqlite3.connect(tmp_path / "mig.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert _database(api) == "silent"
            with ThreadPoolExecutor(40) as many:  # more than there are threads, and none waits for another
                assert set(many.map(lambda _: _database(api), range(40))) == {"silent"}
            other.execute("ROLLBACK")
        wait_until(lambda: _database(api) == "ok", "a database that is well again")


def test_a_disk_without_room_is_said_until_there_is_some(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_bytes=16 << 20) as disk, api_server(tmp_path / "disk") as api:
        assert _database(api) == "ok"
        disk.fill()
        assert _database(api) == "full"
        disk.free()
        assert _database(api) == "ok"


def test_a_file_that_is_no_database_any_more_is_away(tmp_path: Path) -> None:
    with api_server(tmp_path) as api:
        for name in ("mig.sqlite-wal", "mig.sqlite-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / "mig.sqlite").write_bytes(b"not a database" * 1000)
        assert _database(api) == "away"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer(settings=KILLED_SETTINGS)
    try:
        server.create()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def platform(
    tmp_path_factory: pytest.TempPathFactory, ada: Investigator, postgres: PostgresServer
) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("health"), ada, database=postgres.url)
    try:
        running.start()
        wait_until(lambda: _health(running) == ("ok", "ok", "ok"), "a platform that is well")
        yield running
    finally:
        running.stop()


def _health(platform: Platform) -> tuple[str, str, str]:
    told = platform.health()
    return told["status"], told["database"], told["broker"]


def _signal_all(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


def test_a_frozen_broker_is_silent_and_one_that_is_gone_is_away(platform: Platform) -> None:
    pid = int((platform.broker.directory / "rabbitmq.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    assert _health(platform) == ("degraded", "ok", "silent")
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: _health(platform) == ("ok", "ok", "ok"), "a broker that is well again")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: _health(platform) == ("degraded", "ok", "away"), "word of a broker that is gone")
    platform.broker.stop()
    platform.broker.start()
    wait_until(lambda: _health(platform) == ("ok", "ok", "ok"), "a broker that is well again")


def test_a_frozen_postgresql_is_silent_and_one_that_is_gone_is_away(
    platform: Platform, postgres: PostgresServer
) -> None:
    pids = postgres.family()
    _signal_all(pids, signal.SIGSTOP)
    assert _health(platform) == ("degraded", "silent", "ok")
    _signal_all(pids, signal.SIGCONT)
    wait_until(lambda: _health(platform) == ("ok", "ok", "ok"), "a database that is well again")
    postgres.kill()
    wait_until(lambda: _health(platform) == ("degraded", "away", "ok"), "word of a database that is gone")
    postgres.start()
    wait_until(lambda: _health(platform) == ("ok", "ok", "ok"), "a database that is well again")
