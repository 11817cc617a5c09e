"""Runs commands to be compared: whole processes, warm, taking turns, medians; for the benches beside it.

A trap that this avoids: data left idle for a minute costs many times as much on its first pass in a virtual
machine. So everything runs once uncounted right before it is counted, and what is compared takes turns.
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

Argv = Sequence[str]
_SAMPLE_S = 0.02
# A search that finds nothing ends with 1, as grep does; xargs with 123 where one of its commands did.
_FINE = (0, 1, 123)
_FAILED = b'"status": "failed"'  # as `mig-agent module` says it
_LIMITED = b'"status": "limit"'  # an answer has a bound, at which the module is ended
_YIELDING = """
import os, sys
from agent.platform.limits import yield_to_others
yield_to_others()
os.execv(sys.argv[1], sys.argv[1:])
"""


class Sample(NamedTuple):
    """One run: wall and processor time (with its children's) in seconds, and how many lines it printed.

    `is_cut` where a bound on what is answered ended it: it has not done what the others have.
    """

    wall_s: float
    cpu_s: float
    lines: int
    is_cut: bool = False


class Failed(Exception):
    """A command that is measured did not do its work."""


def run_once(argv: Argv, pulse: Callable[[int], None] | None = None) -> Sample:
    """Run a command to its end, its output going to a file; `pulse` is called with its pid meanwhile.

    Raises:
        Failed: with what it said, where it ended badly.

    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        if pulse is not None:
            stop = threading.Event()
            watcher = threading.Thread(target=_keep_pulsing, args=(pulse, process.pid, stop))
            watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if pulse is not None:
            stop.set()
            watcher.join()
        errors.seek(0)
        output.seek(0)
        complaint, said = errors.read(10_000), output.read()
        # What Python does not catch ends with 1, as a search that finds nothing does.
        if process.returncode not in _FINE or b"Traceback" in complaint or _FAILED in said[:1000]:
            last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
            raise Failed(f"{argv[0]} ended with {process.returncode}: {last}")
        cpu_s = usage.ru_utime + usage.ru_stime
        return Sample(wall_s, cpu_s, said.count(b"\n"), _LIMITED in said[:1000])


def _keep_pulsing(pulse: Callable[[int], None], pid: int, stop: threading.Event) -> None:
    while not stop.wait(_SAMPLE_S):
        pulse(pid)


def compare(commands: Mapping[str, Argv], runs: int) -> dict[str, Sample]:
    """Return the median sample of each command: one turn uncounted, then `runs` that count.

    Each turn has an order of its own, the same in every run of a bench: what ran before leaves its mark.
    """
    for argv in commands.values():
        run_once(argv)
    samples: dict[str, list[Sample]] = {name: [] for name in commands}
    for turn in range(runs):
        for name in random.Random(turn).sample(list(commands), len(commands)):  # noqa: S311  (no secret)
            samples[name].append(run_once(commands[name]))
    return {name: median(found) for name, found in samples.items()}


def median(samples: Sequence[Sample]) -> Sample:
    """Return the median of each figure."""
    return Sample(
        statistics.median(sample.wall_s for sample in samples),
        statistics.median(sample.cpu_s for sample in samples),
        samples[-1].lines,
        any(sample.is_cut for sample in samples),
    )


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants that are there (proc(5), children)."""
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))
    except (FileNotFoundError, ProcessLookupError):
        return


def pss_kib(pid: int) -> int:
    """Return the memory of a process with its share of what others share, in KiB; 0 where it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def peak_mib(argv: Argv) -> float:
    """Run a command and return the most memory that all its processes held together, in MiB, as sampled."""
    peaks = [0]
    run_once(argv, lambda pid: peaks.append(sum(map(pss_kib, family(pid)))))
    return max(peaks) / 1024


def openssl_speed(seconds: int = 3) -> float:
    """Return the bytes of SHA-256 that `openssl speed` makes in a second on all cores."""
    words = ["speed", "-mr", "-multi", str(os.cpu_count() or 1), "-seconds", str(seconds), "-bytes", "16384"]
    done = subprocess.run(
        ["openssl", *words, "-evp", "sha256"], capture_output=True, check=True, start_new_session=True
    )
    # +F:25:sha256:713378448.16, the sum of all, comes last.
    return float(done.stdout.split(b"+F:")[-1].split(b":")[2].split()[0])


@contextmanager
def kept_running(argv: Argv, root: Path) -> Iterator[None]:
    """Have a command run over and over while the body runs, as an agent runs a command: it gives way.

    `root` holds the project: how a child of the agent gives way is asked of the agent's own code.
    """
    stop = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def repeat() -> None:
        while not stop.is_set():
            process = subprocess.Popen(
                [sys.executable, "-c", _YIELDING, *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=root,
                start_new_session=True,
            )
            running.append(process)
            process.wait()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        time.sleep(0.5)  # interpreters start, workers are forked
        yield
    finally:
        stop.set()
        os.killpg(running[-1].pid, 15)
        thread.join()


def say(text: str) -> None:
    """Say on standard error what is being done; the table alone goes to standard output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
