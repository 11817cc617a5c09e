"""Tests of the state directory: private, locked, written atomically."""

import subprocess
from pathlib import Path

import pytest

from agent.runtime.state import lock_state_directory, open_state_directory, require_private, write_atomically
from agent.runtime.status import is_running, read_status
from protocol.errors import EnvironmentFailure, InvalidInput


def test_the_state_directory_is_made_private(tmp_path: Path) -> None:
    directory = open_state_directory(tmp_path / "a/b/state")
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    with pytest.raises(InvalidInput, match="unsafe-file: .*open to others"):
        open_state_directory(tmp_path / "state")


def test_a_state_directory_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to(tmp_path / "real")
    with pytest.raises(InvalidInput, match="unsafe-file: .*is a link"):
        open_state_directory(tmp_path / "state")


def test_a_state_directory_serves_one_process(tmp_path: Path) -> None:
    directory = open_state_directory(tmp_path / "state")
    assert not is_running(directory)
    with lock_state_directory(directory):
        assert is_running(directory)
        with pytest.raises(EnvironmentFailure, match="state-in-use: another mig-agent uses"):
            lock_state_directory(directory)
    lock_state_directory(directory).close()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomically(target, b"old")
    (tmp_path / ".file.new").mkdir()
    with pytest.raises(EnvironmentFailure, match="state-failed"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"


@pytest.mark.system
def test_a_full_disk_is_said_and_leaves_the_old_file(tmp_path: Path) -> None:
    """Needs root, to mount a small file system."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], check=True)
    try:
        write_atomically(mount / "file", b"old")
        with pytest.raises(EnvironmentFailure, match="disk-full: no room for") as caught:
            write_atomically(mount / "file", b"x" * 1_000_000)
        assert caught.value.retryable
        assert (mount / "file").read_bytes() == b"old"
        assert [entry.name for entry in mount.iterdir()] == ["file"]
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_private_file_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o600)
    require_private(tmp_path / "file")


def test_status_without_an_agent_says_so(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="state-failed: no agent has run with"):
        read_status(tmp_path)
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(EnvironmentFailure, match="state-failed: .*damaged"):
        read_status(tmp_path)
