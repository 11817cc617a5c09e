"""What the scan core costs, beside what an investigator would type instead.

    python bench/scan.py [--corpus DIR] [--cases NAME ...] [--runs 5] [--agent FILE] [--verify]

Makes the corpora of `bench/mkcorpus.py` where they are missing (6.8 GB of disk in all), then runs each case:
whole processes, warm, taking turns, medians. Two ways: the engine as a process of its own, and `mig-agent
module file` from a built agent file, which is built here unless one is given. What to compare with comes from
Debian: openssl, hashdeep, ripgrep, findutils; what is not installed is left out and named. Prints a table in
Markdown with the goal of each row and whether it was met; asserts nothing. An otherwise idle machine matters.

`--verify` compares every digest of the corpora and of /usr with openssl's instead.
"""

import argparse
import fcntl
import json
import os
import platform as machine
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import mkcorpus
from measure import Argv, Failed, Sample, compare, kept_running, openssl_speed, peak_mib, say
from scan_cases import NOTHING, Case, Goal, Times, all_cases

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.digests import compare_with_openssl  # noqa: E402
from tests.support.gpg import temporary_investigator  # noqa: E402

PACKAGES = {
    "openssl": "openssl",
    "sha256sum": "coreutils",
    "hashdeep": "hashdeep",
    "rg": "ripgrep",
    "find": "findutils",
}
SPECIAL = ("repeated", "start", "memory", "kept")
LEAST_GAIN = 2
MOST_START_S = 0.25
MOST_MIB = 150
LEAST_KEPT = 95
CONFIG = """
[agent]
relay = "amqp://127.0.0.1:5672/mig"
broker = "mig"
[agent.acl.default]
minimum_weight = 1
investigators = {{ "{fingerprint}" = 1 }}
"""


class Way(NamedTuple):
    """One way to run our searches: a name for its column, and the command for a file of parameters."""

    name: str
    command: Callable[[Path], list[str]]


class Row(NamedTuple):
    """A line of the table; `figures` has one text for each way."""

    title: str
    goal: str
    figures: tuple[str, ...]
    tools: str


