"""The processes of a Linux endpoint and what the kernel says of each: number, parent, name, user, program.

Rules:

* A process is held by a descriptor of its directory while several of its files are read: when its number is
  given to another process meanwhile, reading fails; facts of two processes are never mixed.
* Names and paths are whatever a process likes: they stay bytes, and nothing is split at what they may hold.
* One that is gone is None, or `ProcessGone` where it is held; what may not be read is a PermissionError.

Sources: proc(5), proc_pid_stat(5), proc_pid_status(5); linux/sched.h (PF_KTHREAD).
"""

import os
import re
from typing import List, NamedTuple, Optional, Tuple

from agent.platform.process_memory import ProcessGone

_PROC = "/proc"
_DELETED = b" (deleted)"
_PF_KTHREAD = 0x00200000
_PIECE_BYTES = 1 << 16
# Fields of stat behind the name, by their place there (proc_pid_stat(5) counts them from 3).
_STATE, _PPID, _FLAGS, _START = 0, 1, 6, 19
_IDS = re.compile(rb"^Uid:\t\d+\t(\d+)\t.*\nGid:\t\d+\t(\d+)\t", re.MULTILINE)
_CAPABILITIES = re.compile(rb"^CapEff:\t([0-9a-f]{1,16})$", re.MULTILINE)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class ProcessFacts(NamedTuple):
    """What the kernel says of one process.

    `process` is what it calls itself (comm, at most 15 bytes; up to 63 of a thread of the kernel); `uid` and
    `gid` are the effective ones; `started_s` is in seconds since 1970; `state` is a letter such as `S`;
    `capabilities` are the bits of the effective set.
    """

    pid: int
    ppid: int
    process: bytes
    uid: int
    gid: int
    started_s: float
    state: str
    is_kernel_thread: bool = False
    capabilities: int = 0


def list_pids(proc: str = _PROC) -> List[int]:
    """Return the numbers of all processes that are shown to us, in order; threads are not listed."""
    return sorted(int(name) for name in os.listdir(proc) if name.isdigit())  # noqa: PTH208  (thousands of names)


def boot_time_s(proc: str = _PROC) -> float:
    """Return when the endpoint was started, in seconds since 1970, as its clock stands now."""
    with open(os.path.join(proc, "stat"), "rb") as lines:  # noqa: PTH118, PTH123  (asked often)
        for line in lines:
            if line.startswith(b"btime "):
                return float(line[6:])
    return 0.0


def read_process(pid: int, proc: str = _PROC, *, boot_s: Optional[float] = None) -> Optional[ProcessFacts]:
    """Return what the kernel says of a process; None when it is gone.

    Args:
        pid: its number.
        proc: where the process file system is.
        boot_s: as `boot_time_s` tells it; to be given by who asks for many.

    Raises:
        PermissionError: it is hidden (hidepid).

    """
    try:
        with ProcessDirectory(pid, proc) as directory:
            return directory.facts(boot_time_s(proc) if boot_s is None else boot_s)
    except ProcessGone:
        return None


def executable_of(pid: int, proc: str = _PROC) -> Tuple[Optional[bytes], bool]:
    """Return the path of the program that a process runs, and whether its file was deleted or replaced.

    The path is None for threads of the kernel and for who is gone.

    Raises:
        PermissionError: we may not know.

    """
    try:
        with ProcessDirectory(pid, proc) as directory:
            return directory.executable()
    except ProcessGone:
        return None, False


class ProcessDirectory:
    """The directory of one process, held open.

    Args:
        pid: its number.
        proc: where the process file system is.
        descriptor: of the directory, where it is open already; ours from here on.

    Raises:
        ProcessGone: there is no such process.
        PermissionError: it is hidden (hidepid).

    """

    def __init__(self, pid: int, proc: str = _PROC, *, descriptor: Optional[int] = None) -> None:
        self.pid = pid
        if descriptor is not None:
            self.descriptor = descriptor
            return
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            self.descriptor = os.open(f"{proc}/{pid}", flags)
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone from None

    def __enter__(self) -> "ProcessDirectory":  # noqa: PYI034  (Self is not in 3.9)
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.descriptor)

    def facts(self, boot_s: float) -> ProcessFacts:
        """Return what the kernel says of it.

        Raises:
            ProcessGone: it ended.

        """
        return parse_facts(self.pid, self.read("stat"), self.read("status"), boot_s)

    def executable(self) -> Tuple[Optional[bytes], bool]:
        """Return the path of its program and whether that was deleted; no path for threads of the kernel.

        Raises:
            ProcessGone: it ended.
            PermissionError: we may not know.

        """
        path = self.read_link("exe")
        if path is None:
            return None, False
        if not path.endswith(_DELETED):
            return path, False
        return (path, False) if self._is_called(path) else (path[: -len(_DELETED)], True)

    def open_program(self) -> int:
        """Return a descriptor of its program, the file itself, deleted or not; the caller closes it.

        Raises:
            OSError: it cannot be opened, or the process has none, or ended.

        """
        return os.open("exe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.descriptor)

    def _is_called(self, path: bytes) -> bool:
        """Tell whether its program is the file of this very name: one may be called so."""
        try:
            # The link of /proc leads to the program itself, wherever that is now.
            program = os.stat("exe", dir_fd=self.descriptor)
            if not program.st_nlink:
                return False
            named = os.stat(b"root" + path, dir_fd=self.descriptor)
        except OSError:
            return False
        return (program.st_dev, program.st_ino) == (named.st_dev, named.st_ino)

    def read_link(self, name: str) -> Optional[bytes]:
        """Return where a link of the directory leads; None where it leads nowhere.

        Raises:
            ProcessGone: it ended.
            PermissionError: we may not know.

        """
        try:
            return os.readlink(name.encode(), dir_fd=self.descriptor)
        except (FileNotFoundError, ProcessLookupError):
            # Threads of the kernel and who has ended, but was not asked about yet, have no program.
            self.read("stat")
            return None

    def read(self, name: str, limit: int = 1 << 30) -> bytes:
        """Return what one of its files holds, up to `limit` bytes.

        Raises:
            ProcessGone: it ended.
            PermissionError: we may not know.

        """
        parts: List[bytes] = []
        left = limit
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.descriptor)
            try:
                while left:
                    # In pieces: the kernel gives whole lines, as many as fit.
                    data = os.read(descriptor, min(_PIECE_BYTES, left))
                    if not data:
                        break
                    parts.append(data)
                    left -= len(data)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone from None
        return b"".join(parts)


def parse_facts(pid: int, stat: bytes, status: bytes, boot_s: float) -> ProcessFacts:
    """Return what the files `stat` and `status` of a process say.

    Raises:
        ProcessGone: they say nothing whole: it ended while they were read.

    """
    # The name may hold blanks, brackets and line ends; nothing that follows it does.
    name, _, rest = stat.partition(b"(")[2].rpartition(b")")
    fields = rest.split()
    # In `status` the kernel escapes a line end in the name.
    ids, capabilities = _IDS.search(status), _CAPABILITIES.search(status)
    if ids is None:
        raise ProcessGone
    try:
        return ProcessFacts(
            pid=pid,
            ppid=int(fields[_PPID]),
            process=name,
            uid=int(ids[1]),
            gid=int(ids[2]),
            started_s=boot_s + int(fields[_START]) / _TICKS_PER_S,
            state=fields[_STATE].decode("ascii", "replace"),
            is_kernel_thread=bool(int(fields[_FLAGS]) & _PF_KTHREAD),
            capabilities=int(capabilities[1], 16) if capabilities is not None else 0,
        )
    except (IndexError, ValueError):
        raise ProcessGone from None
