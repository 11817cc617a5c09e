"""Tests that the bench of the modules still runs."""

import subprocess
import sys

from tests.support.tree import ROOT


def test_a_case_runs_and_gives_a_row_with_its_goal() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "bench/modules.py", "--runs", "1", "--cases", "process-command"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stderr.splitlines() == ["process-command"]
    assert "| a command line by an expression | ≤ 0.1 s of CPU | " in done.stdout
    assert " processes, " in done.stdout
