"""The cases of the module block: a loop device of 1 GiB, half text and half random, hashed and searched."""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from cases import Case, Figure, Made, Measured, Tool

SIZE_BYTES = 1 << 30
MOST_TIMES = 1.3
NEEDLE = b"a needle that is there once"
_PIECE_BYTES = 4 << 20
_LINE = b"Nov 29 10:00:00 host sshd[%d]: Failed password for user%d from 203.0.113.%d port %d ssh2\n"


@contextmanager
def device(directory: Path) -> Iterator[str]:
    """Make the device: its path."""
    image = directory / "image"
    text = b"".join(_LINE % (at, at % 999, at % 250, at % 65536) for at in range(60_000))[:_PIECE_BYTES]
    with image.open("wb") as file:
        for at in range(0, SIZE_BYTES, _PIECE_BYTES):
            file.write(text if at // _PIECE_BYTES % 2 else os.urandom(_PIECE_BYTES))
        # Across two pieces of what is read at once.
        file.seek(SIZE_BYTES * 3 // 4 - len(NEEDLE) // 2)
        file.write(NEEDLE)
    command = ["losetup", "--find", "--show", str(image)]
    path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield path
    finally:
        subprocess.run(["losetup", "--detach", path], check=True)


def _case(title: str, params: dict[str, Any], name: str, command: str, needs: str) -> Case:
    @contextmanager
    def make(directory: Path) -> Iterator[Made]:
        with device(directory) as path:
            tools = {name: Tool(command.format(device=path), needs)}
            yield Made({"devices": [path], **params}, tools)

    def figure(measured: Measured) -> Figure:
        seconds = measured.statistics["duration_s"]
        times = seconds / measured.tools[name].wall_s if name in measured.tools else 0.0
        rate = measured.statistics["bytes_read"] / seconds / 1e6
        return Figure(f"{seconds:.2f} s, {rate:.0f} MB/s, {times:.2f} x {name}", is_met=times <= MOST_TIMES)

    made: Callable[[Path], AbstractContextManager[Made]] = make
    return Case(title, "block", f"≤ {MOST_TIMES} x {name}", made, figure)


def _grep(words: Sequence[str]) -> str:
    return f"LC_ALL=C grep -obUa {' '.join(words)} {{device}}"


CASES = {
    "block-hash": _case(
        "SHA-256 of a device of 1 GiB",
        {"returnhashes": ["sha256"]},
        "openssl",
        "openssl dgst -sha256 {device}",
        "openssl",
    ),
    "block-bytes": _case(
        "a byte string on it",
        {"bytes": [NEEDLE.hex()]},
        "grep -F",
        _grep(["-F", f"'{NEEDLE.decode()}'"]),
        "grep",
    ),
    "block-expression": _case(
        "an expression with a literal",
        {"contents": ["needle that is there [a-z]+"]},
        "grep -E",
        _grep(["-E", "'needle that is there [a-z]+'"]),
        "grep",
    ),
    "block-class": _case(
        "an expression without one, any case",
        {"contents": ["(?i)n[ae]edle th[aeiou]t is"]},
        "grep -iE",
        _grep(["-iE", "'n[ae]edle th[aeiou]t is'"]),
        "grep",
    ),
}
