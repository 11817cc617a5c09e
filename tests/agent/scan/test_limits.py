"""Tests of reporting only the newest, the oldest, or the first matches."""

import os
from pathlib import Path
from typing import Any

import pytest

from agent.execute import run_operation
from agent.module import Context, Limits
from agent.scan import settling
from tests.agent.scan.runs import find, grow, paths, refused, run

AGES = {"a": 5, "b": 1, "c": 3, "d/e": 2, "d/f": 4, "g": 1}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    grow(tmp_path, {name: name.encode() for name in AGES})
    for name, age in AGES.items():
        os.utime(tmp_path / name, ns=(0, 10**18 - age * 10**9))
    return tmp_path


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"newest": 1}, ["b"]),
        ({"newest": 3}, ["b", "g", "d/e"]),
        ({"oldest": 2}, ["a", "d/f"]),
        ({"newest": 99}, ["b", "g", "d/e", "c", "d/f", "a"]),
        ({"oldest": 5, "matchlimit": 1}, ["a", "d/f", "c", "d/e", "b"]),
        ({"newest": 0}, ["a", "b", "c", "g", "d/e", "d/f"]),
    ],
)
def test_the_newest_and_the_oldest_come_in_their_order_and_of_equals_the_first_met(
    tree: Path, options: dict[str, Any], found: list[str]
) -> None:
    assert find(tree, names=["."], options=options) == found


def test_what_was_left_away_is_said_and_is_no_cut_of_the_answer(tree: Path) -> None:
    search = {"paths": [str(tree)], "names": ["."]}
    result = run(s1={**search, "options": {"newest": 2}}, s2={**search, "options": {"oldest": 6}})
    assert result.notes == ("search s1: only the 2 newest of its matches are reported",)
    assert (result.status, result.truncated) == ("ok", False)
    assert len(paths(result, tree, "s2")) == 6


def test_what_can_no_longer_be_among_the_newest_is_not_read(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was found in a directory counts in the next one.
    monkeypatch.setattr(settling, "LAG", 1)
    options = {"newest": 1, "returnhashes": ["sha256"], "matchall": True}
    result = run(s1={"paths": [str(tree)], "names": ["."], "options": options})
    # The four of the first directory; in the other one all are older.
    assert result.statistics["files_read"] == 4


def test_a_file_without_the_content_does_not_take_the_place_of_one_that_has_it(tree: Path) -> None:
    assert find(tree, contents=["[^bg]"], options={"newest": 2}) == ["d/e", "c"]


def test_what_was_kept_is_reported_also_where_the_time_is_over(tree: Path) -> None:
    ticks = iter(range(10_000))
    context = Context(limits=Limits(wall_s=8), monotonic=lambda: float(next(ticks)))
    # Two checks of which any is enough are judged file by file, with a look at the clock for each.
    search = {"paths": [str(tree)], "names": ["."], "sizes": [">0"], "options": {"newest": 4}}
    result = run_operation("file", {"searches": {"s1": search}}, context)
    assert (result.status, result.truncated) == ("timed-out", True)
    assert 0 < len(result.records) < 5


def test_newest_and_oldest_exclude_each_other() -> None:
    assert "exclude each other" in refused(names=["."], options={"newest": 1, "oldest": 1})
