"""Databases with this version's tables; SQLite ones are copied from one that was migrated once."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from server.database import Database
from server.migrations import migrate

_SQLITE = "sqlite:///"


def migrated_database(url: str) -> Database:
    """Return an open database with all tables; one that is there already is left as it is."""
    path = Path(url.removeprefix(_SQLITE))
    if url.startswith(_SQLITE):
        if not path.exists():
            path.write_bytes(_empty_sqlite())
        return Database(url)
    database = Database(url)
    migrate(database)
    return database


def query_once(url: str, query: "sa.Select[Any]") -> list[Any]:
    """Ask a database that servers use, on a connection of its own."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return list(connection.execute(query))
    finally:
        engine.dispose()


@functools.cache
def _empty_sqlite() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mig.sqlite"
        database = Database(f"{_SQLITE}{path}")
        migrate(database)
        database.close()
        return path.read_bytes()
