"""How much processor time an agent takes that is asked nothing, and how much memory.

    python bench/idle.py [--minutes 3] [--agents 3]

Builds the file that would be installed, starts some of them on a real broker and server, waits until they
have settled, and reads from the kernel what they spent: resident and warm child, heartbeats every minute.
"""

import argparse
import contextlib
import os
import platform as machine
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from first_light import build_agent
from measure import family, pss_kib
from procfs import exact_cpu_s, rss_mib

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.gpg import temporary_investigator
from tests.support.platform import Platform, wait_until

_SETTLE_S = 20


def share_of_core(spent_s: float, passed_s: float) -> float:
    """Return processor time as a share of one core, in percent."""
    return 100 * spent_s / passed_s


def start(platform: Platform, file: Path, number: int) -> "subprocess.Popen[bytes]":
    """Start one agent in a state directory of its own; returns when the broker has let it in."""
    path = platform.directory / f"agent{number}.log"
    with path.open("wb") as log:
        words = ["run", "--foreground", "--state-dir", str(platform.directory / f"state{number}")]
        process = subprocess.Popen([file, *words], stdout=log, stderr=log)
    wait_until(lambda: b"connected to the broker" in path.read_bytes(), "the agent's login")
    return process


def measure(processes: "list[subprocess.Popen[bytes]]", minutes: float) -> None:
    """Measure and print one line for each."""
    time.sleep(_SETTLE_S)
    families = [list(family(process.pid)) for process in processes]
    before = [sum(map(exact_cpu_s, pids)) for pids in families]
    began = time.monotonic()
    time.sleep(60 * minutes)
    passed_s = time.monotonic() - began
    print("| agent | % of a core | resident, RSS | with its warm child, PSS |\n|---|---|---|---|")
    for number, pids in enumerate(families):
        share = share_of_core(sum(map(exact_cpu_s, pids)) - before[number], passed_s)
        pss_mib = sum(map(pss_kib, pids)) / 1024
        print(f"| {number} | {share:.3f} | {rss_mib(pids[0]):.1f} MiB | {pss_mib:.1f} MiB |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--agents", type=int, default=3)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="mig-idle-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        platform = Platform(directory, stack.enter_context(temporary_investigator()))
        stack.callback(platform.stop)
        platform.start()
        file = build_agent(platform)
        processes = []
        for number in range(options.agents):
            processes.append(start(platform, file, number))
            stack.callback(processes[-1].wait, 30)
            stack.callback(processes[-1].terminate)
        print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {machine.python_version()}")
        print(f"{options.minutes:g} minutes after {_SETTLE_S} s of settling\n")
        measure(processes, options.minutes)


if __name__ == "__main__":
    main()
