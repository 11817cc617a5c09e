"""Digests of the programs that processes run, each file read once however many run it.

Rules:

* A program is opened through /proc/PID/exe: that is the file itself, also where it was deleted or replaced
  since, or lies in another mount namespace.
* A file is known by device, inode and ctime while this object lives. A program that runs cannot be written to
  (ETXTBSY, execve(2)) but by who replaces it, which makes another inode.
* What the access rules do not allow to open is not hashed. Where a program lies on a file system of another
  machine it is not touched: that machine may be away, and each look would hang.
"""

import os
import stat
from typing import Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

from agent.platform.process_memory import ProcessGone
from agent.scan.digests import digest_maker
from agent.scan.fence import Fence
from agent.scan.mounts import Mounts

_CHUNK_BYTES = 1 << 20
OUTSIDE, REMOTE, NO_FILE = "outside-allowed-paths", "remote-filesystem", "no-regular-file"


class Program(NamedTuple):
    """The digests in hexadecimal by kind; None, and the reason, where there are none."""

    digests: Optional[Mapping[str, str]] = None
    reason: str = ""


class Programs:
    """Hashes programs.

    Args:
        kinds: of `agent.scan.digests`; all are computed of each program in one pass.
        fence: the access rules.
        work: told of each piece that was read; may raise to end it.

    """

    def __init__(self, kinds: Sequence[str], fence: Fence, work: Callable[[], None]) -> None:
        self._makers = {kind: digest_maker(kind) for kind in kinds}
        self._fence = fence
        self._work = work
        self._mounts = Mounts()
        self._known: Dict[Tuple[int, int, int], Program] = {}
        self._buffer = bytearray(_CHUNK_BYTES)
        self.files_hashed = 0
        self.bytes_read = 0

    def digests(self, path: bytes, open_: Callable[[], int]) -> Program:
        """Return the digests of the program of a process.

        Args:
            path: where it lies, as the system says.
            open_: opens it.

        Raises:
            ProcessGone: it ended.
            OSError: its program cannot be read.

        """
        if self._mounts.has_remote() and self._mounts.remote_on_way(path) is not None:
            return Program(reason=REMOTE)
        try:
            descriptor = open_()
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone from None
        try:
            status = os.fstat(descriptor)
            key = (status.st_dev, status.st_ino, status.st_ctime_ns)
            if key not in self._known:
                self._known[key] = self._read(descriptor, status)
            return self._known[key]
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, status: os.stat_result) -> Program:
        if not stat.S_ISREG(status.st_mode):
            return Program(reason=NO_FILE)
        if self._mounts.remote_type(status.st_dev) is not None:
            return Program(reason=REMOTE)
        if not self._fence.admits(descriptor):
            return Program(reason=OUTSIDE)
        self.files_hashed += 1
        digests = {kind: make(b"") for kind, make in self._makers.items()}
        view = memoryview(self._buffer)
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            while True:
                count = file.readinto(self._buffer)
                if not count:
                    break
                self.bytes_read += count
                for digest in digests.values():
                    digest.update(view[:count])
                self._work()
        return Program({kind: digest.hexdigest() for kind, digest in digests.items()})
