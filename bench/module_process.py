"""The cases of the module process: 300 processes more than the machine has, each of a program of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cases import Case, Figure, Made, Measured, Tool

PROCESSES = 300
# Of a program with what it is padded by: as large as programs of a usual server are on the average.
PROGRAM_BYTES = 1 << 20
NOTHING = "0" * 64


@contextmanager
def crowd(directory: Path, program_bytes: int) -> Iterator[None]:
    """Run processes, each of a program file of its own and so large at least, until the body is over."""
    sleep = Path(shutil.which("sleep") or "/bin/sleep").read_bytes()
    running = []
    try:
        for number in range(PROCESSES):
            program = directory / f"program{number}"
            # What stands behind the end of an ELF file is no part of what runs, and of every digest.
            padding = number.to_bytes(4, "big") * max(1, (program_bytes - len(sleep)) // 4)
            program.write_bytes(sleep + padding)
            program.chmod(0o755)
            running.append(subprocess.Popen([program, "100000"]))
        yield
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


def _make(params: Mapping[str, Any], tools: Mapping[str, Tool], program_bytes: int = 0) -> Any:
    @contextmanager
    def make(directory: Path) -> Iterator[Made]:
        with crowd(directory, program_bytes):
            yield Made(params, tools)

    return make


def _within(limit_s: float) -> Any:
    def figure(measured: Measured) -> Figure:
        wall_s, cpu_s = measured.statistics["duration_s"], measured.statistics["cpu_s"]
        seen = measured.statistics["processes_seen"]
        text = f"{1000 * cpu_s:.0f} ms CPU, {1000 * wall_s:.0f} ms, {seen:.0f} processes"
        return Figure(text, is_met=cpu_s <= limit_s)

    return figure


HASHING = "sha256sum /proc/[0-9]*/exe 2>/dev/null | grep -v ^-"
PORTS = {"ss": Tool("ss -lntup", "ss")}
CASES = {
    "process-table": Case(
        "all processes, with programs, users and parents",
        "process",
        "≤ 0.1 s of CPU",
        _make({}, {"ps": Tool("ps -eo pid,ppid,euser,egroup,lstart,stat,comm,exe,cgroup", "ps")}),
        _within(0.1),
    ),
    "process-command": Case(
        "a command line by an expression",
        "process",
        "≤ 0.1 s of CPU",
        _make({"commands": ["no-such-[a-z]+ 99"]}, {"pgrep": Tool("pgrep -f 'no-such-[a-z]+ 99'", "pgrep")}),
        _within(0.1),
    ),
    "process-hash": Case(
        f"SHA-256 of {PROCESSES} programs of 1 MiB",
        "process",
        "≤ 1 s of CPU",
        _make({"sha256": [NOTHING]}, {"sha256sum": Tool(HASHING, "sha256sum")}, PROGRAM_BYTES),
        _within(1.0),
    ),
    "process-file": Case(
        "who has a file open",
        "process",
        "≤ 0.1 s of CPU",
        _make({"open_files": [f"^{os.devnull}$"]}, {"lsof": Tool(f"lsof {os.devnull}", "lsof")}),
        _within(0.1),
    ),
    "process-library": Case(
        "who maps a library",
        "process",
        "≤ 0.1 s of CPU",
        _make(
            {"libraries": ["/libcrypt[^/]*\\.so"]},
            {"grep -l maps": Tool("grep -lE '/libcrypt[^/]*\\.so' /proc/[0-9]*/maps 2>&1 || :", "grep")},
        ),
        _within(0.1),
    ),
    "process-port": Case(
        "who listens on a port",
        "process",
        "≤ 0.1 s of CPU",
        _make({"ports": [22]}, PORTS),
        _within(0.1),
    ),
}
