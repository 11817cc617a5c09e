"""Holds a scan to the paths that the ACL allows, by what is really opened.

Rules:
1. What counts is where an open descriptor lies, as the kernel says (`/proc/self/fd`, proc(5); `F_GETPATH` on
   macOS): links, `..` and what was swapped meanwhile lead nowhere else. What cannot be told is outside.
2. A place that is mounted more than once, by a bind mount, has several names. One that is denied denies it;
   and it must be allowed under its first name, where its file system is mounted the furthest up, and the
   longest ago: whoever mounts `/root` once more below `/etc` does not make it a part of `/etc`.
3. `deny` wins over `allow`; both cover all that is below, by whole components. The rules' own paths are taken
   as written: a rule that leads through a link allows nothing, and denies also what the link leads to.

Not seen here: another hard link to a denied file. Its content can be had under every name that it has.
"""

import os
import sys
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

from agent.scan.mounts import unescape
from agent.scan.opening import resolve
from protocol.acl import PathRules

_MOUNTS = "/proc/self/mountinfo"
_DELETED = b" (deleted)"
_F_GETPATH = 50  # fcntl(2) of macOS
_MAX_PATH = 1024


class Mount(NamedTuple):
    """A line of the table of mounts: which part of which device lies where."""

    device: bytes
    root: bytes
    point: bytes


def read_mounts(source: str = _MOUNTS) -> List[Mount]:
    """Return the mounts in the order in which they were made; none where the system has no such table.

    Source: https://docs.kernel.org/filesystems/proc.html, 3.5 /proc/<pid>/mountinfo
    """
    try:
        with open(source, "rb") as lines:  # noqa: PTH123  (one line of stdlib, no Path in the core)
            fields = [line.split() for line in lines]
    except OSError:
        return []
    return [Mount(line[2], unescape(line[3]), unescape(line[4])) for line in fields]


def is_below(path: bytes, directory: bytes) -> bool:
    """Tell whether a path is a directory or lies below it, by whole components."""
    return directory in (b"/", path) or path.startswith(directory + b"/")


def _below(path: bytes, directory: bytes) -> bytes:
    """Return what is left of a path below a directory, with its slash."""
    return path if directory == b"/" else path[len(directory) :]


def _join(directory: bytes, rest: bytes) -> bytes:
    return (directory.rstrip(b"/") + rest) or b"/"


class Fence:
    """Judges places by the rules of one operation.

    Args:
        rules: of the ACL entry.
        mounts: for the tests; read when the fence is made.

    """

    def __init__(self, rules: PathRules, *, mounts: Optional[List[Mount]] = None) -> None:
        self.is_open = rules.is_open
        if self.is_open:
            return
        self._mounts = read_mounts() if mounts is None else mounts
        encode: Callable[[str], bytes] = os.fsencode
        self._allow = None if rules.allow is None else tuple(map(encode, rules.allow))
        written = tuple(map(encode, rules.deny))
        self._deny = tuple(dict.fromkeys((*written, *map(resolve, written))))

    def admits(self, descriptor: int) -> bool:
        """Tell whether what is open here may be looked at."""
        return self.is_open or self._judge(descriptor, leads=False)

    def admits_way(self, descriptor: int) -> bool:
        """Tell whether an open directory may be looked at, or leads to something that may."""
        return self.is_open or self._judge(descriptor, leads=True)

    def admits_path(self, path: bytes) -> bool:
        """Tell whether a resolved path may be looked at, or leads to something that may."""
        return self.is_open or self._is_admitted(path, leads=True)

    def _judge(self, descriptor: int, *, leads: bool) -> bool:
        path = path_of(descriptor)
        if not path.startswith(b"/"):
            return False
        # A file of that very name, or one that was deleted: neither may be outside.
        paths = [path, path[: -len(_DELETED)]] if path.endswith(_DELETED) else [path]
        return all(self._is_admitted(one, leads=leads) for one in paths)

    def _is_admitted(self, path: bytes, *, leads: bool) -> bool:
        first, names = self._names(path)
        if any(is_below(name, rule) for name in (path, *names) for rule in self._deny):
            return False
        if self._allow is None:
            return True
        if all(any(is_below(name, rule) for rule in self._allow) for name in (first, path)):
            return True
        return leads and first == path and any(is_below(rule, path) for rule in self._allow)

    def _names(self, path: bytes) -> Tuple[bytes, Tuple[bytes, ...]]:
        """Return the first name of a place, and all of them."""
        at: Optional[Mount] = None
        for mount in self._mounts:
            # Of mounts over each other the last one is seen.
            if is_below(path, mount.point) and (at is None or len(mount.point) >= len(at.point)):
                at = mount
        if at is None:
            return path, (path,)
        found = list(self._elsewhere(at, _join(at.root, _below(path, at.point))))
        # The first of the shortest: the table lists mounts in the order in which they were made.
        return min(found, key=lambda entry: entry[0])[1], tuple(name for _, name in found)

    def _elsewhere(self, at: Mount, inner: bytes) -> Iterator[Tuple[int, bytes]]:
        """Yield every name of what lies at `inner` of a device, with the length of the mounted root."""
        for mount in self._mounts:
            if mount.device == at.device and is_below(inner, mount.root):
                yield len(mount.root), _join(mount.point, _below(inner, mount.root))


def path_of(descriptor: int) -> bytes:
    """Return where an open file or directory lies; empty where the system cannot tell."""
    try:
        if sys.platform == "darwin":
            import fcntl  # noqa: PLC0415  (not there on every system)

            return fcntl.fcntl(descriptor, _F_GETPATH, bytes(_MAX_PATH)).split(b"\0")[0]
        return os.readlink(b"/proc/self/fd/%d" % descriptor)  # noqa: PTH115  (a path of bytes)
    except OSError:
        return b""
