"""A real process with something planted in its memory, for tests that look there."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

# The planted bytes arrive by the pipe, so that they stand in no command line. `where` is `mapped`: a private
# mapping of its own, `at` bytes in; nothing else of it is ever touched.
_PROGRAM = """
import ctypes, mmap, os, sys
open("/proc/self/comm", "w").write(f"planted{os.getpid()}")
size, at, length = map(int, sys.stdin.buffer.readline().split())
held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
sys.stdin.buffer.readinto(memoryview(held)[at:at + length])
print(ctypes.addressof(ctypes.c_char.from_buffer(held)), flush=True)
sys.stdin.buffer.read()
"""


class Planted(NamedTuple):
    """A running process; `start` is the address of its mapping, `address` of what was planted in it."""

    process: "subprocess.Popen[bytes]"
    start: int
    address: int
    size: int

    @property
    def name(self) -> str:
        """What the process calls itself."""
        return f"planted{self.pid}"

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid


@contextmanager
def plant(content: bytes, *, at: int = 0, size: int = 1 << 20) -> Iterator[Planted]:
    """Run a process that holds `content` at an offset of a fresh mapping; end it afterwards."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # In another group than the test, whose own processes a scan leaves out.
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(b"%d %d %d\n" % (size, at, len(content)) + content)
            process.stdin.flush()
            start = int(process.stdout.readline())
            yield Planted(process, start, start + at, size)
        finally:
            process.kill()
