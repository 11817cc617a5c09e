"""Tests of reading block devices: real loop devices, whole ones and such as lose a part of what they show."""

import ctypes
import mmap
import os
from contextlib import closing
from pathlib import Path

import pytest

from agent.platform.block_reader import PIECE_BYTES, DeviceGone, RawDevice
from tests.support.loops import loop_device, make_image

pytestmark = pytest.mark.system

MIB = 1 << 20
SIZE = 2 * PIECE_BYTES + 3 * 512


def number_of(path: str) -> int:
    return Path(path).stat().st_rdev


def test_a_range_is_read_whole_and_in_order(tmp_path: Path) -> None:
    image = tmp_path / "image"
    content = os.urandom(SIZE)
    image.write_bytes(content)
    with loop_device(image) as path, closing(RawDevice(path, number_of(path))) as device:
        assert device.size_bytes == SIZE
        for start, end in ((0, SIZE), (1, 700), (PIECE_BYTES - 3, PIECE_BYTES + 5), (SIZE - 9, SIZE + 4096)):
            pieces = list(device.pieces(start, end))
            assert b"".join(one.data for one in pieces) == content[start:end]
            assert pieces[0].offset == start
        assert list(device.pieces(5, 5)) == []
        assert device.read(SIZE - 4, 100) == content[-4:]
        assert device.read(-1, 100) == device.read(SIZE + 5, 9) == b""


def pages_in_memory(path: str) -> int:
    """Return how many pages of a device the page cache holds (mincore(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    with Path(path).open("rb") as device:
        size = device.seek(0, os.SEEK_END)
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, device.fileno(), 0)
    told = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    assert libc.mincore(address, size, told) == 0
    assert libc.munmap(address, size) == 0
    return sum(page & 1 for page in told.raw)


def test_what_was_read_does_not_stay_in_the_page_cache(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(os.urandom(24 * MIB))
    # Held open: with the last who has it open a device's pages go by themselves.
    with loop_device(image) as path, Path(path).open("rb", buffering=0):
        with closing(RawDevice(path, number_of(path))) as device:
            assert sum(len(one.data) for one in device.pieces(0, device.size_bytes)) == 24 * MIB
        assert pages_in_memory(path) == 0
        assert len(Path(path).read_bytes()) == 24 * MIB
        assert pages_in_memory(path) > 0  # what anybody else reads stays


def test_nothing_is_opened_but_the_device_that_was_meant(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", MIB)
    with loop_device(image) as path:
        with pytest.raises(DeviceGone, match="is not the device"):
            RawDevice(path, number_of(path) + 1)
        link = tmp_path / "link"
        link.symlink_to(path)
        with pytest.raises(OSError, match="symbolic links"):
            RawDevice(str(link), number_of(path))
        with pytest.raises(DeviceGone, match="is not the device"):
            RawDevice(str(image), number_of(path))
        with pytest.raises(DeviceGone, match="there is no"):
            RawDevice(str(tmp_path / "gone"), number_of(path))


def test_where_a_device_cannot_be_read_there_is_a_hole_and_the_rest_is_read(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x" * (9 * MIB))
    with loop_device(image) as path, closing(RawDevice(path, number_of(path))) as device:
        # What the device lies on is cut while it is looked at: the kernel tells input/output errors.
        os.truncate(image, MIB + 4096)
        pieces = list(device.pieces(0, device.size_bytes))
        assert device.unreadable_bytes == sum(one.hole_bytes for one in pieces) > 7 * MIB
        read = sum(len(one.data) for one in pieces)
        assert MIB <= read < 2 * MIB
        assert device.read(5 * MIB, 100) == b""


def test_a_device_that_cannot_be_read_at_all_ends_the_reading(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"x" * (40 * MIB))
    with loop_device(image) as path, closing(RawDevice(path, number_of(path))) as device:
        os.truncate(image, 0)
        holes = [one.hole_bytes for one in device.pieces(0, device.size_bytes)]
        assert len(holes) <= 257
