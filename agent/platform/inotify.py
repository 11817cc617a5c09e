"""Tells what changed in directories, by inotify(7); ctypes, since no library of ours wraps it.

Only directories are watched: what happens to a file is told with its name, also where another takes its
place. The kernel's queue is bounded: where it ran over, or where no more watches are to be had, that is told,
and whoever asks compares for himself.
"""

import ctypes
import errno
import os
import struct
from typing import Dict, Iterator, List, NamedTuple, Optional, Set

from protocol.errors import InvalidInput

_EVENT = struct.Struct("=iIII")  # struct inotify_event: wd, mask, cookie, length of the name
_READ_BYTES = 65536
IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x4, 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF = 0x100, 0x200, 0x400, 0x800
IN_MODIFY, IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED = 0x2, 0x2000, 0x4000, 0x8000
_ONLYDIR, _DONT_FOLLOW = 0x01000000, 0x02000000
_MASK = (
    IN_ATTRIB
    | IN_MODIFY
    | IN_CLOSE_WRITE
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_CREATE
    | IN_DELETE
    | IN_DELETE_SELF
    | IN_MOVE_SELF
    | _ONLYDIR
    | _DONT_FOLLOW
)
_SELF = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED


class Event(NamedTuple):
    """One event as the kernel told it; `name` is empty where it is of the directory itself."""

    watch: int
    mask: int
    name: bytes


def parse_events(data: bytes) -> Iterator[Event]:
    """Yield the events that one read(2) gave; what is cut off is left out."""
    at = 0
    while at + _EVENT.size <= len(data):
        watch, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield Event(watch, mask, data[at : at + length].rstrip(b"\0"))
        at += length


class Change(NamedTuple):
    """Something changed in a directory; `directory` None: somewhere, the kernel lost count."""

    directory: Optional[bytes]
    name: bytes


class Notifier:
    """One inotify instance.

    Raises:
        InvalidInput: `unsupported`, where the kernel gives none.

    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        self.descriptor = self._libc.inotify_init1(flags)
        if self.descriptor < 0:
            reason = os.strerror(ctypes.get_errno())
            raise InvalidInput("unsupported", f"this kernel gives no inotify: {reason}")
        self._paths: Dict[int, bytes] = {}
        self._watches: Dict[bytes, int] = {}
        self.is_full = False

    def has(self, directory: bytes) -> bool:
        """Tell whether a directory is watched."""
        return directory in self._watches

    def add(self, directory: bytes) -> bool:
        """Watch a directory; False where it is gone, is none, or no more watches are to be had."""
        if directory in self._watches:
            return True
        watch = self._libc.inotify_add_watch(self.descriptor, directory, _MASK)
        if watch < 0:
            self.is_full = self.is_full or ctypes.get_errno() in (errno.ENOSPC, errno.ENOMEM)
            return False
        before = self._paths.get(watch)  # the same directory under another path
        if before is not None:
            self._watches.pop(before, None)
        self._paths[watch] = directory
        self._watches[directory] = watch
        return True

    def keep_only(self, directories: Set[bytes]) -> None:
        """Watch no directory but these."""
        for directory in [one for one in self._watches if one not in directories]:
            self._forget(self._watches[directory], remove=True)

    def _forget(self, watch: int, *, remove: bool) -> None:
        directory = self._paths.pop(watch, None)
        if directory is not None:
            self._watches.pop(directory, None)
            if remove:
                self._libc.inotify_rm_watch(self.descriptor, watch)

    @property
    def count(self) -> int:
        """How many directories are watched."""
        return len(self._watches)

    def read(self) -> List[Change]:
        """Return what changed since it was last asked; empty where nothing did."""
        try:
            data = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return []
        return [change for event in parse_events(data) for change in self._told(event)]

    def _told(self, event: Event) -> Iterator[Change]:
        if event.mask & IN_Q_OVERFLOW:
            yield Change(None, b"")
            return
        directory = self._paths.get(event.watch)
        if directory is None:
            return
        if event.mask & _SELF:
            # A directory that was moved is another one under its old path.
            self._forget(event.watch, remove=not event.mask & IN_IGNORED)
        yield Change(directory, event.name)

    def close(self) -> None:
        """Give the instance up."""
        os.close(self.descriptor)
