"""Tests of unpacking LZ4 blocks, against what lz4 itself packs."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.platform.lz4_block import BadBlock, unpack_block

_STORED = 0x80000000


def pack(data: bytes, directory: Path) -> bytes:
    """Return one block as lz4(1) packs it."""
    (directory / "plain").write_bytes(data)
    command = ["lz4", "-9", "-q", "-f", "-B7", "--no-frame-crc", "--no-content-size", "plain", "packed"]
    subprocess.run(command, cwd=directory, check=True)
    frame = (directory / "packed").read_bytes()
    # Before the block stand magic, FLG, BD and HC: lz4_Frame_format.md of lz4's documents.
    size = int.from_bytes(frame[7:11], "little")
    assert not size & _STORED, "choose data that can be packed"
    return frame[11 : 11 + size]


@pytest.mark.system
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"a" * 100_000, id="one byte over and over"),
        pytest.param(b"abc" * 1000, id="a match that reaches into itself"),
        pytest.param(os.urandom(300) * 9, id="long literals, then long matches"),
        pytest.param(b"MESSAGE=" + b" ".join(b"word%d" % at for at in range(5000)), id="text"),
    ],
)
def test_what_lz4_packs_is_unpacked_whole_or_in_its_beginning(data: bytes, tmp_path: Path) -> None:
    packed = pack(data, tmp_path)
    assert unpack_block(packed, len(data)) == data
    assert unpack_block(packed, 80) == data[:80]


@given(st.binary(max_size=200))
@example(b"\xff" + b"\xff" * 50)
@example(b"\x10a\x00\x00")
@example(b"\x1fa\x01\x00" + b"\xff" * 40 + b"\x00\x00")
def test_any_bytes_give_bounded_bytes_or_a_refusal(data: bytes) -> None:
    try:
        assert len(unpack_block(data, 1000)) <= 1000
    except BadBlock:
        return


def test_a_block_that_ends_early_is_refused() -> None:
    with pytest.raises(BadBlock, match="literals beyond its end"):
        unpack_block(b"\x50ab", 100)
    with pytest.raises(BadBlock, match="a match before its beginning"):
        unpack_block(b"\x10a\x02\x00", 100)
    with pytest.raises(BadBlock, match="ends in the middle"):
        unpack_block(b"", 100)
