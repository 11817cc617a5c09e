"""Databases with this version's tables; SQLite ones are copied from one that was migrated once."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from server import schema
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


def empty_tables(url: str) -> None:
    """Bring a PostgreSQL database back to what it was after its migration."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        # What an earlier test has left connected may hold locks.
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        connection.execute(
            sa.text(f"{others} WHERE datname = current_database() AND pid != pg_backend_pid()")
        )
        names = ", ".join(schema.metadata.tables)
        connection.execute(sa.text(f"TRUNCATE {names} RESTART IDENTITY"))
    engine.dispose()


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
