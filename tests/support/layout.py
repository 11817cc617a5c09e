"""A real process whose memory a test lays out page by page, for tests that read it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PAGE_BYTES = 4096
# What a page can be; the others are: n, nobody may read it; u, not there; t, beyond the end of its file.
READABLE = "r"

# Each line says what the pages are; their content follows. Around them are pages that nobody may read.
_PROGRAM = """
import ctypes, mmap, os, sys
PAGE, NONE, SHARED, PRIVATE, FIXED, ANONYMOUS = mmap.PAGESIZE, 0, 1, 2, 16, 32
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_size_t]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
empty = os.memfd_create("empty")
# Without a buffer, so that another program finds what comes next.
told = open(0, "rb", buffering=0)
def read(size):
    data = b""
    while len(data) < size:
        data += told.read(size - len(data))
    return data
while True:
    words = told.readline().split()
    if not words:
        break
    if words[0] == b"unmap":
        libc.munmap(int(words[1]), int(words[2]))
        print(flush=True)
        continue
    if words[0] == b"exec":
        os.execv("/bin/cat", ["cat"])
    kinds = words[1].decode()
    content = read(len(kinds) * PAGE)
    outer = libc.mmap(None, (len(kinds) + 2) * PAGE, NONE, PRIVATE | ANONYMOUS, -1, 0)
    start = outer + PAGE
    libc.mmap(start, len(kinds) * PAGE, 3, PRIVATE | ANONYMOUS | FIXED, -1, 0)
    ctypes.memmove(start, content, len(content))
    for number, kind in enumerate(kinds):
        at = start + number * PAGE
        if kind == "n":
            libc.mprotect(at, PAGE, NONE)
        elif kind == "t":
            libc.mmap(at, PAGE, 1, SHARED | FIXED, empty, 0)
        elif kind == "u":
            libc.munmap(at, PAGE)
    print(start, flush=True)
"""


class Layout:
    """A running process that lays out memory as it is told."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.pid = process.pid

    def lay(self, kinds: str, content: bytes) -> int:
        """Map pages of these kinds, one letter each, side by side, and return where they begin."""
        return int(self._tell(b"lay %s\n" % kinds.encode() + content.ljust(len(kinds) * PAGE_BYTES, b"\0")))

    def unmap(self, start: int, size: int) -> None:
        """Take a mapping away."""
        self._tell(b"unmap %d %d\n" % (start, size))

    def start_another_program(self) -> None:
        """Have the process become another program, and wait until it is one."""
        self._tell(b"exec\nready\n")

    def _tell(self, words: bytes) -> bytes:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(words)
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the process ended"
        return answer


@contextmanager
def layout() -> Iterator[Layout]:
    """Run such a process; end it afterwards."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-u", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            yield Layout(process)
        finally:
            process.kill()
