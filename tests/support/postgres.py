"""A private PostgreSQL server for tests: own directory, own Unix socket, no port, gone at the end.

A fresh machine gets it from Debian's package `postgresql` (15 or newer); the binaries need not be in PATH,
they are found under /usr/lib/postgresql/*/bin. PostgreSQL refuses to run as root: then it runs as `postgres`.

To use it, import the fixture: `from tests.support.postgres import private_postgres` (or name this file in
`pytest_plugins`), and mark the tests `system`.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

_BINARIES = Path("/usr/lib/postgresql")
# Nothing here must survive a power cut, and a test must not wait for a disk.
_SETTINGS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses="

# The same for a server that is killed: what it has committed must be the kernel's, though not yet the disk's.
KILLED_SETTINGS = "-c fsync=off -c full_page_writes=off -c listen_addresses="
_END_S = 30


def _find_binaries() -> Path:
    found = sorted(_BINARIES.glob("*/bin"), key=lambda path: float(path.parent.name))
    if found:
        return found[-1]
    initdb = shutil.which("initdb")
    if initdb is None:
        pytest.fail("PostgreSQL is not installed: apt install postgresql")
    return Path(initdb).parent


def _account() -> dict[str, Any]:
    """Return the arguments of `subprocess` that leave root, and nothing where we are not root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


class PostgresServer:
    """A server with an empty database `mig`, that may die and be started again; `close` takes it away.

    It sorts by ICU's English rules, which agree with code point order as little as a real fleet's might.
    """

    def __init__(self, data: Path | None = None, settings: str = _SETTINGS) -> None:
        """Make it, without starting it; its files are in `data`, by default in a directory of its own."""
        self._binaries, self._account = _find_binaries(), _account()
        self._settings = settings
        # Not pytest's directory: the other account cannot pass root's; a socket's path has 107 characters.
        self._directory = Path(tempfile.mkdtemp(prefix="mig-pg-"))
        self.data = data or self._directory / "data"
        self.url = _url(self._directory, "mig")
        for directory in (self._directory, *([data] if data else [])):
            if self._account:
                os.chown(directory, self._account["user"], self._account["group"])

    @property
    def pid(self) -> int:
        """The process id of its first process (postmaster.pid)."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def create(self) -> None:
        """Make its files, start it, and make the database."""
        self._run(
            *("initdb", "--pgdata", str(self.data), "--username", "mig", "--auth", "trust", "--no-sync"),
            *("--encoding", "UTF8", "--locale-provider", "icu", "--icu-locale", "en-US"),
        )
        self.start()
        make_database(_url(self._directory, "postgres"), "mig")

    def start(self) -> None:
        """Start it; returns when it answers."""
        self._run(
            *("pg_ctl", "--pgdata", str(self.data), "--wait", "--log", str(self._directory / "log")),
            *("--options", f"-k {self._directory} {self._settings}", "start"),
        )

    def is_running(self) -> bool:
        """Tell whether its first process lives."""
        try:
            return not _is_zombie(self.pid)
        except FileNotFoundError:
            return False

    def family(self) -> list[int]:
        """Return its processes, the first one first."""
        return [self.pid, *_children(self.pid)]

    def dump(self) -> Path:
        """Make a backup of the database, as docs/operating.md has it done; return its file."""
        file = self._directory / "mig.dump"
        words = ("--host", str(self._directory), "--username", "mig")
        self._run("pg_dump", *words, "--format", "custom", "--file", str(file), "mig")
        return file

    def restore(self, file: Path) -> None:
        """Put a backup in place of the database."""
        words = ("--host", str(self._directory), "--username", "mig")
        self._run("dropdb", *words, "--force", "mig")
        self._run("createdb", *words, "--encoding", "UTF8", "--template", "template0", "mig")
        self._run("pg_restore", *words, "--exit-on-error", "--dbname", "mig", str(file))

    def stop(self) -> None:
        """End it without further ado; one that is gone is fine."""
        if self.is_running():
            self._run("pg_ctl", "--pgdata", str(self.data), "--wait", "--mode", "immediate", "stop")

    def kill(self) -> None:
        """Kill its first process; the others see that and end. Returns when it may be started again."""
        pid, tree = self.pid, _children(self.pid)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _END_S
        while any(Path(f"/proc/{one}").exists() and not _is_zombie(one) for one in (pid, *tree)):
            assert time.monotonic() < deadline, "PostgreSQL's processes do not end"
            time.sleep(0.02)
        # Where nobody reaps it, a container's zombie looks alive to the next one.
        for lock in (self.data / "postmaster.pid", *self._directory.glob(".s.PGSQL.*.lock")):
            lock.unlink()

    def kill_backends(self) -> None:
        """Kill what serves connections: the first process then ends all others and recovers."""
        for pid in _children(self.pid):
            with suppress(FileNotFoundError, ProcessLookupError):  # the first one's end ends the others
                if b"mig mig" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / program), *arguments],
            cwd=self._directory,
            env={"LC_ALL": "C.UTF-8", "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            check=False,
            **self._account,
        )
        if done.returncode != 0:
            said = (done.stdout or (self._directory / "log").read_bytes()).decode(errors="replace")
            pytest.fail(f"{program}: {said}")

    def close(self) -> None:
        """End it, and take its directory away."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self._directory)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server with an empty database `mig`, and give its URL for SQLAlchemy."""
    server = PostgresServer()
    try:
        server.create()
        yield server.url
    finally:
        server.close()


def _url(directory: Path, database: str) -> str:
    return f"postgresql+psycopg://mig@/{database}?host={directory}"


def make_database(url: str, name: str) -> None:
    """Make an empty database `name` on the server that `url` leads to."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    engine.dispose()


@pytest.fixture(scope="session")
def private_postgres() -> Iterator[str]:
    """The URL of an empty database on a PostgreSQL of this test session's own."""
    with postgres_server() as url:
        yield url
