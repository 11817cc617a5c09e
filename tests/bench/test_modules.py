"""Tests that the bench of the modules still runs."""

import pytest

from tests.support.benches import run_bench


@pytest.mark.slow
def test_a_case_runs_and_gives_a_row_with_its_goal() -> None:
    done = run_bench("modules.py", "--runs", "1", "--cases", "process-command")
    assert done.stderr.splitlines() == ["process-command"]
    assert "| a command line by an expression | ≤ 0.1 s of CPU | " in done.stdout
    assert " processes, " in done.stdout
