"""The arithmetic of the benches of server and agent, and that the largest of them still runs."""

import os
import runpy
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.benches import run_bench
from tests.support.tree import ROOT

BENCH = ROOT / "bench"


@pytest.fixture(autouse=True)
def bench_path() -> Iterator[None]:
    before, modules = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(BENCH))
    yield
    sys.path[:] = before
    for name in {"measure", "procfs", "first_light"} - modules:
        sys.modules.pop(name, None)


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(BENCH / f"{name}.py"))


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7.0], 0.99, 7.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 102)], 0.99, 100.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0], 1.0, 3.0),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(
    values: list[float], share: float, expected: float
) -> None:
    assert load("procfs")["percentile"](values, share) == expected


def test_processor_time_is_read_past_whatever_a_process_calls_itself() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    fields = ["S", *["0"] * 10, str(3 * ticks), str(2 * ticks), *["9"] * 30]
    assert load("procfs")["parse_cpu_s"](f"17 (a ) b) {' '.join(fields)}") == 5.0


def test_memory_and_processor_time_of_this_process_are_what_the_kernel_says() -> None:
    procfs = load("procfs")
    now = procfs["rss_mib"](os.getpid())
    assert now > 10
    # Read in this order, the process may have grown meanwhile; the kernel's counters are off by some pages.
    assert procfs["peak_rss_mib"](os.getpid()) > now - 4
    assert procfs["cpu_s"](os.getpid()) > 0
    assert procfs["exact_cpu_s"](os.getpid()) > 0


def test_idle_time_is_a_share_of_one_core() -> None:
    assert load("idle")["share_of_core"](0.18, 180.0) == pytest.approx(0.1)


@pytest.mark.system
def test_the_loaded_server_answers_and_gives_its_tables() -> None:
    words = ["--agents", "20", "--answers", "40", "--rate", "50", "--seconds", "2"]
    done = run_bench("loaded.py", *words)
    assert "sqlite, 20 agents, 40 answers stored; " in done.stdout
    rows = [line.split(" | ")[0].strip("| ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows[1:7] == [
        "list actions",
        "show an action",
        "list agents",
        "show an agent",
        "list answers",
        "all",
    ]
    assert rows[-1] == "after the load, at most"
