"""Tests of byte strings: found wherever they are, however the bytes come in and however many there are."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.scan import patterns
from agent.scan.byte_strings import ByteScan, ByteStrings

BYTES = st.lists(st.sampled_from([b"\x00", b"a", b"b", b"\n", b"\r\n", b"\xff"]), max_size=30).map(b"".join)
STRINGS = st.lists(BYTES.filter(bool).map(lambda value: value[:6]), min_size=1, max_size=20)


def scan(strings: ByteStrings, chunks: list[bytes]) -> dict[int, bool]:
    scan = ByteScan(strings, frozenset(range(len(strings.strings))))
    for chunk in chunks:
        scan.feed(chunk)
    scan.finish()
    return scan.answers


@given(STRINGS, BYTES, st.lists(st.integers(0, 60)))
@example([b"ab"], b"ab", [1])
@example([b"abab", b"a"], b"ababab", [1, 2, 3])
def test_what_is_found_in_pieces_is_what_is_in_the_whole(
    strings: list[bytes], data: bytes, cuts: list[int]
) -> None:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    chunks = [data[start:end] for start, end in pairwise(places)]
    searched = ByteStrings(strings)
    for _ in range(2):
        assert scan(searched, chunks) == {index: one in data for index, one in enumerate(strings)}


def test_many_strings_in_large_chunks_are_found_once_others_were() -> None:
    strings = ByteStrings([b"needle-%d-" % number for number in range(30)])
    filler = b"\x00\n" * (200 << 10)
    chunks = [filler, filler + b"needle-7-", b"needle-3-" + filler, filler + b"needle-1", b"2-"]
    assert [index for index, found in scan(strings, chunks).items() if found] == [7, 3, 12]


def test_a_scan_ends_once_all_was_found_or_is_needed_no_more() -> None:
    scan = ByteScan(ByteStrings([b"a", b"b"]), frozenset([0, 1]))
    scan.feed(b"xa")
    assert scan.is_open()
    scan.keep_only({0})
    assert not scan.is_open()
    scan.feed(b"b")
    scan.finish()
    assert scan.answers == {0: True}


def test_without_re2_many_strings_are_found_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_engine", lambda: None)
    strings = ByteStrings([bytes([number]) for number in range(20)])
    assert scan(strings, [b"\x03\x05"]) == {number: number in (3, 5) for number in range(20)}
