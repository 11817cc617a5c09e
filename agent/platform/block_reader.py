"""Reads a block device from one offset to another, never writes, and leaves no trace in the page cache.

Rules:

* Opened for reading only, not exclusively, non-blocking (a drive's tray stays where it is) and never through
  a link; what was opened must be the very device that the kernel listed.
* What was read is given back to the kernel (`posix_fadvise`, DONTNEED) piece by piece: a look at a disk does
  not push out what the endpoint works with. Pages that something has written to and that are not stored yet
  stay.
* Where a piece cannot be read, smaller ones are tried; what cannot be read of those is a hole, and after
  `_MOST_HOLES` of them the reading ends.
"""

import os
import stat
from typing import Iterator, NamedTuple

PIECE_BYTES = 2 << 20
# Places and lengths of smaller pieces: no device has larger sectors.
_STEP_BYTES = 64 << 10
_MOST_HOLES = 256
_CACHED_BYTES = 16 << 20


class DeviceGone(Exception):
    """There is no such device, or another one has its name by now."""


class Piece(NamedTuple):
    """Bytes of the device at an offset; none where `hole_bytes` could not be read."""

    offset: int
    data: bytes
    hole_bytes: int = 0


class RawDevice:
    """One device, open for reading until it is closed.

    Raises:
        DeviceGone: it is not there.
        OSError: as open(2); of a drive without a medium too.

    """

    def __init__(self, path: str, number: int) -> None:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(path, flags)
        except FileNotFoundError:
            raise DeviceGone(f"there is no {path}") from None
        status = os.fstat(self._descriptor)
        if not stat.S_ISBLK(status.st_mode) or status.st_rdev != number:
            os.close(self._descriptor)
            raise DeviceGone(f"{path} is not the device that the kernel lists under this name")
        self.size_bytes = os.lseek(self._descriptor, 0, os.SEEK_END)
        self.holes = 0
        self.unreadable_bytes = 0
        self._dropped = 0
        # Read ahead: what is read is read in order.
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes at an offset: fewer, or none, where they cannot be read."""
        if offset < 0 or size <= 0:
            return b""
        try:
            data = os.pread(self._descriptor, size, offset)
        except OSError:
            return b""
        os.posix_fadvise(self._descriptor, offset, size, os.POSIX_FADV_DONTNEED)
        return data

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """Yield what lies between two offsets, in order; no more than there is."""
        at = self._dropped = start
        end = min(end, self.size_bytes)
        while at < end:
            # In full pieces of the device, so that the kernel reads each page once.
            size = min(PIECE_BYTES - at % PIECE_BYTES, end - at)
            try:
                data = os.pread(self._descriptor, size, at)
            except OSError:
                yield from self._try_smaller(at, size)
                data = b""
                if self.holes >= _MOST_HOLES:
                    self._give_back(at)
                    return
                at += size
                continue
            if not data:
                # It became shorter: the medium was changed, or what a loop device lies on was cut.
                self._lose(end - at)
                yield Piece(at, b"", end - at)
                break
            yield Piece(at, data)
            at += len(data)
            if at - self._dropped >= _CACHED_BYTES:
                self._give_back(at)
        self._give_back(end)

    def _try_smaller(self, start: int, size: int) -> Iterator[Piece]:
        at, end = start, start + size
        while at < end:
            step = min(_STEP_BYTES - at % _STEP_BYTES, end - at)
            try:
                data = os.pread(self._descriptor, step, at)
            except OSError:
                data = b""
            if len(data) < step:
                if self.holes >= _MOST_HOLES:
                    return
                self._lose(step)
                yield Piece(at, b"", step)
            else:
                yield Piece(at, data)
            at += step

    def _lose(self, size: int) -> None:
        self.holes += 1
        self.unreadable_bytes += size

    def _give_back(self, end: int) -> None:
        os.posix_fadvise(self._descriptor, self._dropped, end - self._dropped, os.POSIX_FADV_DONTNEED)
        self._dropped = end
