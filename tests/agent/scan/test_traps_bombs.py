"""Traps that unpack to more than there is: what they hide is not found, which is said, and all else is."""

import gzip
import io
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.agent.scan.runs import grow, paths, run
from tests.support.apart import peak_kib, run_apart

MIB = 1 << 20
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"  # RFC 1952


def bomb(size_mib: int, hidden: bytes = b"") -> bytes:
    """Return a gzip file of so many MiB of zeros, one block again and again, and what is behind them."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = b"\0" * MIB
    # A full flush forgets what was before, so that a block may be repeated.
    block = deflate.compress(zeros) + deflate.flush(zlib.Z_FULL_FLUSH)
    last = deflate.compress(hidden) + deflate.flush()
    check = zlib.crc32(hidden, _crc_of_zeros(size_mib))
    return HEADER + block * size_mib + last + struct.pack("<II", check, size_mib * MIB + len(hidden))


def _crc_of_zeros(size_mib: int) -> int:
    crc = 0
    for _ in range(size_mib):
        crc = zlib.crc32(b"\0" * MIB, crc)
    return crc


def unpacked(root: Path, **search: Any) -> Any:
    options = {"decompress": True, "matchall": True, **search.pop("options", {})}
    return run(s1={"paths": [str(root)], **search, "options": options})


@pytest.fixture(scope="module")
def large() -> bytes:
    return bomb(256, b"needle\n")


def test_a_bomb_is_what_it_is_said_to_be() -> None:
    assert gzip.decompress(bomb(3, b"needle")) == b"\0" * 3 * MIB + b"needle"


@pytest.mark.slow
def test_bombs_cost_only_themselves_and_are_named(tmp_path: Path, large: bytes) -> None:
    plain = {f"d{n % 9}/{n:03}.gz": gzip.compress(b"needle %d\n" % n) for n in range(400)}
    grow(tmp_path, {**plain, "d1/bomb.gz": large, "d5/bomb.gz": large, "bomb.gz": large})
    result = unpacked(tmp_path, contents=["needle"])
    assert sorted(paths(result, tmp_path)) == sorted(plain)
    assert result.statistics["errors"] == 3
    named = [note for note in result.notes if "bomb.gz: unpacks to more than 250 times its size" in note]
    assert len(named) == 3


@pytest.mark.slow
def test_a_bomb_does_not_fill_the_memory(tmp_path: Path, large: bytes) -> None:
    grow(tmp_path, {"bomb.gz": large})

    def act() -> Any:
        before = peak_kib()
        unpacked(tmp_path, contents=["needle"], options={"returnsha256": True})
        return peak_kib() - before

    assert run_apart(act) < 64 << 10


@pytest.mark.slow
def test_what_a_bomb_hides_matches_nothing_not_even_turned_round(tmp_path: Path, large: bytes) -> None:
    grow(tmp_path, {"bomb.gz": large, "fine.gz": gzip.compress(b"hay\n")})
    assert paths(unpacked(tmp_path, contents=["!needle"]), tmp_path) == ["fine.gz"]
    turned = unpacked(tmp_path, sha256=["0" * 64], options={"mismatch": ["sha256"]})
    assert paths(turned, tmp_path) == ["fine.gz"]
    # As a file it is a file like any other.
    result = run(s1={"paths": [str(tmp_path)], "contents": ["!needle"], "options": {"matchall": True}})
    assert paths(result, tmp_path) == ["bomb.gz", "fine.gz"]


def test_a_bomb_in_a_bomb_is_unpacked_once(tmp_path: Path) -> None:
    grow(tmp_path, {"twice.gz": gzip.compress(gzip.compress(b"needle\n"))})
    assert paths(unpacked(tmp_path, contents=["needle"]), tmp_path) == []
    assert paths(unpacked(tmp_path, bytes=["1f8b08"]), tmp_path) == ["twice.gz"]


def test_what_is_cut_damaged_or_followed_by_garbage_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    whole = gzip.compress(b"needle\n" + bytes(range(256)) * 100)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    grow(
        tmp_path,
        {
            "cut.gz": whole[:-20],
            "damaged.gz": whole[:40] + b"\xff\xff\xff" + whole[43:],
            "header.gz": HEADER,
            "garbage.gz": whole + b"garbage",
            "tar.gz": archive.getvalue(),
            "whole.gz": whole,
            "plain": b"needle\n",
        },
    )
    result = unpacked(tmp_path, contents=["!nothing"])
    assert {"whole.gz", "plain", "tar.gz"} <= set(paths(result, tmp_path))
    assert not {"cut.gz", "damaged.gz", "header.gz"} & set(paths(result, tmp_path))
    named = {note.partition(":")[0].removeprefix(f"{tmp_path}/") for note in result.notes}
    assert {"cut.gz", "damaged.gz", "header.gz"} <= named
