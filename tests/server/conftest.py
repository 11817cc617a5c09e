"""The databases that the store is held on."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.database import Database
from server.store import Store
from tests.support.database import migrated_database
from tests.support.installation import Installation
from tests.support.postgres import make_database, private_postgres

__all__ = ["private_postgres"]

_numbers = itertools.count()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty migrated database of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'mig.sqlite'}"
    else:
        server = request.getfixturevalue("private_postgres")
        name = f"store{next(_numbers)}"
        make_database(server, name)
        url = server.replace("/mig?", f"/{name}?")
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
