"""The cases of the module memory: a process that holds as much as a service, in text, programs and zeros."""

import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cases import Case, Figure, Made, Measured, Tool

HELD_BYTES = 512 << 20
LEAST_BYTES_PER_S = 500e6
SEED = 20260101
# Holds a file's content in memory of its own, as a heap is.
_HOLDER = """
import ctypes, mmap, sys
size = int(sys.argv[2])
held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
with open(sys.argv[1], "rb") as file:
    piece = file.read()
for at in range(0, size, len(piece)):
    held[at:at + len(piece)] = piece[:size - at]
print(ctypes.addressof(ctypes.c_char.from_buffer(held)), flush=True)
sys.stdin.read()
"""
_WORDS = (
    b"GET /index.html HTTP/1.1", b"Host: www.example.org", b"user=alice", b"session=", b"ERROR", b"accepted",
    b"password", b"/usr/lib/x86_64-linux-gnu/", b"https://example.net/", b"\x00\x00\x00", b"\n", b"=",
)  # fmt: skip


def content() -> bytes:
    """Return 16 MiB: a quarter text, a quarter random, a quarter of a program, a quarter zeros."""
    chance = random.Random(SEED)  # noqa: S311  (the same bytes each time)
    quarter = 4 << 20
    text = bytearray()
    while len(text) < quarter:
        text += chance.choice(_WORDS) + b" %d " % chance.getrandbits(20)
    program = Path(sys.executable).resolve().read_bytes()
    program *= 1 + quarter // len(program)
    return bytes(text[:quarter]) + chance.randbytes(quarter) + program[:quarter] + bytes(quarter)


@contextmanager
def holder(directory: Path) -> Iterator[tuple[int, int]]:
    """Run a process that holds it; yield its number and the address."""
    (directory / "content").write_bytes(content())
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HOLDER, directory / "content", str(HELD_BYTES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None  # noqa: S101  (asked for above)
        yield process.pid, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


def _make(contents: Sequence[str], strings: Sequence[bytes], grep: str) -> Any:
    @contextmanager
    def make(directory: Path) -> Iterator[Made]:
        (directory / "strings").write_bytes(b"\n".join(strings))
        with holder(directory) as (pid, address):
            search = {"pids": [pid], "contents": contents, "bytes": [one.hex() for one in strings]}
            span = f"skip={address} count={HELD_BYTES} iflag=skip_bytes,count_bytes bs=1M status=none"
            how = grep.format(strings=directory / "strings")
            core = directory / "core"
            yield Made(
                {"searches": {"s": search}},
                {
                    "dd and grep": Tool(f"dd if=/proc/{pid}/mem {span} | LC_ALL=C {how} || true", "grep"),
                    "gcore and grep": Tool(
                        f"gcore -o {core} {pid} >/dev/null 2>&1; LC_ALL=C {how} {core}.{pid};"
                        f" rm -f {core}.{pid}",
                        "gcore",
                    ),
                },
            )

    return make


def _per_core(measured: Measured) -> Figure:
    rate = measured.statistics["bytes_read"] / measured.statistics["cpu_s"]
    return Figure(f"{rate / 1e6:.0f} MB/s of CPU", is_met=rate >= LEAST_BYTES_PER_S)


GOAL = "≥ 500 MB/s per core"
STRINGS = [b"indicator-%02d-never" % number for number in range(20)]
# As RE2 and grep both read them; three hold no text that could be jumped to.
SIX = [
    "beacon-[0-9a-f]{8}",
    "key=[A-Z]{30}",
    "evil\\.example\\.(com|org)",
    "[0-9]{30}",
    "[Zz][Zz][Qq][XxVv][Jj]",
    "[A-F]{25}",
]
CASES = {
    "memory-text": Case(
        f"one expression with a text in it, {HELD_BYTES >> 20} MiB",
        "memory",
        GOAL,
        _make(["beacon-[0-9a-f]{8}"], [], "grep -acE 'beacon-[0-9a-f]{{8}}'"),
        _per_core,
    ),
    "memory-class": Case(
        "one expression without any",
        "memory",
        GOAL,
        _make(["[0-9a-f]{40}"], [], "grep -acE '[0-9a-f]{{40}}'"),
        _per_core,
    ),
    "memory-strings": Case(
        "20 byte strings",
        "memory",
        GOAL,
        _make([], STRINGS, "grep -acFf {strings}"),
        _per_core,
    ),
    "memory-expressions": Case(
        "6 expressions, half without a text",
        "memory",
        GOAL,
        _make(SIX, [], "grep -acE '" + "|".join(SIX).replace("{", "{{").replace("}", "}}") + "'"),
        _per_core,
    ),
}
