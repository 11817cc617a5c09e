"""Runs a target with seeds that are mutated blindly."""

import argparse
import sys
import time
from collections.abc import Sequence
from random import Random

from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS, is_refusal


def run(words: Sequence[str], description: str) -> int:
    """Run one target and return its exit code: 1 where it found something."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=description)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=time.time_ns(), help="repeats a run")
    options = parser.parse_args(words)
    target, random = TARGETS[options.target], Random(options.seed)  # noqa: S311  (repeatable, protects nothing)
    end, count = time.monotonic() + options.seconds, 0
    while time.monotonic() < end:
        data = mutate(random.choice(target.seeds), random)
        count += 1
        try:
            target.run(data)
        except Exception as error:  # noqa: BLE001  (what is looked for)
            if not is_refusal(error):
                sys.stdout.write(f"{error!r} by {data!r} (seed {options.seed}, number {count})\n")
                return 1
    sys.stdout.write(f"{count} documents, nothing found (seed {options.seed})\n")
    return 0
