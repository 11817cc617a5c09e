"""The file of the digest cache: made, checked and opened by the process that keeps the agent's state.

It holds a header and a table of records (`agent.scan.cache`), all zero at first. Whoever scans is given it as
an open descriptor and knows no path. It is used only where it is ours alone, whole, of this format and of
this very build; anything else is replaced by an empty one, and that is said.

Outside `agent.scan`, of which the resident agent loads nothing. Standard library only.
"""

import contextlib
import hashlib
import os
import stat
import struct
from pathlib import Path
from typing import NamedTuple

FORMAT = 1
MAGIC = b"MIG digests\n"
# device, inode, size, mtime, ctime, kind of digest; the digest; a check sum over both.
RECORD_BYTES = 48 + 32 + 8
# A record stands in one of as many places from the one that its key gives.
PROBES = 16
SLOTS = 1 << 19
HEADER_BYTES = 4096
TABLE_BYTES = (SLOTS + PROBES) * RECORD_BYTES
FILE_BYTES = HEADER_BYTES + TABLE_BYTES
_HEADER = struct.Struct("<12sIQ32s")  # magic, format, seed of this file's check sums, SHA-256 of the build
_SUM_BYTES = 32
_OTHERS_CAN_TOUCH = stat.S_IRWXG | stat.S_IRWXO


class OpenedCache(NamedTuple):
    """A cache that can be used, and why an earlier one was not: empty where it was, or there was none."""

    descriptor: int
    replaced: str


def open_cache(path: Path, build: str) -> OpenedCache:
    """Open the cache of this build; make an empty one where there is none that can be used.

    Raises:
        OSError: where none can be made, as on a full disk.

    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return OpenedCache(_make(path, build), "")
    except OSError as error:
        return OpenedCache(_make(path, build), str(error.strerror))
    wrong = _what_is_wrong(descriptor, build)
    if not wrong:
        return OpenedCache(descriptor, "")
    os.close(descriptor)
    return OpenedCache(_make(path, build), wrong)


def read_seed(descriptor: int) -> int:
    """Return the seed of the check sums of a cache that is open."""
    return int(_HEADER.unpack(os.pread(descriptor, _HEADER.size, 0))[2])


def _what_is_wrong(descriptor: int, build: str) -> str:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        return "is not a file of its own"
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_CAN_TOUCH:
        return "is not this user's alone"
    return "is not whole" if status.st_size != FILE_BYTES else _what_is_wrong_in(descriptor, build)


def _what_is_wrong_in(descriptor: int, build: str) -> str:
    header = os.pread(descriptor, _HEADER.size + _SUM_BYTES, 0)
    if hashlib.sha256(header[: _HEADER.size]).digest() != header[_HEADER.size :]:
        return "is damaged"
    magic, version, _, made_by = _HEADER.unpack(header[: _HEADER.size])
    if (magic, version) != (MAGIC, FORMAT):
        return "is of another format"
    return "is of another build" if made_by != _digest_of(build) else ""


def _make(path: Path, build: str) -> int:
    """Make an empty cache, or none: what stood there before stands until it is replaced by a whole one."""
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        # All of its room is taken now: a write into a hole would fail later, when the disk is full.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, FILE_BYTES)
        else:
            os.ftruncate(descriptor, FILE_BYTES)
        seed = int.from_bytes(os.urandom(8), "little")
        header = _HEADER.pack(MAGIC, FORMAT, seed, _digest_of(build))
        os.pwrite(descriptor, header + hashlib.sha256(header).digest(), 0)
        os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):  # the first error is the one that counts
            temporary.unlink()
        raise
    return descriptor


def _digest_of(build: str) -> bytes:
    return hashlib.sha256(build.encode()).digest()
