"""Tests of what the kernel tells of directories: real events, and records of them."""

import os
import select
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.inotify import IN_Q_OVERFLOW, Change, Event, Notifier, parse_events


def told(notifier: Notifier) -> list[Change]:
    """Return what was told so far; inotify's events are there when the call that made them returns."""
    found: list[Change] = []
    while select.select([notifier.descriptor], [], [], 0)[0]:
        found += notifier.read()
    return found


def test_changes_are_told_with_directory_and_name(tmp_path: Path) -> None:
    notifier = Notifier()
    directory = os.fsencode(tmp_path)
    assert notifier.add(directory)
    (tmp_path / "new").write_text("x")
    (tmp_path / "new").rename(tmp_path / "moved")
    assert {change.name for change in told(notifier)} == {b"new", b"moved"}
    notifier.close()


def test_a_directory_that_goes_is_told_and_watched_no_more(tmp_path: Path) -> None:
    notifier = Notifier()
    directory = os.fsencode(tmp_path / "gone")
    (tmp_path / "gone").mkdir()
    assert notifier.add(directory)
    (tmp_path / "gone").rmdir()
    assert Change(directory, b"") in told(notifier)
    assert not notifier.has(directory)
    notifier.close()


def test_what_is_no_directory_or_a_link_is_not_watched(tmp_path: Path) -> None:
    notifier = Notifier()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("/etc")
    for name in ("file", "link", "missing"):
        assert not notifier.add(os.fsencode(tmp_path / name))
    assert not notifier.is_full
    notifier.close()


def test_directories_that_are_no_longer_wanted_are_watched_no_more(tmp_path: Path) -> None:
    notifier = Notifier()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        notifier.add(os.fsencode(tmp_path / name))
    notifier.keep_only({os.fsencode(tmp_path / "a")})
    (tmp_path / "b" / "new").write_text("x")
    assert notifier.count == 1
    assert told(notifier) == []
    notifier.close()


@pytest.mark.slow
def test_a_queue_that_ran_over_is_told_as_a_change_somewhere(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    notifier = Notifier()
    notifier.add(os.fsencode(tmp_path))
    # Events that follow on the same one are merged by the kernel: two names in turn are not.
    for number in range(limit // 3 + 10):
        (tmp_path / str(number % 2)).touch()
        (tmp_path / str(number % 2)).unlink()
    assert told(notifier)[-1] == Change(None, b"")
    notifier.close()


def test_records_of_events_are_read_as_inotify_7_lays_them_out() -> None:
    one = struct.pack("=iIII", 1, 0x100, 0, 16) + b"name".ljust(16, b"\0")
    lost = struct.pack("=iIII", -1, IN_Q_OVERFLOW, 0, 0)
    assert list(parse_events(one + lost)) == [Event(1, 0x100, b"name"), Event(-1, IN_Q_OVERFLOW, b"")]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_some_events(data: bytes) -> None:
    assert len(list(parse_events(data))) <= len(data) // 16
