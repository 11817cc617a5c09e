"""Tests of what a persistent module is given: pacing, waiting, and when something counts as told."""

import json
import os
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.watching import MAX_REPORT_BYTES, TOGETHER_S, Pacer, Report, WatchContext

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Paced:
    """A pacer, and what it has sent."""

    def __init__(self, per_minute: int) -> None:
        self.clock = Clock()
        self.sent: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.pacer = Pacer(per_minute, self._send, clock=lambda: NOW, monotonic=self.clock)

    def _send(self, body: bytes) -> None:
        self.bodies.append(body)
        self.sent.append(json.loads(body))

    def offer(self, number: int, kind: str = "changed", severity: str = "low", subject: str = "/x") -> None:
        for at in range(number):
            self.pacer.offer(Report(kind, severity, f"{subject}{at}", {"path": f"{subject}{at}"}))


def test_a_few_reports_pass_as_they_are() -> None:
    paced = Paced(20)
    paced.offer(3)
    assert [one["record"]["path"] for one in paced.sent] == ["/x0", "/x1", "/x2"]
    assert paced.pacer.due_s is None


@pytest.mark.slow
def test_a_million_reports_are_a_few_alerts_that_say_a_million() -> None:
    paced = Paced(20)
    paced.offer(1_000_000)
    assert len(paced.sent) == 10
    paced.clock.now = TOGETHER_S
    paced.pacer.tell_together()
    last = paced.sent[-1]
    assert sum(one["count"] for one in paced.sent) == 1_000_000
    assert (last["count"], last["record"]["together"]) == (999_990, True)
    assert last["record"]["examples"] == ["/x10", "/x11", "/x12", "/x13", "/x14"]


def test_what_is_told_together_has_the_worst_severity_among_it_and_each_kind_its_own() -> None:
    paced = Paced(2)
    paced.offer(2)
    paced.offer(1, severity="critical")
    paced.offer(1, kind="removed")
    paced.clock.now = TOGETHER_S
    paced.pacer.tell_together()
    assert [(one["kind"], one["severity"], one["count"]) for one in paced.sent[1:]] == [
        ("changed", "critical", 2),
        ("removed", "low", 1),
    ]


def test_what_is_told_together_waits_until_it_is_due() -> None:
    paced = Paced(2)
    paced.offer(5)
    paced.pacer.tell_together()
    assert len(paced.sent) == 1
    assert paced.pacer.due_s == TOGETHER_S


def test_a_rate_that_was_used_up_comes_back_with_time() -> None:
    paced = Paced(20)
    paced.offer(10)
    paced.clock.now = 60.0
    paced.offer(10)
    assert len(paced.sent) == 20


def test_a_report_that_is_too_long_is_told_as_far_as_it_fits() -> None:
    paced = Paced(20)
    path = "/\u0001" * 4096
    paced.pacer.offer(Report("created", "low", path, {"path": path, "size_bytes": 1, "x": [path]}))
    assert len(paced.bodies[0]) <= MAX_REPORT_BYTES
    assert paced.sent[0]["record"] == {"cut": True, "path": path[:200], "size_bytes": 1}


class Kept:
    """A context whose resident is a pipe: a byte for each alert that it has kept."""

    def __init__(self, per_minute: int = 600) -> None:
        self.read, self.write = os.pipe()
        self.states: list[dict[str, Any]] = []
        self.paced = Paced(per_minute)
        self.context = WatchContext(
            save=lambda _name, _data: None,
            load=lambda _name: None,
            pacer=self.paced.pacer,
            channel=self.read,
            take_kept=self._take,
            send_state=lambda state: self.states.append(json.loads(state)),
        )

    def _take(self) -> int:
        data = os.read(self.read, 100)
        if not data:
            raise EOFError
        return len(data)

    def close(self) -> None:
        os.close(self.read)


def test_alerts_count_as_told_when_the_resident_has_kept_them() -> None:
    kept = Kept()
    kept.context.note_sent()
    kept.context.note_sent()
    os.write(kept.write, b"..")
    assert kept.context.settle()
    os.close(kept.write)
    kept.close()


def test_what_waits_to_be_told_together_does_not_count_as_told() -> None:
    kept = Kept(per_minute=2)
    kept.paced.offer(3)
    assert not kept.context.settle()
    os.close(kept.write)
    kept.close()


def test_a_watch_ends_when_the_agent_is_gone() -> None:
    kept = Kept()
    os.close(kept.write)
    with pytest.raises(EOFError, match="^$"):
        kept.context.wait([], 1.0)
    kept.close()


def test_a_watch_tells_how_it_is_with_what_it_has_counted() -> None:
    kept = Kept()
    kept.paced.offer(2)
    kept.context.tell({"entries": 3})
    assert kept.states == [{"entries": 3, "reports": {"changed": 2}}]
    os.close(kept.write)
    kept.close()
