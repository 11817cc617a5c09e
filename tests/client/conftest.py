"""Fixtures of the client's tests: a platform to speak to, and an investigator's place in the file system."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.rows import AuditEvent
from tests.client.opponent import Opponent, running_opponent
from tests.support.api import ApiServer, api_server
from tests.support.gpg import Investigator


@pytest.fixture
def opponent() -> Iterator[Opponent]:
    with running_opponent() as platform:
        yield platform


@pytest.fixture
def desk(tmp_path: Path, opponent: Opponent, ada: Investigator, monkeypatch: pytest.MonkeyPatch) -> Opponent:
    """Ada's configuration for the platform, with directories of its own; gives the platform."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'[client]\nserver = "{opponent.url}"\nfingerprint = "{ada.fingerprint}"\ngpg_home = "{ada.home}"\n'
    )
    monkeypatch.setenv("MIG_CONFIG", str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return opponent


@pytest.fixture
def api(tmp_path: Path, ada: Investigator, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """An API with a log of ten entries and more, and the configuration of an investigator who may manage."""
    with api_server(tmp_path) as server:
        server.store.add_investigator(
            ada.fingerprint, ada.name, ada.public_key, ("read", "manage"), server.now()
        )
        config = tmp_path / "config.toml"
        config.write_text(
            f'[client]\nserver = "{server.url}"\nfingerprint = "{ada.fingerprint}"\ngpg_home = "{ada.home}"\n'
        )
        monkeypatch.setenv("MIG_CONFIG", str(config))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        for count in range(10):
            event = AuditEvent(kind="read", who=("A" * 40,), what={"answers": count})
            server.store.record(event, server.now())
        yield server
