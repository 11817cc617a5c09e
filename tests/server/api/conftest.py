"""An API of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import ApiServer, api_server
from tests.support.gpg import Investigator


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    """An API over an empty SQLite database."""
    with api_server(tmp_path) as server:
        yield server


@pytest.fixture
def token(api: ApiServer, ada: Investigator) -> str:
    """The token of a session of Ada, who may read and submit."""
    return api.login(ada, "read", "submit")


@pytest.fixture(scope="module")
def shared_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API for tests whose requests change nothing."""
    with api_server(tmp_path_factory.mktemp("api")) as server:
        yield server


@pytest.fixture(scope="module")
def shared_token(shared_api: ApiServer, ada: Investigator) -> str:
    """The token of a session of Ada at the shared API."""
    return shared_api.login(ada, "read", "submit")
