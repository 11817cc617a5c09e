"""A private PostgreSQL server for tests: own directory, own Unix socket, no port, gone at the end.

A fresh machine gets it from Debian's package `postgresql` (15 or newer); the binaries need not be in PATH,
they are found under /usr/lib/postgresql/*/bin. PostgreSQL refuses to run as root: then it runs as `postgres`.

To use it, import the fixture: `from tests.support.postgres import private_postgres` (or name this file in
`pytest_plugins`), and mark the tests `system`.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

_BINARIES = Path("/usr/lib/postgresql")
# Nothing here must survive a power cut, and a test must not wait for a disk.
_SETTINGS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses="


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


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server with an empty database `mig`, and give its URL for SQLAlchemy.

    It sorts by ICU's English rules, which agree with code point order as little as a real fleet's might.
    """
    binaries, account = _find_binaries(), _account()
    # Not pytest's directory: the other account cannot pass root's, and a socket's path has 107 characters.
    directory = Path(tempfile.mkdtemp(prefix="mig-pg-"))
    data = directory / "data"

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(binaries / program), *arguments],
            cwd=directory,
            env={"LC_ALL": "C.UTF-8", "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            check=False,
            **account,
        )
        if done.returncode != 0:
            said = (done.stdout or (directory / "log").read_bytes()).decode(errors="replace")
            pytest.fail(f"{program}: {said}")

    try:
        if account:
            os.chown(directory, account["user"], account["group"])
        run(
            *("initdb", "--pgdata", str(data), "--username", "mig", "--auth", "trust", "--no-sync"),
            *("--encoding", "UTF8", "--locale-provider", "icu", "--icu-locale", "en-US"),
        )
        run(
            *("pg_ctl", "--pgdata", str(data), "--wait", "--log", str(directory / "log")),
            *("--options", f"-k {directory} {_SETTINGS}", "start"),
        )
        try:
            make_database(_url(directory, "postgres"), "mig")
            yield _url(directory, "mig")
        finally:
            run("pg_ctl", "--pgdata", str(data), "--wait", "--mode", "immediate", "stop")
    finally:
        shutil.rmtree(directory)


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
