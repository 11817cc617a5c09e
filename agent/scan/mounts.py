"""Which file systems are made up by the kernel: not descended into from above, and not read blindly.

Source: proc(5), /proc/self/mountinfo: field 3 is the device as stat gives it, the field after ` - ` the type.
Where there is no mountinfo, nothing counts as made up.
"""

import os
from typing import Dict, Optional, Set

PSEUDO_TYPES = frozenset(
    {
        "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs",
        "fusectl", "mqueue", "nsfs", "pipefs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs",
        "sockfs", "sysfs", "tracefs",
    }
)  # fmt: skip
# Where a file says size 0 and has content all the same; the others are not read at all.
READABLE_PSEUDO_TYPES = frozenset({"cgroup", "cgroup2", "proc", "sysfs"})
# Names in them that block, are consumed by reading, or show all memory: proc(5).
UNREADABLE_NAMES = frozenset(
    {
        b"clear_refs", b"event_pipe", b"kcore", b"kmsg", b"kpagecgroup", b"kpagecount", b"kpageflags", b"mem",
        b"pagemap", b"sysrq-trigger", b"trace_pipe", b"vmcore",
    }
)  # fmt: skip


class Mounts:
    """The type of the file system of a device, read when it is first asked for."""

    def __init__(self, source: str = "/proc/self/mountinfo") -> None:
        self._source = source
        self._types: Dict[int, str] = {}
        self._unknown: Set[int] = set()

    def pseudo_type(self, device: int) -> Optional[str]:
        """Return the type of a made-up file system by `st_dev`; None for one that holds files."""
        if device not in self._types and device not in self._unknown:
            # Also for a device first met later: a file system may be mounted while the scan runs.
            self._read()
            if device not in self._types:
                self._unknown.add(device)
        found = self._types.get(device)
        return found if found in PSEUDO_TYPES else None

    def _read(self) -> None:
        try:
            with open(self._source, "rb") as lines:  # noqa: PTH123  (one line of stdlib, no Path in the core)
                for line in lines:
                    before, _, after = line.partition(b" - ")
                    major, _, minor = before.split()[2].partition(b":")
                    self._types[os.makedev(int(major), int(minor))] = after.split()[0].decode(
                        "ascii", "replace"
                    )
        except (OSError, ValueError, IndexError):
            return
