"""How files were: what integrity is judged by, kept on the disk so that it survives a restart.

Rules:
1. It is kept as a whole. Its first line holds the SHA-256 of the rest; what does not check is no baseline,
   and whoever asks is told why.
2. It tells names, digests and numbers; nothing of what files hold.

An entry is read without following links, and a file is opened without leaving a trace (`agent.scan.opening`).
"""

import errno
import hashlib
import os
import stat
from typing import Callable, Dict, Optional

import msgspec

from agent.scan.opening import open_file
from protocol.errors import InvalidInput

_MAGIC = b"mig-baseline-1 "
_CHUNK_BYTES = 1 << 20


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One entry of a directory: its status, and what it is: a file's SHA-256, a link's target.

    `digest` is empty where there is none: no regular file, above the size that is read, or unreadable, which
    `problem` then says. `changed_ns` is ctime, `modified_ns` mtime, in nanoseconds since 1970.
    """

    mode: int
    uid: int
    gid: int
    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    digest: str = ""
    target: bytes = b""
    problem: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    def is_touched(self, other: "Entry") -> bool:
        """Tell whether the status says that something may have changed between two looks."""
        return (self.modified_ns, self.changed_ns, self.size, self.inode, self.mode) != (
            other.modified_ns,
            other.changed_ns,
            other.size,
            other.inode,
            other.mode,
        )


Entries = Dict[bytes, Entry]


class Baseline(msgspec.Struct, frozen=True):
    """Entries by path, what places they are of, and since when (seconds since 1970)."""

    since: int
    places: bytes
    entries: Entries


def look_at(
    name: bytes,
    directory: int,
    *,
    before: Optional[Entry],
    trusts_status: bool,
    max_bytes: int,
    on_read: Callable[[int], None],
) -> Optional[Entry]:
    """Return how an entry of an open directory is now; None where it is not there.

    Args:
        name: of the entry.
        directory: descriptor of its directory.
        before: how it was.
        trusts_status: a file whose status is as before is not read again.
        max_bytes: of larger files no digest is made.
        on_read: told how many bytes were read, and may pause.

    """
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        target = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EINVAL):  # it became something else meanwhile
            return None
        raise
    entry = _entry(status, target=target)
    if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
        return entry
    if trusts_status and before is not None and before.digest and not before.is_touched(entry):
        return msgspec.structs.replace(entry, digest=before.digest)
    return _with_digest(entry, name, directory, max_bytes, on_read)


def _entry(status: os.stat_result, *, target: bytes = b"") -> Entry:
    is_plain = not stat.S_ISDIR(status.st_mode)
    return Entry(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        # A directory's size and times change with what is in it, which is told by itself.
        size=status.st_size if is_plain else 0,
        modified_ns=status.st_mtime_ns if is_plain else 0,
        changed_ns=status.st_ctime_ns if is_plain else 0,
        inode=status.st_ino,
        target=target,
    )


def _with_digest(
    entry: Entry, name: bytes, directory: int, max_bytes: int, on_read: Callable[[int], None]
) -> Entry:
    try:
        descriptor = open_file(name, directory, follow=False)
    except FileNotFoundError:
        return msgspec.structs.replace(entry, problem="it vanished while it was looked at")
    except OSError as error:
        return msgspec.structs.replace(entry, problem=error.strerror or "unreadable")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return msgspec.structs.replace(entry, problem="it was replaced while it was looked at")
        digest, left = hashlib.sha256(), max_bytes
        while left >= 0 and (chunk := os.read(descriptor, _CHUNK_BYTES)):
            digest.update(chunk)
            left -= len(chunk)
            on_read(len(chunk))
    except OSError as error:
        return msgspec.structs.replace(entry, problem=error.strerror or "unreadable")
    finally:
        os.close(descriptor)
    # The status of what was read: a later change shows against it.
    return msgspec.structs.replace(_entry(status), digest=digest.hexdigest())


def encode_baseline(baseline: Baseline) -> bytes:
    """Return what is to be kept."""
    body = msgspec.msgpack.encode(baseline)
    return _MAGIC + hashlib.sha256(body).hexdigest().encode("ascii") + b"\n" + body


def decode_baseline(data: bytes) -> Baseline:
    """Return what was kept.

    Raises:
        InvalidInput: `bad-document`, where it was cut or changed.

    """
    head, _, body = data.partition(b"\n")
    if head != _MAGIC + hashlib.sha256(body).hexdigest().encode("ascii"):
        raise InvalidInput("bad-document", "its check sum is another")
    try:
        return msgspec.msgpack.decode(body, type=Baseline)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise InvalidInput("bad-document", "it has another shape") from None
