from pathlib import Path

import pytest

from client.names import KnownAgents
from protocol.errors import EnvironmentFailure

FIRST, SECOND = "1" * 32, "2" * 32


def test_a_name_that_moves_to_another_agent_is_told(tmp_path: Path) -> None:
    path = tmp_path / "new" / "agents.json"
    known = KnownAgents(path)
    assert known.note("web1", FIRST) is None
    assert known.note("web1", FIRST) is None
    known.close()
    again = KnownAgents(path)
    assert again.note("web1", FIRST) is None
    assert again.note("web1", SECOND) == f"the name web1 has moved from agent {FIRST} to agent {SECOND}"


def test_nothing_is_written_when_nothing_is_new(tmp_path: Path) -> None:
    KnownAgents(tmp_path / "agents.json").close()
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_private(tmp_path: Path) -> None:
    known = KnownAgents(tmp_path / "agents.json")
    known.note("web1", FIRST)
    known.close()
    assert (tmp_path / "agents.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["agents.json"]


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"web1": 5}', b"\xff"])
def test_a_file_that_is_broken_is_not_silently_forgotten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agents.json"
    path.write_bytes(content)
    with pytest.raises(EnvironmentFailure, match="repair it or remove it"):
        KnownAgents(path)
