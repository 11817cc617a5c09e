"""The database: threads, durability, migrations, and what is said when it is away."""

import asyncio
import sqlite3
import stat
import threading
import time
from importlib.resources import files
from pathlib import Path
from zipfile import Path as ZipPath
from zipfile import ZipFile

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from protocol.errors import EnvironmentFailure, InvalidInput
from server import schema
from server.database import Database
from server.migrations import migrate, scripts


def test_the_migrations_make_exactly_the_tables_of_the_schema(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    migrate(database)
    with database.reading() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM alembic_version")).scalar_one() == 1


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def fail() -> None:
        with database.writing() as connection:
            connection.execute(sa.insert(schema.logins).values(login="x", time=sa.func.now()))
            raise ZeroDivisionError("division")

    with pytest.raises(ZeroDivisionError, match="division"):
        fail()
    with database.reading() as connection:
        assert connection.execute(sa.select(schema.logins)).all() == []


def test_the_values_of_a_statement_that_fails_are_not_repeated(database: Database) -> None:
    def fail() -> None:
        with database.writing() as connection:
            connection.execute(sa.insert(schema.sessions).values(token_hash="x"))

    with pytest.raises(sa.exc.IntegrityError, match="hidden due to hide_parameters"):
        fail()


def test_reading_goes_on_while_somebody_writes(database: Database) -> None:
    counted = sa.select(sa.func.count()).select_from(schema.logins)
    with database.writing() as writer:
        writer.execute(sa.insert(schema.logins).values(login="x", time=sa.func.now()))
        with database.reading() as reader:
            assert reader.execute(counted).scalar_one() == 0
    with database.reading() as reader:
        assert reader.execute(counted).scalar_one() == 1


def test_the_event_loop_goes_on_while_the_database_works(database: Database) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        assert may_end.wait(20)
        return threading.current_thread().name

    async def scenario() -> str:
        working = asyncio.create_task(database.run(work))
        await database.read(begun.wait, 20)
        may_end.set()
        return await working

    assert asyncio.run(scenario()).startswith("database-write")


def test_sqlite_survives_a_power_cut(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'mig.sqlite'}")
    with database.reading() as connection:
        settings: dict[str, str | int] = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    database.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


@pytest.mark.parametrize(
    ("url", "refusal"),
    [
        ("mysql://x/y", "bad-config: server.database: mysql is neither sqlite nor postgresql"),
        ("nonsense", "bad-config: server.database is not a database URL"),
        ("sqlite://", "bad-config: server.database: sqlite needs a file"),
        ("sqlite:///:memory:", "bad-config: server.database: sqlite needs a file"),
    ],
)
def test_a_database_that_we_cannot_use_is_refused(url: str, refusal: str) -> None:
    with pytest.raises(InvalidInput, match=refusal):
        Database(url)


def test_a_database_that_is_away_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="database-away: no directory"):
        Database(f"sqlite:///{tmp_path / 'none' / 'mig.sqlite'}")
    (tmp_path / "mig.sqlite").write_bytes(b"not a database" * 100)
    database = Database(f"sqlite:///{tmp_path / 'mig.sqlite'}")
    with pytest.raises(EnvironmentFailure, match="database-away: file is not a database"):
        migrate(database)
    with pytest.raises(EnvironmentFailure, match="database-away: file is not a database"):
        database.require_writable()
    database.close()


@pytest.mark.system
def test_a_postgresql_that_is_away_is_said_in_one_line(tmp_path: Path) -> None:
    database = Database(f"postgresql://mig@/mig?host={tmp_path}")
    with pytest.raises(EnvironmentFailure, match="^database-away: connection is bad") as raised:
        migrate(database)
    assert "\n" not in str(raised.value)
    assert raised.value.retryable
    database.close()


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'mig.sqlite'}")
    migrate(database)

    def fill() -> None:
        with database.writing() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 10")
            connection.exec_driver_sql("CREATE TABLE filler AS SELECT zeroblob(1000000)")

    with pytest.raises(EnvironmentFailure, match="disk-full") as raised:
        fill()
    assert raised.value.retryable
    database.close()


@pytest.mark.slow
def test_a_second_process_that_writes_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "mig.sqlite"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.2, lambda: other.execute("COMMIT"))
    release.start()
    started = time.monotonic()
    with database.writing() as connection:
        connection.execute(sa.select(1))
    assert time.monotonic() - started > 0.1
    release.join()
    other.close()
    database.close()


def test_scripts_in_a_zip_file_are_unpacked_to_a_private_directory_that_goes_away(tmp_path: Path) -> None:
    source = files("server.migrations")
    assert isinstance(source, Path)
    with scripts(source) as directory:
        assert directory == source
    archive = tmp_path / "server.zip"
    with ZipFile(archive, "w") as packed:
        for path in source.rglob("*.py"):
            packed.write(path, Path("server/migrations") / path.relative_to(source))
    with ZipFile(archive) as packed, scripts(ZipPath(packed, "server/migrations/")) as directory:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        unpacked = {str(path.relative_to(directory)) for path in directory.rglob("*.py")}
    assert unpacked == {str(path.relative_to(source)) for path in source.rglob("*.py")}
    assert not directory.exists()
