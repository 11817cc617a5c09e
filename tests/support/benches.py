"""The benches as commands, run as a user would."""

import subprocess
import sys

from tests.support.tree import ROOT


def run_bench(name: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `bench/NAME`; fails with all that it printed where it fails."""
    command = [sys.executable, str(ROOT / "bench" / name), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done
