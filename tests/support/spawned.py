"""Real processes that tests start, wait for and end."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LAST = "\nprint(flush=True)\nimport sys\nsys.stdin.read()\n"


@contextmanager
def spawned(program: str = "", *arguments: str, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run Python source in a process of its own; it has been run to its end, and waits, when this yields.

    `options` are subprocess.Popen's.
    """
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program + _LAST, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        **options,
    ) as process:
        try:
            await_ready(process)
            yield process
        finally:
            process.kill()


@contextmanager
def copied(program: str | bytes, *arguments: str, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a copy of cat, which waits; `program` is where that lies."""
    with subprocess.Popen(
        [program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
    ) as process:
        assert process.stdin is not None
        try:
            # What it gives back shows that it runs.
            process.stdin.write(b"\n")
            process.stdin.flush()
            await_ready(process)
            yield process
        finally:
            process.kill()


def await_ready(process: "subprocess.Popen[bytes]") -> bytes:
    """Return the first line that a process writes."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the process ended before it was ready"
    return line
