"""Tests of reading files of systemd's journal: real ones, damaged ones, and what was never one."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.platform.journal_file import Data, Entry, JournalFile, NotAJournal
from tests.agent.platform.test_lz4_block import pack
from tests.support.journals import START_US, count_by_journalctl, make_journal

pytestmark = pytest.mark.system

LONG = b"a long message " + b"of many words " * 100 + b"and its end"
ENTRIES = [
    {"MESSAGE": b"hello", "_SYSTEMD_UNIT": b"a.service"},
    {"MESSAGE": LONG, "_SYSTEMD_UNIT": b"a.service"},
    {"MESSAGE": b"\x1b[2J\xff two\nlines", "_SYSTEMD_UNIT": b"b.service"},
    {"MESSAGE": b"hello", "SECRET": b"x"},
]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_journal(tmp_path_factory.mktemp("journal") / "a.journal", ENTRIES)


def read(path: Path, *names: str) -> tuple[dict[int, bytes], list[Entry], list[str]]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        file = JournalFile(descriptor, names or ("MESSAGE", "_SYSTEMD_UNIT"))
        found = list(file.read())
        data = {one.offset: one.text for one in found if isinstance(one, Data)}
        return data, [one for one in found if isinstance(one, Entry)], file.problems
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("is_compact", [True, False])
@pytest.mark.parametrize("is_packed", [True, False])
def test_entries_lead_to_the_fields_that_are_wanted(
    tmp_path: Path, *, is_compact: bool, is_packed: bool
) -> None:
    path = make_journal(tmp_path / "a.journal", ENTRIES, is_compact=is_compact, is_packed=is_packed)
    data, entries, problems = read(path)
    assert problems == []
    assert len(entries) == count_by_journalctl(path) == len(ENTRIES)
    for number, (entry, written) in enumerate(zip(entries, ENTRIES, strict=True)):
        assert entry.realtime_us == START_US + number * 1_000_000
        texts = {data[item] for item in entry.items if item in data}
        assert texts == {f"{name}=".encode() + value for name, value in written.items() if name != "SECRET"}


def test_a_field_is_known_by_its_whole_name(journal: Path) -> None:
    assert set(read(journal, "MESS", "_SYSTEMD_UNIT")[0].values()) == {
        b"_SYSTEMD_UNIT=a.service",
        b"_SYSTEMD_UNIT=b.service",
    }


def test_fields_that_lz4_or_xz_packed_are_unpacked(journal: Path, tmp_path: Path) -> None:
    import lzma  # noqa: PLC0415  (beside what packs with lz4)

    text = b"MESSAGE=" + LONG
    by_lz4 = len(text).to_bytes(8, "little") + pack(text, tmp_path)
    for flag, packed in ((2, by_lz4), (1, lzma.compress(text, check=lzma.CHECK_NONE))):
        data, _, problems = read(with_field(journal, tmp_path / "one.journal", flag, packed))
        assert text in data.values()
        assert problems == []


def test_a_packed_field_that_is_damaged_is_said(journal: Path, tmp_path: Path) -> None:
    for flag in (1, 2, 4):
        _, entries, problems = read(with_field(journal, tmp_path / "one.journal", flag, b"nonsense" * 9))
        assert problems == ["1 packed fields in it could not be unpacked"]
        assert len(entries) == len(ENTRIES)


def with_field(journal: Path, path: Path, flag: int, packed: bytes) -> Path:
    """Write a copy with one more object: a field that is packed, where the space for more begins."""
    data = bytearray(journal.read_bytes())
    header_bytes, tail = struct.unpack_from("<Q", data, 88)[0], struct.unpack_from("<Q", data, 136)[0]
    at = tail + -(-struct.unpack_from("<Q", data, tail + 8)[0] // 8) * 8
    start = 72 if struct.unpack_from("<I", data, 12)[0] & 16 else 64
    made = struct.pack("<BB6xQ", 1, flag, start + len(packed)).ljust(start, b"\0") + packed
    data[at : at + len(made)] = made
    struct.pack_into("<Q", data, 136, at)
    struct.pack_into("<Q", data, 96, len(data) - header_bytes)
    path.write_bytes(data)
    return path


def test_behind_an_object_that_cannot_be_one_the_rest_is_said_to_be_unseen(
    journal: Path, tmp_path: Path
) -> None:
    data = bytearray(journal.read_bytes())
    place = data.index(b"MESSAGE=hello") - (72 if struct.unpack_from("<I", data, 12)[0] & 16 else 64)
    for size in (0, 7, 1 << 62):
        struct.pack_into("<Q", data, place + 8, size)
        path = tmp_path / f"{size}.journal"
        path.write_bytes(data)
        found, entries, problems = read(path)
        assert problems == [f"is damaged at {place}: what follows was not looked at"]
        assert not entries
        assert b"MESSAGE=hello" not in found.values()


def test_a_journal_that_was_cut_says_so(journal: Path, tmp_path: Path) -> None:
    data = journal.read_bytes()
    path = tmp_path / "cut.journal"
    path.write_bytes(data[: data.index(b"MESSAGE=hello")])
    assert len(read(path)[2]) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "no journal", id="empty"),
        pytest.param(b"LPKSHHRH", "no journal", id="nothing behind its signature"),
        pytest.param(b"x" * 500, "no journal", id="something else"),
        pytest.param(b"LPKSHHRH" + b"\0\0\0\0\x00\x01\0\0" + b"\0" * 300, "not known", id="of tomorrow"),
        pytest.param(b"LPKSHHRH" + b"\0" * 300, "not known", id="without a header's size"),
    ],
)
def test_what_is_no_journal_is_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    path.write_bytes(data)
    with pytest.raises(NotAJournal, match=reason):
        read(path)


@settings(max_examples=200)
@given(st.data())
def test_a_journal_with_any_bytes_in_it_is_read_to_an_end(
    journal: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(journal.read_bytes())
    used = struct.unpack_from("<Q", content, 136)[0] + 200
    # Most of a small journal is its hash tables: changes there would show nothing.
    interesting = content.index(b"MESSAGE=hello") - 200
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.one_of(st.integers(0, 272), st.integers(interesting, used)))
        patch = data.draw(st.binary(min_size=1, max_size=16))
        content[at : at + len(patch)] = patch
    path = tmp_path_factory.mktemp("hostile") / "x.journal"
    path.write_bytes(content)
    try:
        found, entries, _ = read(path)
    except NotAJournal:
        return
    assert len(found) + len(entries) < len(content) // 16
    path.unlink()
