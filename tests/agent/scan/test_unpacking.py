"""Tests of unpacking: what was packed comes out, and whatever does not come out whole is said."""

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable
from itertools import pairwise

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.unpacking import SIGNATURE_BYTES, Limits, open_packed

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
}
packed_by = pytest.mark.parametrize("pack", PACKERS.values(), ids=PACKERS)
DATA = st.lists(st.sampled_from([b"a", b"bc", b"\x00" * 50, b"\n"]), max_size=50).map(b"".join)


def unpack(packed: bytes, cuts: list[int] = [], **limits: int) -> tuple[bytes, str | None]:  # noqa: B006
    """Return what comes out of a file that is read in pieces, and what is said of it."""
    unpacker = open_packed(packed[:SIGNATURE_BYTES], Limits(**limits))
    assert unpacker is not None
    places = sorted({min(cut, len(packed)) for cut in cuts} | {0, len(packed)})
    given = [out for start, end in pairwise(places) for out in unpacker.feed(packed[start:end])]
    unpacker.finish()
    assert all(0 < len(out) <= 1 << 20 for out in given)
    return b"".join(given), unpacker.problem


@packed_by
@given(
    parts=st.lists(DATA, min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 400)),
    padding=st.integers(0, 9),
)
def test_members_behind_each_other_are_one_content_however_they_are_read(
    pack: Callable[[bytes], bytes], parts: list[bytes], cuts: list[int], padding: int
) -> None:
    packed = b"".join(pack(part) for part in parts) + bytes(padding)
    assert unpack(packed, cuts) == (b"".join(parts), None)


@packed_by
@given(data=DATA, lost=st.integers(1, 400))
def test_what_is_cut_off_is_said_and_its_beginning_is_given(
    pack: Callable[[bytes], bytes], data: bytes, lost: int
) -> None:
    packed = pack(data)
    kept = packed[: max(SIGNATURE_BYTES, len(packed) - lost)]
    given, problem = unpack(kept)
    assert data.startswith(given)
    assert problem is not None
    assert problem.startswith("ends in the middle of what it packs: ")


@packed_by
@given(data=DATA, place=st.integers(0, 400), value=st.integers(0, 255))
def test_changed_bytes_give_the_content_or_are_said(
    pack: Callable[[bytes], bytes], data: bytes, place: int, value: int
) -> None:
    packed = bytearray(pack(data))
    packed[SIGNATURE_BYTES + place % (len(packed) - SIGNATURE_BYTES)] = value
    given, problem = unpack(bytes(packed))
    # A gzip header holds what says nothing of the content; anything else is guarded by a checksum.
    assert problem is not None or given == data


@packed_by
def test_what_follows_and_is_not_packed_is_said(pack: Callable[[bytes], bytes]) -> None:
    given, problem = unpack(pack(b"first") + b"and something else")
    assert given == b"first"
    assert problem is not None
    assert problem.startswith("is damaged (")


@pytest.mark.slow
@packed_by
def test_a_bomb_ends_at_the_limit_and_is_said(pack: Callable[[bytes], bytes]) -> None:
    given, problem = unpack(pack(bytes(16 << 20)), free_bytes=1 << 20)
    # Beyond that it may give what is allowed for the 32 KiB that it takes at once.
    assert 1 << 20 < len(given) <= 9 << 20
    assert problem is not None
    assert problem.startswith("unpacks to more than 250 times its size: ")


def test_what_is_large_without_being_a_bomb_ends_at_the_limit_as_well() -> None:
    given, problem = unpack(gzip.compress(bytes(4 << 20)), ratio=10_000, most_bytes=1 << 20, free_bytes=0)
    assert len(given) == 2 << 20
    assert problem is not None
    assert problem.startswith("unpacks to more than 0 GiB")


def test_ten_thousand_empty_members_are_unpacked() -> None:
    assert unpack(gzip.compress(b"") * 10_000 + gzip.compress(b"end")) == (b"end", None)


def test_xz_that_wants_more_memory_than_it_may_have_is_said() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 256 << 20}]
    given, problem = unpack(lzma.compress(b"a" * 100, filters=filters))
    assert given == b""
    assert problem is not None
    assert "emory usage limit" in problem


def test_what_is_not_packed_is_not_unpacked() -> None:
    for head in (b"", b"\x1f", b"\x1f\x8b", b"BZ", b"text"):
        assert open_packed(head) is None


@pytest.mark.parametrize(
    ("module", "pack", "name"),
    [
        ("bz2", bz2.compress, "bzip2"),
        ("lzma", lzma.compress, "xz"),
        ("backports.zstd", zstd.compress, "zstd"),
    ],
)
def test_a_python_without_a_decoder_says_so(
    module: str, pack: Callable[[bytes], bytes], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delattr("backports.zstd", raising=False)
    monkeypatch.setitem(sys.modules, "compression", None)
    assert unpack(pack(b"x")) == (b"", f"is packed with {name}, which this endpoint's Python does not unpack")
