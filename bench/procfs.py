"""What the kernel says of processes: memory and processor time (proc(5)); for the benches beside it."""

import os
from collections.abc import Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has spent, in seconds, its ended children left out."""
    return parse_cpu_s(Path(f"/proc/{pid}/stat").read_text())


def exact_cpu_s(pid: int) -> float:
    """Return the processor time of the threads that a process has, from the scheduler, to the nanosecond.

    `cpu_s` counts in hundredths of a second, of which an idle process spends one a minute.
    Source: docs.kernel.org, scheduler/sched-stats.html.
    """
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def parse_cpu_s(stat: str) -> float:
    """Return user and system time of a process from its `stat`, whose second field may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mib(pid: int) -> float:
    """Return the memory that a process holds now, in MiB."""
    return _status_kib(pid, "VmRSS") / 1024


def peak_rss_mib(pid: int) -> float:
    """Return the most memory that a process has held, in MiB."""
    return _status_kib(pid, "VmHWM") / 1024


def _status_kib(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]
