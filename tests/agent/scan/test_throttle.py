"""Tests of keeping to a budget, with a clock that moves when somebody sleeps."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.module import Budget
from agent.scan.throttle import Throttle
from tests.agent.scan.runs import grow
from tests.agent.scan.test_pool import Asked, hashes


class Machine:
    """A processor and a disk that one process uses, and the time that it takes."""

    def __init__(self, budget: Budget, share: int = 1) -> None:
        self.now_s = 1000.0
        self.used_s = 0.0
        self.read = 0
        self.checks = 0
        self.throttle = Throttle(
            budget,
            share,
            bytes_read=lambda: self.read,
            monotonic=lambda: self.now_s,
            process_time=lambda: self.used_s,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def check(self) -> None:
        self.checks += 1

    def work(self, seconds: float, size: int) -> None:
        self.now_s += seconds
        self.used_s += seconds
        self.read += size
        self.throttle.keep(self.check)


def test_without_a_bound_nothing_is_waited_for_and_still_it_can_be_cancelled() -> None:
    machine = Machine(Budget())
    machine.work(1.0, 1 << 40)
    assert (machine.now_s, machine.checks, machine.throttle.is_needed()) == (1001.0, 1, False)


@given(
    steps=st.lists(st.tuples(st.floats(0.001, 0.5), st.integers(0, 1 << 20)), min_size=5, max_size=60),
    share=st.integers(1, 4),
)
def test_each_process_keeps_to_its_share(steps: list[tuple[float, int]], share: int) -> None:
    machine = Machine(Budget(cpu_percent=50, read_bytes_per_s=1 << 20), share)
    for seconds, size in steps:
        machine.work(seconds, size)
    passed = machine.now_s - 1000.0
    assert machine.used_s <= 0.5 / share * (passed + 0.001) + 1e-6
    assert machine.read <= (1 << 20) / share * (passed + 0.001) + 1


def test_what_was_not_used_for_long_is_not_made_up_for() -> None:
    machine = Machine(Budget(read_bytes_per_s=1000))
    machine.sleep(3600.0)
    machine.throttle.keep(machine.check)
    began = machine.now_s
    machine.work(0.0, 100_000)
    assert machine.now_s - began == pytest.approx(99.0, abs=0.2)


def test_a_pause_can_be_cancelled() -> None:
    machine = Machine(Budget(read_bytes_per_s=1))

    class Stopped(Exception):
        pass

    def check() -> None:
        machine.checks += 1
        if machine.checks > 3:
            raise Stopped("enough")

    machine.read = 1 << 30
    with pytest.raises(Stopped, match="^enough$"):
        machine.throttle.keep(check)
    assert machine.now_s < 1001.0


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (Budget(), Budget(10, 20, 3), Budget(10, 20, 3)),
        (Budget(50, 0, 2), Budget(80, 7, 1), Budget(50, 7, 1)),
        (Budget(), Budget(), Budget()),
    ],
)
def test_an_action_lowers_a_budget_and_never_raises_it(one: Budget, other: Budget, both: Budget) -> None:
    assert one.lowered(other) == other.lowered(one) == both


@pytest.mark.parametrize("workers", [0, 2])
def test_a_budget_changes_no_answer(tmp_path: Path, workers: int) -> None:
    grow(tmp_path, {f"{index}": b"x" * 100 for index in range(50)})
    bound = Asked(hashes(tmp_path), workers=workers, budget=Budget(cpu_percent=400, read_bytes_per_s=10**6))
    assert bound.all() == Asked(hashes(tmp_path), workers=0).all()
