"""Tests of what a child takes, and of who gets it instead."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.platform.limits import yield_to_others
from tests.agent.scan.runs import grow, run
from tests.support.apart import run_apart

_AUTOGROUP = Path("/proc/self/autogroup")


def told() -> tuple[int, str]:
    """Return the process's own priority, and that of its session where the kernel has one."""
    return os.nice(0), session_priority()


def session_priority() -> str:
    """Return the priority of the session, or nothing where there is none to tell.

    The kernel shows an empty file to who is still in the first group of all (kernel/sched/autogroup.c).
    """
    said = _AUTOGROUP.read_text().split() if _AUTOGROUP.exists() else []
    return said[-1] if said else ""


def become_child() -> None:
    """Be what a command runs in: the leader of a session, of the lowest priority."""
    os.setsid()
    yield_to_others()


def after_scan(root: Path) -> Callable[[], Any]:
    def act() -> Any:
        run(s1={"paths": [str(root)], "contents": ["x"]})
        return told()

    return act


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    return grow(tmp_path, {f"{number:04}": b"x" for number in range(600)})


@pytest.mark.slow
def test_a_large_scan_gives_way_to_other_sessions_too(crowd: Path) -> None:
    # A process that leads a session of its own is in a group of it, if anywhere.
    lowest = "19" if run_apart(session_priority, os.setsid) else ""
    assert run_apart(after_scan(crowd), become_child) == [19, lowest]


@pytest.mark.slow
def test_a_small_question_keeps_the_share_of_its_session(crowd: Path) -> None:
    before = run_apart(told, os.setsid)
    assert run_apart(after_scan(crowd / "0000"), become_child) == [19, before[1]]


@pytest.mark.slow
def test_who_was_started_from_a_shell_does_not_lower_the_shell(crowd: Path) -> None:
    before = told()
    assert run_apart(after_scan(crowd), yield_to_others) == [19, before[1]]
    assert told() == before


@pytest.mark.slow
def test_a_leader_of_a_session_that_did_not_yield_keeps_its_share(crowd: Path) -> None:
    before = run_apart(told, os.setsid)
    assert run_apart(after_scan(crowd), os.setsid) == before
