"""`mig-server doctor`: what is there, what is not, each in one line."""

import asyncio
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from protocol.errors import EnvironmentFailure, MigError
from server.amqp import Link
from server.config import Listen, ServerConfig, load_config
from server.database import Database
from server.front import listen_on
from server.parts import utc_now
from server.schema import metadata
from server.statelock import is_locked
from server.store import Store

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_OPEN_TO_OTHERS = stat.S_IRWXO | stat.S_IWGRP


class Finding(NamedTuple):
    """One line: what was looked at, and what was seen."""

    subject: str
    text: str
    is_well: bool


def examine(config_path: Path) -> Iterator[Finding]:
    """Look at everything that a server needs; what is wrong is a finding, not an exception."""
    try:
        config = load_config(config_path)
    except MigError as error:
        yield Finding("config", error.detail, is_well=False)
        return
    yield _permissions(config_path)
    is_serving = is_locked(Path(config.state_dir))
    for subject, look in (
        ("state", lambda: _state(config, is_serving=is_serving)),
        ("database", lambda: _database(config)),
        ("broker", lambda: _broker(config)),
        ("api port", lambda: _port(config.api_address, is_serving=is_serving)),
        ("broker-auth port", lambda: _port(config.broker_auth_address, is_serving=is_serving)),
        ("agents", lambda: _agents(config)),
    ):
        yield _finding(subject, look)


def _finding(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, look(), is_well=True)
    except MigError as error:
        return Finding(subject, f"{error.code}: {error.detail}", is_well=False)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Finding(subject, f"{where}{error.strerror or error}", is_well=False)


def _permissions(path: Path) -> Finding:
    mode = path.stat().st_mode
    if mode & _OPEN_TO_OTHERS:
        return Finding("config", f"{path} holds a password and is open to others: chmod 600", is_well=False)
    return Finding("config", str(path), is_well=True)


def _state(config: ServerConfig, *, is_serving: bool) -> str:
    mode = Path(config.state_dir).stat().st_mode
    if mode & _WRITABLE_BY_OTHERS:
        raise EnvironmentFailure("unsafe-file", f"{config.state_dir} can be written by others")
    return f"{config.state_dir}, {'a server is running' if is_serving else 'no server is running'}"


def _database(config: ServerConfig) -> str:
    database = Database(config.database)
    try:
        with database.reading() as connection:
            missing = set(metadata.tables) - set(sa.inspect(connection).get_table_names())
        if missing:
            raise EnvironmentFailure("database-away", "tables are missing; run: mig-server migrate")
        total, _ = Store(database).find_agents(None, utc_now(), 1, 0)
        investigators = len(Store(database).list_investigators())
    finally:
        database.close()
    return f"{database.dialect}, {total} agents, {investigators} investigators"


def _broker(config: ServerConfig) -> str:
    async def connect() -> None:
        link = await Link.open(config.relay, name="mig-server doctor", ca=config.relay_ca)
        await link.close()

    asyncio.run(connect())
    return "reached, and let in"


def _port(address: Listen, *, is_serving: bool) -> str:
    if is_serving:
        with socket.create_connection((address.host, address.port), timeout=5):
            return f"{address.host}:{address.port}, served"
    with listen_on(address):
        return f"{address.host}:{address.port}, free"


def _agents(config: ServerConfig) -> str:
    files = sorted(Path(config.agents_dir).glob("mig-agent-*"))
    names = [path.name for path in files if path.is_file() and not path.suffix]
    return f"{config.agents_dir}: {', '.join(names) or 'none to download yet'}"
