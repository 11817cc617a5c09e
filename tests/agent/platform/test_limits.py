"""Tests of what a child takes, and of who gets it instead."""

import os
from pathlib import Path

from agent.platform.limits import yield_to_others
from tests.support.apart import run_apart

_AUTOGROUP = Path("/proc/self/autogroup")


def told() -> tuple[int, str]:
    """Return the process's own priority, and that of its session where the kernel has one."""
    said = _AUTOGROUP.read_text().split()[-1] if _AUTOGROUP.exists() else ""
    return os.nice(0), said


def after_yielding() -> tuple[int, str]:
    yield_to_others()
    return told()


def test_who_leads_a_session_yields_with_all_of_it() -> None:
    assert run_apart(after_yielding, prepare=os.setsid) == [19, "19" if _AUTOGROUP.exists() else ""]


def test_who_was_started_from_a_shell_does_not_lower_the_shell() -> None:
    before = told()
    assert run_apart(after_yielding) == [19, before[1]]
    assert told() == before
