"""Sockets that a thread holds for itself, having left the descriptors of its process (CLONE_FILES).

/proc/PID/fd shows what the first thread holds. What another thread holds alone stands in
/proc/PID/task/TID/fd, where nobody looks: a way to have a socket that seems to be nobody's. Whether two
threads share their descriptors the kernel tells (kcmp(2)); where it does not, the descriptors themselves are
looked at.

Sources: unshare(2), kcmp(2), proc_pid_task(5); the tables of system calls of Linux.
"""

import os
import platform
import sys
from typing import Callable, Dict, Iterable, Iterator, List, Optional

from agent.platform.sockets import descriptors_sockets

# What os.uname() calls the machine, where a process of 64 bits runs.
_KCMP_NUMBERS = {
    "x86_64": 312,
    "aarch64": 272,
    "riscv64": 272,
    "loongarch64": 272,
    "ppc64le": 354,
    "s390x": 343,
}
_KCMP_FILES = 2


def thread_socket_owners(pids: Iterable[int], proc: str = "/proc") -> Dict[int, List[int]]:
    """Return the processes of threads that hold sockets for themselves, by the sockets' inodes.

    What has ended, or may not be looked at, holds none: whoever asks was told so for the process already.
    """
    is_shared = _kcmp()
    found: Dict[int, List[int]] = {}
    for pid in pids:
        for thread in _other_threads(pid, proc):
            if is_shared is not None and is_shared(pid, thread):
                continue
            try:
                inodes = descriptors_sockets(f"{proc}/{pid}/task/{thread}/fd")
            except PermissionError:
                break
            for inode in inodes:
                owners = found.setdefault(inode, [])
                if pid not in owners:
                    owners.append(pid)
    return found


def _other_threads(pid: int, proc: str) -> Iterator[int]:
    try:
        names = os.listdir(f"{proc}/{pid}/task")  # noqa: PTH208  (of every process)
    except OSError:
        # It has ended, or is hidden.
        return
    for name in names:
        if name != str(pid) and name.isdigit():
            yield int(name)


def _kcmp() -> Optional[Callable[[int, int], bool]]:
    """Return what tells whether two threads share their descriptors; None where we do not know how to ask."""
    number = _KCMP_NUMBERS.get(platform.machine()) if sys.maxsize > 1 << 32 else None
    if number is None:
        return None
    import ctypes  # noqa: PLC0415  (only who has sockets without a process needs it)

    libc = ctypes.CDLL(None, use_errno=True)

    def is_shared(first: int, second: int) -> bool:
        # Anything but 0 is another table, or an error: then the descriptors are looked at.
        return bool(libc.syscall(number, first, second, _KCMP_FILES, 0, 0) == 0)

    return is_shared
