"""Tests of the baseline: what is kept of an entry, and what is taken back of it."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.baseline import Baseline, Entry, decode_baseline, encode_baseline, look_at
from protocol.errors import InvalidInput

ENTRY = Entry(0o100644, 0, 0, 4, 1, 1, 7, digest="a" * 64)
KEPT = encode_baseline(Baseline(since=5, places=b"x", entries={b"/etc/\xff": ENTRY}))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_text("data")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def look(name: bytes, directory: int, before: Entry | None = None, **options: object) -> Entry | None:
    settings: dict[str, object] = {"trusts_status": True, "max_bytes": 1000, "on_read": _nothing, **options}
    return look_at(name, directory, before=before, **settings)  # type: ignore[arg-type]


def _nothing(_count: int) -> None:
    pass


def test_what_was_kept_comes_back_as_it_was() -> None:
    baseline = decode_baseline(KEPT)
    assert (baseline.since, baseline.places, baseline.entries) == (5, b"x", {b"/etc/\xff": ENTRY})


@given(st.integers(0, len(KEPT) - 1), st.integers(1, 255))
def test_a_baseline_of_which_a_byte_was_changed_is_refused(at: int, by: int) -> None:
    changed = bytearray(KEPT)
    changed[at] ^= by
    with pytest.raises(InvalidInput, match="bad-document"):
        decode_baseline(bytes(changed))


@given(st.integers(0, len(KEPT) - 1))
def test_a_baseline_that_was_cut_is_refused(at: int) -> None:
    with pytest.raises(InvalidInput, match="check sum"):
        decode_baseline(KEPT[:at])


def test_something_else_with_a_good_check_sum_is_refused() -> None:
    body = msgspec.msgpack.encode([1, 2])
    with pytest.raises(InvalidInput, match="another shape"):
        decode_baseline(b"mig-baseline-1 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def test_a_file_has_a_digest_a_link_its_target_and_a_pipe_neither(place: int) -> None:
    file, link, fifo = (look(name, place) for name in (b"file", b"link", b"fifo"))
    assert file is not None
    assert file.digest == hashlib.sha256(b"data").hexdigest()
    assert link is not None
    assert (link.target, link.digest) == (b"/etc/passwd", "")
    assert fifo is not None
    assert (fifo.target, fifo.digest, fifo.problem) == (b"", "", "")


def test_what_is_not_there_is_nothing(place: int) -> None:
    assert look(b"missing", place) is None


def test_a_file_whose_status_is_as_before_is_read_only_where_status_is_not_believed(place: int) -> None:
    first = look(b"file", place)
    assert first is not None
    forged = msgspec.structs.replace(first, digest="0" * 64)
    assert look(b"file", place, forged) == forged
    assert look(b"file", place, forged, trusts_status=False) == first


def test_of_a_file_above_the_bound_no_digest_is_made(place: int) -> None:
    entry = look(b"file", place, max_bytes=3)
    assert entry is not None
    assert (entry.digest, entry.size) == ("", 4)


def test_a_directorys_times_do_not_count(place: int, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    before = look(b"sub", place)
    (tmp_path / "sub" / "new").touch()
    assert look(b"sub", place) == before
