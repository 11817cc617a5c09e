"""Tests of fswatch as it runs: a real watcher process on files that the test makes."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.module import Context
from agent.modules.fswatch import Params, run
from agent.watch_config import FswatchConfig
from tests.support.watching import MakeWatched, Watched


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a directory with a few files."""
    place = tmp_path / "etc"
    (place / "cron.d").mkdir(parents=True)
    (place / "passwd").write_text("root")
    (place / "cron.d" / "job").write_text("@daily")
    (place / "mtab").symlink_to("/proc/mounts")
    return place


def config(place: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    told = FswatchConfig(paths=(), recursive=(str(place),), settle_s=1, cpu_percent=100)
    return {"fswatch": {**told._asdict(), **changes}}


def settled(watched: Watched) -> Callable[[], bool]:
    return lambda: bool(watched.state("fswatch")["told"].get("saved"))


def begin(make: MakeWatched, place: Path, **changes: Any) -> Watched:
    """Start a watch, and return when its baseline is on the disk."""
    watched = make(config(place, **changes))
    watched.watchers.start()
    watched.run_until(settled(watched))
    return watched


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.slow
def test_what_changes_is_told_with_both_digests_and_never_with_content(
    make_watched: MakeWatched, tree: Path
) -> None:
    watched = begin(make_watched, tree)
    assert [alert.kind for alert in watched.told()] == ["baseline-created"]
    (tree / "passwd").write_text("a secret")
    watched.run_until(lambda: bool(watched.told("changed")))
    [alert] = watched.told("changed")
    assert alert.severity == "critical"
    assert alert.record == {
        "path": str(tree / "passwd"),
        "sha256_before": sha256("root"),
        "sha256": sha256("a secret"),
        "size_bytes_before": 4,
        "size_bytes": 8,
    }
    assert not any(b"secret" in body for body in watched.published)


@pytest.mark.slow
def test_a_new_directory_is_watched_with_what_was_put_into_it_at_once(
    make_watched: MakeWatched, tree: Path
) -> None:
    watched = begin(make_watched, tree)
    (tree / "new" / "deep").mkdir(parents=True)
    (tree / "new" / "deep" / "file").write_text("x")
    deep = str(tree / "new" / "deep" / "file")
    watched.run_until(lambda: deep in watched.paths("created"))
    (tree / "new" / "deep" / "file").write_text("y")
    watched.run_until(lambda: deep in watched.paths("changed"))


@pytest.mark.slow
def test_mode_link_and_removal_are_told_each_in_its_kind(make_watched: MakeWatched, tree: Path) -> None:
    watched = begin(make_watched, tree)
    (tree / "passwd").chmod(0o4755)
    (tree / "mtab").unlink()
    (tree / "mtab").symlink_to("/tmp/mine")
    (tree / "cron.d" / "job").unlink()
    watched.run_until(lambda: {"attributes", "link", "removed"} <= {one.kind for one in watched.told()})
    [attributes] = watched.told("attributes")
    assert attributes.severity == "critical"
    assert (attributes.record["mode_before"], attributes.record["mode"]) == ("-rw-r--r--", "urwxr-xr-x")
    [link] = watched.told("link")
    assert (link.record["target_before"], link.record["target"]) == ("/proc/mounts", "/tmp/mine")
    assert watched.paths("removed") == [str(tree / "cron.d" / "job")]


@pytest.mark.slow
def test_what_changed_while_the_agent_was_down_is_told_at_its_next_start(
    make_watched: MakeWatched, tree: Path
) -> None:
    begin(make_watched, tree).close()
    status = (tree / "passwd").stat()
    (tree / "passwd").write_text("evil")
    os.utime(tree / "passwd", ns=(status.st_atime_ns, status.st_mtime_ns))
    (tree / "cron.d" / "job").unlink()
    watched = make_watched(config(tree))
    watched.watchers.start()
    watched.run_until(settled(watched))
    assert sorted(alert.kind for alert in watched.told()) == ["changed", "removed"]
    assert watched.paths("changed") == [str(tree / "passwd")]


@pytest.mark.slow
def test_a_change_that_nobody_was_told_of_is_told_after_a_crash(
    make_watched: MakeWatched, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = begin(make_watched, tree)
    # The resident dies before it has the alert: the watcher's baseline must not have moved on.
    monkeypatch.setattr(watched.alerts, "take", _dies)
    (tree / "passwd").write_text("evil")
    with pytest.raises(KeyboardInterrupt, match="the resident dies"):
        watched.run_until(lambda: False)
    again = make_watched(config(tree))
    again.watchers.start()
    again.run_until(lambda: again.paths("changed") == [str(tree / "passwd")])


def _dies(*_told: object) -> bool:
    raise KeyboardInterrupt("the resident dies")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_baseline_is_told_and_begun_anew(
    make_watched: MakeWatched, tree: Path, tmp_path: Path, damage: str
) -> None:
    begin(make_watched, tree).close()
    kept = tmp_path / "state" / "watch" / "fswatch" / "baseline"
    data = kept.read_bytes()
    kept.write_bytes(data[:-10] if damage == "cut" else data.replace(sha256("root").encode(), b"0" * 64))
    watched = make_watched(config(tree))
    watched.watchers.start()
    watched.run_until(settled(watched))
    assert [(alert.kind, alert.severity) for alert in watched.told()] == [("baseline-damaged", "critical")]


@pytest.mark.slow
def test_a_flood_of_changes_makes_few_alerts_that_count_them_all(
    make_watched: MakeWatched, tree: Path
) -> None:
    watched = make_watched(config(tree), per_minute=20)
    watched.watchers.start()
    watched.run_until(settled(watched))
    for number in range(2000):
        (tree / f"file{number}").write_text("x")
    watched.run_until(lambda: watched.state("fswatch")["told"].get("reports", {}).get("created") == 2000)
    assert len(watched.told("created")) <= 10


@pytest.mark.slow
def test_names_that_are_hostile_are_told_harmlessly(make_watched: MakeWatched, tree: Path) -> None:
    watched = begin(make_watched, tree)
    raw = os.fsencode(tree) + b"/\x1b[31m\xff\n"
    with open(raw, "wb"):  # noqa: PTH123  (bytes)
        pass
    watched.run_until(lambda: bool(watched.told("created")))
    [alert] = watched.told("created")
    assert alert.record["path"].endswith("/\x1b[31m\\xff\n")
    assert alert.record["path_b64"]


@pytest.mark.slow
def test_what_is_excluded_or_beside_a_plain_place_is_left_alone(
    make_watched: MakeWatched, tree: Path
) -> None:
    watched = begin(make_watched, tree, recursive=[], paths=[str(tree)], excludes=["*.swp"])
    (tree / "cron.d" / "job").write_text("below a place that is not recursive")
    (tree / "x.swp").write_text("excluded")
    (tree / "seen").write_text("x")
    watched.run_until(lambda: bool(watched.told("created")))
    assert watched.paths("created") == [str(tree / "seen")]
    assert not watched.told("changed")


def test_the_question_tells_how_the_watch_is() -> None:
    told = {"since": "2026-11-20T12:00:00Z", "entries": 7, "directories": 2, "complete": True}
    state = {"running": True, "ended": 1, "reason": "signal 9", "unsupported": False, "told": told}
    [record] = run(Params(), Context(watchers={"fswatch": state}))
    assert (record.running, record.ended, record.entries, record.since) == (True, 1, 7, told["since"])


@pytest.mark.parametrize(("watchers", "note"), [({}, "[agent.fswatch]"), (None, "without an agent")])
def test_where_no_watch_is_configured_nothing_is_found_and_said(watchers: Any, note: str) -> None:
    context = Context(watchers=watchers)
    assert list(run(Params(), context)) == []
    assert note in context.notes[0]