class Bench:
    """The ways, where the corpora are, and a directory for files of parameters."""

    def __init__(self, ways: list[Way], corpora: Path, scratch: Path, runs: int) -> None:
        self.ways = ways
        self.corpora = corpora
        self.runs = runs
        self.missing: set[str] = set()
        self._scratch = scratch
        self._speed = 0.0

    def speed(self) -> float:
        """Return what openssl does on all cores, measured once."""
        self._speed = self._speed or openssl_speed()
        return self._speed

    def argv(self, way: Way, searches: Mapping[str, Any]) -> list[str]:
        """Return the command that runs these searches one way."""
        handle, name = tempfile.mkstemp(suffix=".json", dir=self._scratch)
        os.write(handle, json.dumps({"searches": searches}).encode())
        os.close(handle)
        return way.command(Path(name))

    def corpus(self, name: str) -> dict[str, Any]:
        """Return a corpus's manifest; the corpus is made where it is missing."""
        with (self.corpora / ".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (self.corpora / f"{name}.json").exists():
                say(f"making {self.corpora / name}: {mkcorpus.DISK_BYTES[name] / 1e9:.2g} GB of disk")
            return mkcorpus.make(self.corpora, name)

    def run(self, case: Case) -> list[Row]:
        """Measure one case."""
        total = sum(int(self.corpus(name)["bytes"]) for name in case.corpora)
        commands: dict[str, Argv] = {
            f"{way.name} {name}": self.argv(way, searches)
            for way in self.ways
            for name, searches in case.searches.items()
        }
        absent = {tool.needs for tool in case.tools.values() if shutil.which(tool.needs) is None}
        self.missing |= absent
        tools = {name: tool for name, tool in case.tools.items() if tool.needs not in absent}
        commands.update({name: ["bash", "-c", tool.command] for name, tool in tools.items()})
        measured = compare(commands, self.runs)
        by_tool = {name: measured[name] for name in tools}
        times = {
            way.name: Times(
                {name: measured[f"{way.name} {name}"] for name in case.searches},
                by_tool,
                total,
                self.speed() if any("openssl speed" in goal.text for goal in case.goals) else 0.0,
            )
            for way in self.ways
        }
        said = ", ".join(f"{name} {sample.wall_s:.2f} s" for name, sample in by_tool.items())
        _compare_counts(case, times, by_tool)
        return [
            Row(case.title, goal.text, tuple(_told(goal, times[way.name]) for way in self.ways), said)
            for goal in case.goals
        ]

    def repeated(self) -> list[Row]:
        """Measure the same scan again where digests are kept; only the engine is told where."""
        self.corpus("many")
        engine = [way for way in self.ways if way.name == "engine"]
        search = {"s1": {"paths": [str(self.corpora / "many")], "sha256": [NOTHING]}}
        figures = []
        for way in engine:
            reading = self.argv(way, search)
            keeping = [*reading, "--digest-cache", str(self._scratch / "digests")]
            found = compare({"reading": reading, "keeping": keeping}, self.runs)
            gain = found["reading"].wall_s / found["keeping"].wall_s
            seconds = found["keeping"].wall_s
            figures.append(f"{seconds:.2f} s: {gain:.2f} x, {_mark(is_met=gain >= LEAST_GAIN)}")
        figures += [""] * (len(self.ways) - len(engine))
        goal = "≥ 2 x as fast as without kept digests"
        return [Row("sha256 again, 200,000 small files", goal, tuple(figures), "")]

    def start(self) -> list[Row]:
        """Measure what the agent's file adds to a search of one directory."""
        search = {"s1": {"paths": ["/etc/hosts"], "names": ["hosts"]}}
        found = compare({way.name: self.argv(way, search) for way in self.ways}, max(5, self.runs))
        first = found[self.ways[0].name].wall_s
        figures = (
            f"{sample.wall_s:.3f} s, {_mark(is_met=sample.wall_s - first <= MOST_START_S)}"
            for sample in found.values()
        )
        return [Row("one file by its name", "≤ 0.25 s more than the engine", tuple(figures), "")]

    def memory(self) -> list[Row]:
        """Measure the memory of all processes together over a million names."""
        self.corpus("crowd")
        search = {"s1": {"paths": [str(self.corpora / "crowd")], "sha256": [NOTHING]}}
        peaks = [peak_mib(self.argv(way, search)) for way in self.ways]
        figures = (f"{peak:.0f} MiB, {_mark(is_met=peak <= MOST_MIB)}" for peak in peaks)
        return [
            Row("peak memory, sha256 of 1,000,000 files", "≤ 150 MiB in all processes", tuple(figures), "")
        ]

    def kept(self) -> list[Row]:
        """Measure how much of both cores others keep while a scan runs."""
        self.corpus("large")
        search = {"s1": {"paths": [str(self.corpora / "large")], "sha256": [NOTHING]}}
        figures = []
        for way in self.ways:
            shares = []
            for _ in range(self.runs):
                alone = openssl_speed()
                with kept_running(self.argv(way, search), ROOT):
                    shares.append(100 * openssl_speed() / alone)
            share = sorted(shares)[len(shares) // 2]
            figures.append(f"{share:.0f} %, {_mark(is_met=share >= LEAST_KEPT)}")
        return [Row("openssl speed on all cores while a scan runs", "≥ 95 % kept", tuple(figures), "")]


def _told(goal: Goal, times: Times) -> str:
    if any(sample.is_cut for sample in times.ours.values()):
        return "no figure: its answer reached its bound"
    seconds = next(iter(times.ours.values())).wall_s
    try:
        figure = goal.figure(times)
    except KeyError:
        return f"{seconds:.2f} s"
    return f"{seconds:.2f} s: {figure:.2f}{goal.unit}, {_mark(is_met=goal.is_met(figure))}"


def _mark(*, is_met: bool) -> str:
    return "met" if is_met else "**not met**"


def _compare_counts(case: Case, times: Mapping[str, Times], by_tool: Mapping[str, Sample]) -> None:
    # The engine prints a line for each match and one of statistics; the agent prints one answer.
    if "engine" in times and case.counts in by_tool:
        ours = next(iter(times["engine"].ours.values())).lines - 1
        if ours != by_tool[case.counts].lines:
            say(f"{case.title}: {ours} matches, and {by_tool[case.counts].lines} of {case.counts}")


def engine_way() -> Way | None:
    """Return the engine as a process of its own, where this version has one."""
    if not (ROOT / "agent/scan/__main__.py").exists():
        return None
    start = [sys.executable, "-I", "-S", str(ROOT / "agent/scan")]
    return Way("engine", lambda parameters: [*start, "--params", str(parameters)])


def agent_way(file: Path) -> Way:
    """Return the built agent file."""
    return Way("mig-agent", lambda parameters: [str(file), "module", "file", "--params", str(parameters)])


def build_agent(directory: Path) -> Path:
    """Build an agent file that trusts a key of nobody's."""
    keys = directory / "keys"
    keys.mkdir()
    with temporary_investigator() as investigator:
        (keys / f"{investigator.fingerprint}.asc").write_bytes(investigator.public_key)
        (directory / "config.toml").write_text(CONFIG.format(fingerprint=investigator.fingerprint))
    places: list[str | Path] = [
        "--config",
        directory / "config.toml",
        "--keys",
        keys,
        "--output",
        directory / "dist",
    ]
    words = [sys.executable, ROOT / "build_zipapp.py", "--only", "agent", *places]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return next(path for path in (directory / "dist").glob("mig-agent-*") if not path.suffix)


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a directory that is removed again."""
    directory = Path(tempfile.mkdtemp(prefix="mig-bench-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def print_table(ways: list[Way], rows: list[Row]) -> None:
    """Print the rows as Markdown."""
    names = " | ".join(way.name for way in ways)
    print(f"| case | goal | {names} | others |\n|---|---|{'---|' * len(ways)}---|")
    for row in rows:
        print(f"| {row.title} | {row.goal} | {' | '.join(row.figures)} | {row.tools} |")


def verify(bench: Bench) -> None:
    """Compare every digest with openssl's, and print one line for each directory."""
    for name in ("many", "large"):
        bench.corpus(name)
    for root in (bench.corpora / "many", bench.corpora / "large", Path("/usr")):
        compared = compare_with_openssl([root])
        print(f"{root}: {compared.files} files, {len(compared.different)} digests differ")
        for path in compared.different[:20]:
            print(f"    {path!r}")


def parse(known: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=mkcorpus.DEFAULT, metavar="DIR")
    parser.add_argument(
        "--cases", nargs="*", default=known, choices=known, metavar="NAME", help=", ".join(known)
    )
    parser.add_argument("--runs", type=int, default=5, help="how many turns are counted")
    parser.add_argument("--agent", metavar="FILE", help="a built agent file; none: leave that column out")
    parser.add_argument("--verify", action="store_true", help="compare every digest with openssl's")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = parse([*all_cases("", "", ""), *SPECIAL])
    root: Path = options.corpus.absolute()
    root.mkdir(parents=True, exist_ok=True)
    cases = all_cases(*(str(root / name) for name in ("many", "large", "text")))
    with scratch() as directory:
        engine = engine_way()
        ways = [engine] if engine is not None else []
        if options.agent != "none":
            ways.append(agent_way(Path(options.agent) if options.agent else build_agent(directory)))
        bench = Bench(ways, root, directory, options.runs)
        if options.verify:
            verify(bench)
            return
        rows: list[Row] = []
        for name in options.cases:
            say(name)
            try:
                rows += getattr(bench, name)() if name in SPECIAL else bench.run(cases[name])
            except Failed as failure:
                say(f"{name}: {failure}")
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    cpu = models[0].split(":")[1].strip() if models else machine.machine()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu}), Python {machine.python_version()},")
    print(f"medians of {options.runs}, warm, whole processes\n")
    print_table(ways, rows)
    if bench.missing:
        packages = " ".join(sorted(PACKAGES[name] for name in bench.missing))
        print(f"\nLeft out, since not installed: {packages} (apt-get install {packages})")


if __name__ == "__main__":
    main()
