"""What the kernel lets a process use: resource limits, the lowest priorities, and an end with its parent.

Sources: setrlimit(2), prctl(2), ioprio_set(2); the numbers of `ioprio_set`, which no C library wraps, are
from the kernel's syscall tables. What a system does not have is left out silently: each measure stands on its
own, and wall time is enforced by the parent everywhere.
"""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import sys
from pathlib import Path
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "armv7l": 314, "i686": 289, "ppc64le": 273, "s390x": 282}
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_CLASS_IDLE = 3 << 13
_LOWEST_PRIORITY = 19
_AUTOGROUP = Path("/proc/self/autogroup")


class ProcessLimits(NamedTuple):
    """Limits of one process: processor time in seconds, memory and written files in bytes, descriptors."""

    cpu_s: int
    memory_bytes: int
    open_files: int
    # A module writes nothing; this is room for what libraries keep in shared memory.
    file_bytes: int = 1 << 20
    # The start-up code lifts the soft limit to this one while it unpacks a library that only we need.
    library_bytes: int = 64 << 20


def _lower(kind: int, soft: int, hard: int) -> None:
    """Lower one limit; never above what the process has, since only root may raise."""
    _, ceiling = resource.getrlimit(kind)
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(kind, (soft, hard))


def apply_limits(limits: ProcessLimits) -> None:
    """Bind the calling process, and all that it forks, to `limits`, without core dumps.

    Memory is limited as RLIMIT_DATA on Linux (private writable memory, since 4.7): RLIMIT_AS, which serves
    elsewhere, would also count the files that a module maps only to read them.
    """
    memory = resource.RLIMIT_DATA if sys.platform.startswith("linux") else resource.RLIMIT_AS
    _lower(memory, limits.memory_bytes, limits.memory_bytes)
    # At the soft limit comes SIGXCPU, whose number tells the parent why the process ended.
    _lower(resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + 5)
    _lower(resource.RLIMIT_NOFILE, limits.open_files, limits.open_files)
    _lower(resource.RLIMIT_FSIZE, limits.file_bytes, limits.library_bytes)
    _lower(resource.RLIMIT_CORE, 0, 0)


def yield_to_others() -> None:
    """Take the lowest processor priority and, on Linux, the idle class of disk access."""
    os.nice(_LOWEST_PRIORITY)
    number = _IOPRIO_SET.get(platform.machine())
    if sys.platform.startswith("linux") and number is not None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_CLASS_IDLE)


def yield_as_a_session() -> None:
    """Give way to other sessions too, with all of one's own; for what takes long.

    Where the kernel groups processes by session it shares processors between the groups first, and priorities
    count within one only (sched(7), autogroup). A short question keeps its group's share: on a machine that
    somebody has loaded to the brim it would else take a minute instead of a second. Only who leads a session
    and has yielded itself does this; anybody else would lower the shell that it was started from.
    """
    if os.getsid(0) == os.getpid() and os.nice(0) == _LOWEST_PRIORITY:
        with contextlib.suppress(OSError):  # another system, or a kernel that does not group
            _AUTOGROUP.write_text(str(_LOWEST_PRIORITY), encoding="ascii")


def _die_with_parent() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def die_with_parent() -> None:
    """Have the kernel kill this process, and all that it forks, when its parent dies. Linux only.

    The kernel clears the setting at each fork, so it is made again there.
    """
    if sys.platform.startswith("linux"):
        _die_with_parent()
        os.register_at_fork(after_in_child=_die_with_parent)
