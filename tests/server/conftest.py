"""The databases that the store is held on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.database import Database
from server.store import Store
from tests.support.database import empty_tables, migrated_database
from tests.support.installation import Installation
from tests.support.postgres import make_database, private_postgres

__all__ = ["private_postgres"]


@pytest.fixture(scope="session")
def migrated_postgres(private_postgres: str) -> str:
    """The URL of a database with all tables, for one test after the other: a hundred would be a gigabyte."""
    make_database(private_postgres, "store")
    url = private_postgres.replace("/mig?", "/store?")
    migrated_database(url).close()
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty migrated database of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'mig.sqlite'}"
    else:
        url = request.getfixturevalue("migrated_postgres")
        empty_tables(url)
    opened = migrated_database(url)
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> Store:
    """A store over an empty database of each kind."""
    return Store(database)


@pytest.fixture
def installation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Installation:
    return Installation(tmp_path, capsys)


@pytest.fixture
def prepared(installation: Installation) -> Installation:
    installation.init()
    assert installation("migrate").code == 0
    return installation
