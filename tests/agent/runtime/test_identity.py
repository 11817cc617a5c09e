"""Tests of the agent's identity on disk."""

import os
from pathlib import Path

import pytest

from agent.runtime.identity import load_identity
from agent.runtime.state import open_state_directory
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.identity import agent_id


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return open_state_directory(tmp_path / "state")


def test_an_identity_is_made_once_and_found_again(state: Path) -> None:
    first = load_identity(state, "machine")
    again = load_identity(state, "machine")
    assert first.is_new
    assert not again.is_new
    assert first.agent_id == again.agent_id == agent_id(again.private_key.public_key().public_bytes_raw())
    assert (state / "identity.json").stat().st_mode & 0o777 == 0o600


def test_a_clone_of_the_machine_makes_an_identity_of_its_own(state: Path) -> None:
    original = load_identity(state, "machine")
    clone = load_identity(state, "another machine")
    assert clone.is_new
    assert clone.agent_id != original.agent_id
    assert load_identity(state, "another machine").agent_id == clone.agent_id


def test_an_identity_that_others_can_read_is_not_used(state: Path) -> None:
    load_identity(state, "machine")
    (state / "identity.json").chmod(0o640)
    with pytest.raises(InvalidInput, match="unsafe-file: .*open to others"):
        load_identity(state, "machine")


def test_an_identity_of_another_user_is_not_used(state: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to give a file away")
    load_identity(state, "machine")
    os.chown(state / "identity.json", 65534, 65534)
    with pytest.raises(InvalidInput, match="unsafe-file: .*another user"):
        load_identity(state, "machine")


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"key": "zz", "machine": ""}', b'{"key": "00"}', b"\xff"]
)
def test_a_damaged_identity_is_never_replaced_silently(state: Path, damage: bytes) -> None:
    load_identity(state, "machine")
    (state / "identity.json").write_bytes(damage)
    with pytest.raises(EnvironmentFailure, match="state-failed"):
        load_identity(state, "machine")
    assert (state / "identity.json").read_bytes() == damage
