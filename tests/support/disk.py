"""A small disk that can be filled to the last byte and freed again: a tmpfs of its own; needs root."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.apart import mount, unmount

_PIECE = 1 << 16


class SmallDisk:
    """A disk mounted on a directory, which is made where it is missing."""

    def __init__(self, point: Path, *, size_bytes: int) -> None:
        point.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ballast = point / "ballast"
        self._point = point
        mount("tmpfs", point, "-o", f"size={size_bytes},mode=700")

    def fill(self) -> None:
        """Take what is free, byte for byte."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            piece = _PIECE
            while piece:
                try:
                    os.write(descriptor, bytes(piece))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    piece //= 2
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Take the disk away, also from who still uses it."""
        unmount(self._point, "--lazy")


@contextmanager
def small_disk(point: Path, *, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a small disk for as long as the block lasts."""
    disk = SmallDisk(point, size_bytes=size_bytes)
    try:
        yield disk
    finally:
        disk.close()
