"""How long one agent takes to answer, and what an agent costs while it waits.

    python bench/first_light.py [--runs 20]

Starts a platform of real parts (private RabbitMQ, server on SQLite, the agent's built file) in a temporary
directory, and prints a table in Markdown. Warm: one question is asked before counting.
"""

import argparse
import os
import platform as machine
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.gpg import temporary_investigator
from tests.support.platform import ROOT, Platform, wait_until

QUESTION = ("file", "--path", "/etc", "--name", "^passwd$")
_SETTLED_S = 3  # idle: the warm child is up, and memory that only starting needed is given back
ANCESTOR_S = 4.07  # MIG at its last commit, from the end of its countdown to the results printed


def build_agent(platform: Platform) -> Path:
    """Build the agent's file for this platform's broker and investigator."""
    directory = platform.directory
    keys = directory / "keys"
    keys.mkdir()
    fingerprint = platform.investigator.fingerprint
    (keys / f"{fingerprint}.asc").write_bytes(platform.investigator.public_key)
    config = directory / "agent.toml"
    config.write_text(
        f"""
[agent]
relay = "{platform.broker.agent_url}"
broker = "mig"
[agent.acl.default]
minimum_weight = 1
investigators = {{ "{fingerprint}" = 1 }}
[server]
url = "{platform.url}"
"""
    )
    words: list[str | Path] = [
        "--only",
        "agent",
        "--config",
        config,
        "--keys",
        keys,
        "--output",
        directory / "dist",
    ]
    subprocess.run([sys.executable, ROOT / "build_zipapp.py", *words], check=True, stdout=subprocess.DEVNULL)
    return next(path for path in (directory / "dist").glob("mig-agent-*") if not path.suffix)


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants (proc(5), children)."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))


def memory_kib(pid: int, kind: str) -> int:
    """Return `Rss` or `Pss` of one process, in KiB (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1])
    raise ValueError(kind)


def measure_start(platform: Platform, agent: Path) -> tuple[subprocess.Popen[bytes], float]:
    """Start the agent's file; return it and the time until the broker had let it in, in seconds."""
    log = platform.directory / "agent.log"
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            [agent, "run", "--foreground", "--state-dir", platform.directory / "state"],
            stdout=output,
            stderr=output,
        )
    wait_until(lambda: b"connected to the broker" in log.read_bytes(), "the agent's login")
    return process, time.monotonic() - began


def measure_question(platform: Platform, runs: int) -> tuple[list[float], list[float]]:
    """Ask `runs` times; return seconds from POST to the last line, and of the whole `mig` process."""
    platform.mig_json(*QUESTION)
    answered, whole = [], []
    for _ in range(runs):
        began = time.monotonic()
        _, summary = platform.mig_json(*QUESTION)
        whole.append(time.monotonic() - began)
        answered.append(summary["elapsed_s"])
    return answered, whole


def row(name: str, values: list[float], unit: str, goal: str) -> str:
    """Return one row of the table: median, smallest and largest."""
    middle = statistics.median(values)
    return f"| {name} | {middle:.3g} {unit} | {min(values):.3g} to {max(values):.3g} | {goal} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    directory = Path(tempfile.mkdtemp(prefix="mig-bench-"))
    starts: list[float] = []
    answered: list[float] = []
    whole: list[float] = []
    resident: list[float] = []
    total: list[float] = []
    try:
        with temporary_investigator() as investigator:
            platform = Platform(directory, investigator)
            try:
                platform.start()
                agent = build_agent(platform)
                size_mb = agent.stat().st_size / 1e6
                for _ in range(5):
                    process, seconds = measure_start(platform, agent)
                    starts.append(seconds)
                    wait_until(lambda: '"online"' in platform.mig("agents", "--json").stdout, "the agent")
                    if len(starts) == 5:  # noqa: PLR2004
                        answered, whole = measure_question(platform, runs)
                    time.sleep(_SETTLED_S)
                    resident.append(memory_kib(process.pid, "Rss") / 1024)
                    total.append(sum(memory_kib(pid, "Pss") for pid in family(process.pid)) / 1024)
                    process.terminate()
                    process.wait()
            finally:
                platform.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    cpu = models[0].split(":")[1].strip() if models else machine.machine()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu}), Python {machine.python_version()}")
    print(f"n={runs} where nothing else is said\n")
    print("| measure | median | range | goal |\n|---|---|---|---|")
    print(row("POST sent to last line printed", answered, "s", f"< 0.3 s (ancestor: {ANCESTOR_S} s)"))
    print(row("the whole `mig` command", whole, "s", ""))
    print(row("agent: start to connected (n=5)", starts, "s", "< 1 s"))
    print(row("agent: resident process, RSS (n=5)", resident, "MiB", "<= 36 MiB"))
    print(row("agent: with its warm child, PSS (n=5)", total, "MiB", "<= 64 MiB"))
    print(row("agent: file", [size_mb], "MB", "<= 15 MB"))


if __name__ == "__main__":
    main()
