"""The processes of a Linux endpoint and what lies in their memory, read from /proc without stopping anything.

Rules:

* A process is held by a descriptor of its directory, and all else is opened through that: when its number is
  given to another process meanwhile, what is read fails; it is never of the other one.
* Its memory is that of the program that it ran when it was opened. One that starts another program (execve)
  is gone as one that ends is.
* Reading goes by pages: what cannot be read comes back short and is never made up.

Who may read is the kernel's business (PTRACE_MODE_ATTACH_FSCREDS, ptrace(2)): root may, short of a security
module's ban. No policy here, and nothing is written. Pages of memory that were swapped out are read back in.

Sources: proc(5), proc_pid_maps(5), proc_pid_mem(5);
https://docs.kernel.org/admin-guide/mm/pagemap.html
"""

import os
import re
from types import TracebackType
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple, Type, TypeVar

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_PAGEMAP_ENTRY = 8
_PAGEMAP_PIECE = 1 << 20
# The highest byte of an entry (little-endian on what we run on): bit 63 is present, bit 62 is swapped.
_IS_TOUCHED = bytes(1 if byte & 0xC0 else 0 for byte in range(256))
_TOUCHED = re.compile(rb"\x01+")
_MAPS_FIELDS = 6
_T = TypeVar("_T")


class ProcessGone(Exception):
    """The process ended, or runs another program by now."""


class Region(NamedTuple):
    """A mapping of a process: addresses from `start` up to `end`, permissions such as `r-xp`.

    `path` is the file mapped, or a name of the kernel's such as `[heap]`, or empty; `inode` is 0 without one.
    """

    start: int
    end: int
    permissions: str
    inode: int
    path: bytes

    @property
    def is_readable(self) -> bool:
        """Whether the process itself may read it. The kernel's own pages for clocks are left out."""
        return self.permissions.startswith("r") and self.path not in (
            b"[vvar]",
            b"[vsyscall]",
            b"[vvar_vclock]",
        )

    @property
    def is_private_anonymous(self) -> bool:
        """Whether what was never touched in it can only be zeros."""
        return self.permissions.endswith("p") and not self.inode


def list_pids() -> List[int]:
    """Return the numbers of all processes, in order; threads are not listed."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208  (thousands of names)


class Process:
    """One process, held open.

    Args:
        pid: its number.
        directory: a descriptor of its directory, where another process has opened it; ours from here on.

    Raises:
        ProcessGone: there is no such process.
        PermissionError: its directory cannot be entered.

    """

    def __init__(self, pid: int, directory: Optional[int] = None) -> None:
        self.pid = pid
        self._memory: Optional[int] = None
        if directory is not None:
            self._directory = directory
            return
        try:
            self._directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone from None

    def __enter__(self) -> "Process":  # noqa: PYI034  (Self is not in 3.9)
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        for descriptor in (self._memory, self._directory):
            if descriptor is not None:
                os.close(descriptor)
        self._memory = None

    @property
    def descriptor(self) -> int:
        """The descriptor of its directory, which stands for this very process wherever it is handed to."""
        return self._directory

    def name(self) -> bytes:
        """Return what the process calls itself (comm): at most 15 bytes, and whatever it likes."""
        return self._read("comm")[:-1]

    def executable(self) -> bytes:
        """Return the path of the program that it runs; empty for the kernel's own threads."""
        try:
            return os.readlink(b"exe", dir_fd=self._directory)
        except (FileNotFoundError, ProcessLookupError):
            # A thread of the kernel has a directory and no program; who ended has no comm either.
            self.name()
            return b""

    def regions(self) -> List[Region]:
        """Return the mappings, by address; none for the kernel's own threads and for who has just ended.

        Raises:
            ProcessGone: it ended.
            PermissionError: it may not be looked at.

        """
        return [_parse_region(line) for line in self._read("maps").splitlines()]

    def touched(self, region: Region) -> Iterator[Tuple[int, int]]:
        """Yield the parts (start, end) of a region that hold pages, in memory or swapped out.

        Where the kernel does not tell, the region is yielded whole.
        """
        try:
            descriptor = os.open("pagemap", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone from None
        except OSError:
            yield region.start, region.end
            return
        try:
            at = region.start
            while at < region.end:
                pages = min((region.end - at) // PAGE_BYTES, _PAGEMAP_PIECE // _PAGEMAP_ENTRY)
                offset = at // PAGE_BYTES * _PAGEMAP_ENTRY
                entries = os.pread(descriptor, pages * _PAGEMAP_ENTRY, offset)
                if not entries:
                    raise ProcessGone
                for run in _TOUCHED.finditer(entries[7::_PAGEMAP_ENTRY].translate(_IS_TOUCHED)):
                    yield at + run.start() * PAGE_BYTES, at + run.end() * PAGE_BYTES
                at += len(entries) // _PAGEMAP_ENTRY * PAGE_BYTES
        finally:
            os.close(descriptor)

    def read(self, start: int, size: int) -> bytes:
        """Return the bytes at an address: fewer, or none, where a page cannot be read.

        Raises:
            ProcessGone: it ended.
            PermissionError: it may not be looked at.

        """
        return self._at(lambda memory: os.pread(memory, size, start), b"", size)

    def read_into(self, start: int, buffer: memoryview) -> int:
        """Fill a buffer with the bytes at an address and return how many there are, as `read` does.

        Raises:
            ProcessGone: it ended.
            PermissionError: it may not be looked at.

        """
        return self._at(lambda memory: os.preadv(memory, [buffer], start), 0, len(buffer))

    def _at(self, read: Callable[[int], _T], nothing: _T, size: int) -> _T:
        try:
            if self._memory is None:
                self._memory = os.open("mem", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
            result = read(self._memory)
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone from None
        except PermissionError:
            raise
        except OSError:
            return nothing
        if not result and size:
            # The end of the file: its memory is no more.
            raise ProcessGone
        return result

    def _read(self, name: str) -> bytes:
        parts: List[bytes] = []
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
            try:
                while True:
                    # In pieces: the kernel gives whole lines, as many as fit.
                    data = os.read(descriptor, 1 << 16)
                    if not data:
                        return b"".join(parts)
                    parts.append(data)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone from None


def _parse_region(line: bytes) -> Region:
    fields = line.split(None, _MAPS_FIELDS - 1)
    start, _, end = fields[0].partition(b"-")
    return Region(
        start=int(start, 16),
        end=int(end, 16),
        permissions=fields[1].decode("ascii"),
        inode=int(fields[4]),
        # The kernel writes a line's end as \012 and nothing else in another way (seq_file_path(9)).
        path=fields[5].replace(b"\\012", b"\n") if len(fields) == _MAPS_FIELDS else b"",
    )
