"""Which file systems are not walked into unasked: what the kernel makes up, and what is elsewhere.

What is made up (/proc, /sys) is not descended into from above, and not read blindly. What is reached over a
network, served by a process (FUSE) or mounted when it is looked at (autofs) is left alone altogether unless a
search says `remotefs`: a thousand endpoints would search the same server, and where that one is away each
look hangs. It is therefore known by its mount point, before it is touched.

The file system that `/` lies on is the machine's own, whatever its type (a container on virtiofs, a machine
that boots over the network).

Source: proc(5), /proc/self/mountinfo: field 3 is the device as stat gives it, field 5 the mount point, the
field after ` - ` the type. Where there is no mountinfo (macOS), nothing counts as made up or as elsewhere.
"""

import os
from typing import Dict, Iterator, List, NamedTuple, Optional, Set

from agent.scan.globs import split_path
from agent.scan.texts import path_text

PSEUDO_TYPES = frozenset(
    {
        "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl",
        "mqueue", "nsfs", "pipefs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sockfs",
        "sysfs", "tracefs",
    }
)  # fmt: skip
# Where a file says size 0 and has content all the same; the others are not read at all.
READABLE_PSEUDO_TYPES = frozenset({"cgroup", "cgroup2", "proc", "sysfs"})
# Network file systems, file systems that a cluster shares, what a hypervisor lends, and what mounts them.
REMOTE_TYPES = frozenset(
    {
        "9p", "acfs", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "fuse", "fuseblk", "gfs2",
        "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs",
        "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
    }
)  # fmt: skip
_FUSE = "fuse."
# Names in them that block, are consumed by reading, or show all memory: proc(5), and of the kernel's
# documents ABI/testing/sysfs-power (wakeup_count blocks while an event is dealt with).
UNREADABLE_NAMES = frozenset(
    {
        b"clear_refs", b"event_pipe", b"kcore", b"kmsg", b"kpagecgroup", b"kpagecount", b"kpageflags", b"mem",
        b"pagemap", b"sysrq-trigger", b"trace_pipe", b"vmcore", b"wakeup_count",
    }
)  # fmt: skip
# As many links one after the other are followed by the kernel (path_resolution(7)).
_MAX_LINKS = 40


class Remote(NamedTuple):
    """A mount point of a file system that is elsewhere, and its type."""

    point: bytes
    type: str

    def __str__(self) -> str:
        """Return the note that it was left alone."""
        return f"{path_text(self.point)}: {self.type} is not searched without remotefs"


class _Line(NamedTuple):
    device: int
    point: bytes
    type: str


class Mounts:
    """The table of mounts, read when it is first asked for."""

    def __init__(self, source: str = "/proc/self/mountinfo") -> None:
        self._source = source
        self._types: Dict[int, str] = {}
        self._unknown: Set[int] = set()
        self._stated: Dict[int, Optional[str]] = {}
        self._points: Optional[Dict[bytes, str]] = None
        self._names: Set[bytes] = set()
        self._parents: Optional[Set[bytes]] = None

    def pseudo_type(self, device: int) -> Optional[str]:
        """Return the type of a made-up file system by `st_dev`; None for one that holds files."""
        found = self._type(device)
        return found if found in PSEUDO_TYPES else None

    def remote_type(self, device: int) -> Optional[str]:
        """Return the type of a file system that is elsewhere by `st_dev`; None for any other."""
        found = self._type(device)
        return found if found is not None and is_remote(found) else None

    def stated_type(self, device: int) -> Optional[str]:
        """Return the type that the table states for a device, whatever it is used for; None without one."""
        if device not in self._stated:
            self._stated[device] = next((line.type for line in self._lines() if line.device == device), None)
        return self._stated[device]

    def is_known(self, device: int) -> bool:
        """Tell whether a device is one of those that the table names."""
        return self._type(device) is not None

    def hold(self, directory: bytes) -> bool:
        """Tell whether anything is mounted right in a resolved directory, over a file or a directory."""
        if self._parents is None:
            self._parents = {line.point.rpartition(b"/")[0] or b"/" for line in self._lines()}
        return directory in self._parents

    def has_remote(self) -> bool:
        """Tell whether anything that is elsewhere is mounted."""
        return bool(self._remote_points())

    def is_remote_name(self, name: bytes) -> bool:
        """Tell whether a mount point of what is elsewhere has this name."""
        return bool(self._remote_points()) and name in self._names

    def remote_at(self, directory: bytes, name: bytes) -> Optional[Remote]:
        """Return what is mounted under a name in a resolved directory, where it is elsewhere."""
        points = self._remote_points()
        if name not in self._names:
            return None
        path = directory.rstrip(b"/") + b"/" + name
        return Remote(path, points[path]) if path in points else None

    def remote_on_way(self, path: bytes) -> Optional[Remote]:
        """Return the first mount of what is elsewhere on the way to a path; nothing there is touched."""
        points = self._remote_points()
        if not points:
            return None
        current, links = b"", 0
        pending = split_path(path)[::-1]
        while pending:
            name = pending.pop()
            if name == b"..":
                current = current.rpartition(b"/")[0]
                continue
            current += b"/" + name
            if current in points:
                return Remote(current, points[current])
            try:
                target = os.readlink(current)  # noqa: PTH115  (a path of bytes)
            except OSError:
                # No link, or not there: the rest of the path is judged by its names.
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            current = b"" if target.startswith(b"/") else current.rpartition(b"/")[0]
            pending.extend(split_path(target)[::-1])
        return None

    def _remote_points(self) -> Dict[bytes, str]:
        if self._points is None:
            # Of mounts over each other the last one is seen.
            types = {line.point: line.type for line in self._lines()}
            self._points = {
                point: kind
                for point, kind in types.items()
                if point != b"/" and is_remote(kind) and not _is_inside_pseudo(point, types)
            }
            self._names = {point.rpartition(b"/")[2] for point in self._points}
        return self._points

    def _type(self, device: int) -> Optional[str]:
        if device not in self._types and device not in self._unknown:
            # Also for a device first met later: a file system may be mounted while the scan runs.
            for line in self._lines():
                self._types[line.device] = (
                    "/" if line.point == b"/" else self._types.get(line.device, line.type)
                )
            if device not in self._types:
                self._unknown.add(device)
        return self._types.get(device)

    def _lines(self) -> Iterator[_Line]:
        try:
            for line in self._table():
                before, _, after = line.partition(b" - ")
                fields = before.split()
                major, _, minor = fields[2].partition(b":")
                kind = after.split()[0].decode("ascii", "replace")
                yield _Line(os.makedev(int(major), int(minor)), unescape(fields[4]), kind)
        except (OSError, ValueError, IndexError):
            return

    def _table(self) -> List[bytes]:
        with open(self._source, "rb") as lines:  # noqa: PTH123  (one line of stdlib, no Path in the core)
            return list(lines)


def is_remote(kind: str) -> bool:
    """Tell whether a type of file system is elsewhere: over a network, in a process, not mounted yet."""
    return kind in REMOTE_TYPES or kind.startswith(_FUSE)


def unescape(text: bytes) -> bytes:
    """Return a field of mountinfo with the characters that it stands for."""
    for code, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        text = text.replace(code, character)
    return text


def _is_inside_pseudo(point: bytes, types: Dict[bytes, str]) -> bool:
    """Tell whether a mount point lies in a made-up file system, as binfmt_misc's automount in /proc does."""
    above = point.rpartition(b"/")[0]
    while above:
        if above in types:
            return types[above] in PSEUDO_TYPES
        above = above.rpartition(b"/")[0]
    return False
