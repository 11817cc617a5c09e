"""Tests of looking at a range of a device: digests and places, read once."""

import hashlib
import os
from contextlib import closing
from pathlib import Path

import pytest

from agent.platform.block_reader import RawDevice
from agent.scan.block_look import Look, Range, Wanted, look_at_range
from agent.scan.raw_patterns import compile_string
from tests.support.loops import loop_device

pytestmark = pytest.mark.system

MIB = 1 << 20


def look_at(image: Path, over: Range, wanted: Wanted, *, cut_to: int | None = None) -> tuple[Look, list[int]]:
    sizes: list[int] = []
    with loop_device(image) as path, closing(RawDevice(path, Path(path).stat().st_rdev)) as device:
        if cut_to is not None:
            os.truncate(image, cut_to)
        return look_at_range(device, over, wanted, sizes.append), sizes


def test_a_range_is_hashed_and_searched_at_once(tmp_path: Path) -> None:
    content = bytearray(os.urandom(10 * MIB))
    content[4 * MIB - 3 : 4 * MIB + 3] = b"needle"
    image = tmp_path / "image"
    image.write_bytes(content)
    wanted = Wanted([compile_string(b"needle".hex())], ("sha256", "md5"), 10)
    look, sizes = look_at(image, Range(777, 10 * MIB), wanted)
    assert look.digests == {kind: hashlib.new(kind, content[777:]).hexdigest() for kind in ("sha256", "md5")}
    assert [one.offsets for one in look.places] == [[4 * MIB - 3]]
    assert (look.bytes_read, look.unreadable_bytes) == (10 * MIB - 777, 0)
    assert sum(sizes) == look.bytes_read


def test_nothing_is_read_once_nothing_is_left_to_look_for(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"a" * (12 * MIB))
    look, _ = look_at(image, Range(0, 12 * MIB), Wanted([compile_string("61")], (), 5))
    assert look.places[0].is_cut
    assert look.bytes_read < 12 * MIB


def test_a_range_that_could_not_be_read_whole_has_no_digest(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"needle" + b"x" * (6 * MIB))
    wanted = Wanted([compile_string(b"needle".hex())], ("sha256",), 5)
    look, _ = look_at(image, Range(0, 6 * MIB), wanted, cut_to=MIB)
    assert look.digests == {}
    assert look.places[0].offsets == [0]
    assert look.unreadable_bytes > 0
