"""Tests of the resident's side of persistent modules: real processes that end, lie, and are ended."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.watch_config import FswatchConfig
from tests.support.resident import ROOT, is_alive, poll_until
from tests.support.watching import MakeWatched, Watched


def fswatch(place: Path) -> dict[str, dict[str, Any]]:
    return {"fswatch": FswatchConfig(paths=(str(place),), recursive=(), settle_s=1)._asdict()}


def pid_of(watched: Watched) -> int:
    pid = watched.watchers._watchers[0].pid
    assert pid is not None
    return pid


def is_up(watched: Watched) -> bool:
    return bool(watched.state("fswatch")["running"] and watched.state("fswatch")["told"])


def saying(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have children run some code of the test's instead of ours, by the seam that the zip uses."""
    full = f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); from agent.runtime import frames\n{code}"
    startup = SimpleNamespace(pass_fds=(), child_argv=lambda *_words: [sys.executable, "-I", "-c", full])
    monkeypatch.setitem(sys.modules, "mig_startup", startup)


@pytest.mark.slow
def test_a_watcher_that_is_killed_is_told_recorded_and_started_again(
    make_watched: MakeWatched, tmp_path: Path
) -> None:
    watched = make_watched(fswatch(tmp_path))
    watched.watchers.start()
    watched.run_until(lambda: is_up(watched))
    first = pid_of(watched)
    os.kill(first, signal.SIGKILL)
    watched.run_until(lambda: watched.state("fswatch")["ended"] == 1 and is_up(watched))
    assert pid_of(watched) != first
    [alert] = watched.told("watcher-ended")
    assert (alert.module, alert.severity) == ("agent", "high")
    assert alert.record == {"module": "fswatch", "reason": "its process ended with signal 9"}
    assert watched.recorded == [("fswatch", "child-failed", "its process ended with signal 9")]
    assert watched.watchers.describe() == "fswatch running, ended 1 times: its process ended with signal 9"


def test_a_watcher_ends_with_the_agent(make_watched: MakeWatched, tmp_path: Path) -> None:
    watched = make_watched(fswatch(tmp_path))
    watched.watchers.start()
    watched.run_until(lambda: is_up(watched))
    pid = pid_of(watched)
    watched.watchers.close()
    poll_until(lambda: not is_alive(pid))


def test_a_module_that_cannot_work_here_says_why_and_is_not_tried_for_long(
    make_watched: MakeWatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(
        monkeypatch,
        'frames.write_frame(1, frames.ENDED, b\'{"code":"unsupported","detail":"no such kernel"}\')',
    )
    watched = make_watched({"fswatch": {}})
    watched.watchers.start()
    watched.run_until(lambda: watched.state("fswatch")["unsupported"])
    [alert] = watched.told("watcher-ended")
    assert (alert.severity, alert.record["reason"]) == ("medium", "no such kernel")
    assert watched.recorded == [("fswatch", "unsupported", "no such kernel")]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("os.write(1, b'what')\nos.close(1)", "its process ended with"),
        ("os.write(1, frames.HEADER.pack(b'A', 3) + b'[1]')", "unexpected frame b'A'"),
        ("os.write(1, frames.HEADER.pack(frames.ALERT, 1 << 20))", "frame b'L' of 1048576 bytes"),
        ("frames.write_frame(1, frames.ALERT, b'{}')", "a report has other members"),
        ("frames.write_frame(1, frames.STATE, b'[]')", "says something else than an object"),
    ],
)
def test_a_watcher_that_says_something_else_is_ended_and_why_is_told(
    make_watched: MakeWatched, monkeypatch: pytest.MonkeyPatch, said: str, reason: str
) -> None:
    saying(monkeypatch, f"{said}\nsys.stdin.read()")
    watched = make_watched({"fswatch": {}})
    watched.watchers.start()
    watched.run_until(lambda: bool(watched.told("watcher-ended")))
    assert reason in watched.told("watcher-ended")[0].record["reason"]


def test_a_watcher_that_floods_is_ended_and_costs_few_alerts(
    make_watched: MakeWatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = (
        'b\'{"kind":"changed","severity":"low","count":1,"first":"2026-11-20T12:00:00Z",'
        '"last":"2026-11-20T12:00:00Z","record":{}}\''
    )
    saying(monkeypatch, f"while True:\n    frames.write_frame(1, frames.ALERT, {body})")
    watched = make_watched({"fswatch": {}}, per_minute=5)
    watched.watchers.start()
    watched.run_until(lambda: bool(watched.told("watcher-ended")))
    assert "more alerts than it was told to" in watched.told("watcher-ended")[0].record["reason"]
    assert len(watched.told("changed")) <= 6
    assert sum(alert.suppressed for alert in watched.told()) > 50


def test_no_module_that_is_on_is_said_as_none(make_watched: MakeWatched) -> None:
    assert make_watched().watchers.describe() == "none"
