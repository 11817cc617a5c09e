"""What the commands of `mig-server` share: options, the opened store, small checks of words."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import click

from protocol.errors import InvalidInput
from protocol.names import is_agent_id
from server.config import DEFAULT_PATH, ServerConfig, load_config
from server.database import Database
from server.store import Store

DEFAULT_STATE = Path("/var/lib/mig-server")
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhdw])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_PATH,
    show_default=True,
    envvar="MIG_CONFIG",
    show_envvar=True,
    help="The configuration; only its table [server] is read.",
)


@contextmanager
def open_database(config: ServerConfig) -> Iterator[Database]:
    """Give the configured database, and close it."""
    database = Database(config.database)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def open_store(config_path: Path) -> Iterator[Store]:
    """Give the store of a configuration file, and close its database."""
    with open_database(load_config(config_path)) as database:
        yield Store(database)


def parse_duration(text: str) -> timedelta:
    """Return the length of time that `30m`, `12h`, `7d` or the like means.

    Raises:
        InvalidInput: `usage`.

    """
    match = _DURATION.match(text)
    if match is None:
        raise InvalidInput("usage", f"{text!r} is no length of time such as 30m, 12h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def require_agent_id(text: str) -> str:
    """Return an agent's id as it is.

    Raises:
        InvalidInput: `usage`.

    """
    if not is_agent_id(text):
        raise InvalidInput("usage", "an agent's id has 32 hexadecimal digits, in lower case")
    return text


def shown(text: str) -> str:
    """Return what an endpoint says of itself without characters that a terminal would obey."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
