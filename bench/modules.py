"""What modules cost, beside what a user would pick instead.

    python bench/modules.py [--cases NAME ...] [--runs 5] [--agent FILE]

Each case makes what it measures on (processes, memory), then `mig-agent module NAME`, from this tree or from
a built agent file, takes turns with the tools: whole processes, warm, medians. The figure is of what the
module itself says (`duration_s`, `cpu_s`, which leave the start of Python out); the whole process stands
beside it. Cases lie in `bench/module_NAME.py`. What is not installed is left out and named. Prints a table in
Markdown; asserts nothing. An otherwise idle machine matters, and root: others' processes are looked at.
"""

import argparse
import importlib
import json
import os
import platform as machine
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cases import Case, Measured
from measure import Failed, Sample, median, run_once, say

ROOT = Path(__file__).resolve().parent.parent
_AGENT = "import sys; from agent.main import main; sys.exit(main())"


def all_cases() -> dict[str, Case]:
    """Return the cases of all files beside this one, by name."""
    found: dict[str, Case] = {}
    for path in sorted(Path(__file__).parent.glob("module_*.py")):
        found.update(importlib.import_module(path.stem).CASES)
    return found


def measure(case: Case, agent: Sequence[str], directory: Path, runs: int, missing: set[str]) -> Measured:
    """Run a case: one turn uncounted, then `runs` that count, ours and the tools by turns."""
    with case.make(directory) as made:
        params, answer = directory / "params.json", directory / "answer.json"
        params.write_text(json.dumps(made.params))
        words = [*agent, "module", case.module, "--params", str(params)]
        # Our answer goes to a file, as the tools' output does.
        ours = ["bash", "-c", f"exec {shlex.join(words)} > {shlex.quote(str(answer))}"]
        absent = {tool.needs for tool in made.tools.values() if shutil.which(tool.needs) is None}
        missing |= absent
        tools = {name: tool.command for name, tool in made.tools.items() if tool.needs not in absent}
        samples: list[Sample] = []
        answers: list[Mapping[str, Any]] = []
        others: dict[str, list[Sample]] = {name: [] for name in tools}
        for turn in range(runs + 1):
            sample = run_once(ours)
            # What ends with 1 found nothing, or could not be started.
            told = json.loads(answer.read_bytes() or b'{"status": "failed", "notes": ["no answer"]}')
            if told["status"] != "ok":
                raise Failed(f"{case.title}: {told['status']}: {told['notes'][:1]}")
            if turn:
                samples.append(sample)
                answers.append(told["statistics"])
            for name, command in tools.items():
                found = run_once(["bash", "-c", command])
                if turn:
                    others[name].append(found)
        return Measured(
            median(samples), _medians(answers), {name: median(found) for name, found in others.items()}
        )


def _medians(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: statistics.median(answer[name] for answer in answers)
        for name, value in answers[0].items()
        if isinstance(value, (int, float))
    }


def row(case: Case, measured: Measured) -> str:
    """Return the line of a case in the table."""
    figure = case.figure(measured)
    whole = f"{measured.ours.wall_s:.3f} s, {measured.ours.cpu_s:.3f} s CPU"
    others = "; ".join(
        f"{name} {sample.wall_s:.3f} s, {sample.cpu_s:.3f} s CPU" for name, sample in measured.tools.items()
    )
    mark = "met" if figure.is_met else "**not met**"
    return f"| {case.title} | {case.goal} | {figure.text}, {mark} | {whole} | {others} |"


def parse(known: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", nargs="*", default=known, choices=known, metavar="NAME", help=", ".join(known)
    )
    parser.add_argument("--runs", type=int, default=5, help="how many turns are counted")
    parser.add_argument("--agent", metavar="FILE", help="a built agent file; none is this tree's agent")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    cases = all_cases()
    options = parse(list(cases))
    agent = [options.agent] if options.agent else [sys.executable, "-c", _AGENT]
    os.chdir(ROOT)
    rows: list[str] = []
    missing: set[str] = set()
    for name in options.cases:
        say(name)
        directory = Path(tempfile.mkdtemp(prefix="mig-bench-"))
        try:
            rows.append(row(cases[name], measure(cases[name], agent, directory, options.runs, missing)))
        except Failed as failure:
            say(f"{name}: {failure}")
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    cpu = models[0].split(":")[1].strip() if models else machine.machine()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu}), Python {machine.python_version()},")
    print(f"medians of {options.runs}, warm\n")
    print("| case | goal | the module itself | the whole process | others |\n|---|---|---|---|---|")
    print("\n".join(rows))
    if missing:
        print(f"\nLeft out, since not installed: {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
