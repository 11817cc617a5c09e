"""The database's history, one file per step, run by Alembic.

Alembic loads its scripts by path, so where the package lies in a zip file they are first unpacked to a
private directory that is made fresh for it.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select

from server.database import Database

_MIGRATION_LOCK = 0x6D69676D696772  # of two servers that start together, one migrates


def migrate(database: Database) -> None:
    """Bring the database to this version's tables, in one transaction.

    Raises:
        EnvironmentFailure: `database-away` or `disk-full`.

    """
    with scripts(files(__name__)) as directory, database.writing() as connection:
        if database.dialect == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(directory).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        command.upgrade(config, "head")


def pending_migrations(connection: Connection) -> list[str]:
    """Return what a database lacks of this version's tables, by the newest step's name."""
    with scripts(files(__name__)) as directory:
        config = Config()
        config.set_main_option("script_location", str(directory).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        wanted = ScriptDirectory.from_config(config).get_heads()
    standing = MigrationContext.configure(connection).get_current_heads()
    return sorted(set(wanted) - set(standing))


@contextmanager
def scripts(package: Traversable) -> Iterator[Path]:
    """Give the directory of the migration scripts, unpacked where they are not in a file system."""
    if isinstance(package, Path):
        yield package
        return
    directory = Path(tempfile.mkdtemp(prefix="mig-migrations-"))  # 0700 and new: nobody else can plant in it
    try:
        _unpack(package, directory)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _unpack(source: Traversable, destination: Path) -> None:
    for entry in source.iterdir():
        if entry.is_dir():
            (destination / entry.name).mkdir()
            _unpack(entry, destination / entry.name)
        elif entry.name.endswith(".py"):
            (destination / entry.name).write_bytes(entry.read_bytes())
