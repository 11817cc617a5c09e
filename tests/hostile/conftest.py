"""Fixtures of the stories."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import desk, opponent  # noqa: F401  (fixtures)
from tests.hostile.captured import Captured
from tests.hostile.opponent import Endpoint
from tests.support.endpoint import make_baked
from tests.support.gpg import Investigator, temporary_investigator
from tests.support.platform import running_platform


@pytest.fixture(scope="session")
def ada() -> Iterator[Investigator]:
    """The investigator of these stories, to whom answers can be sealed."""
    with temporary_investigator("Ada Investigator") as investigator:
        investigator.add_encryption_key()
        yield investigator


@pytest.fixture(scope="session")
def captured(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[Captured]:
    """A platform with two agents that the opponent owns; all stories share it, so each leaves it working."""
    directory = tmp_path_factory.mktemp("platform")
    table = {"heartbeat_s": 2}
    with running_platform(directory, ada, "one", "two", agent_table=table) as platform:
        captured = Captured(platform)
        # An agent is told anew of the log after minutes only, and a story may kill it before it has signed.
        captured.wait_witnessed()
        yield captured


MakeEndpoint = Callable[..., Endpoint]


@pytest.fixture
def make_endpoint(tmp_path: Path) -> Iterator[MakeEndpoint]:
    """Make an endpoint that trusts these investigators; `weight` is what every module needs."""
    made: list[Endpoint] = []

    def make(*trusted: Investigator, weight: int = 1, max_entries: int = 10_000, **config: Any) -> Endpoint:
        people = {investigator.fingerprint: 1 for investigator in trusted}
        acl = {"default": {"minimum_weight": weight, "investigators": people}}
        directory = tmp_path / f"endpoint{len(made)}"
        directory.mkdir(mode=0o700)
        made.append(Endpoint(directory, make_baked(trusted, acl=acl, **config), max_entries=max_entries))
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


@pytest.fixture
def endpoint(make_endpoint: MakeEndpoint, ada: Investigator) -> Endpoint:
    """An endpoint that trusts Ada."""
    return make_endpoint(ada)
