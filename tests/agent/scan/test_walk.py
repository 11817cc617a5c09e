"""Tests of the walk on real trees that were made to break it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.module import Context
from agent.scan import batching, listing, walk
from tests.agent.scan.runs import find, grow, paths, run, step
from tests.support.apart import become_nobody, run_apart
from tests.support.descriptors import lasting_descriptors, open_descriptors

LEVELS = 2000


@pytest.fixture
def abyss(tmp_path: Path) -> Iterator[Path]:
    """A tree deeper than any path may be long, with a file at each hundredth level."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for level in range(LEVELS):
        name = f"level{level:04}"
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        # A sibling that is visited on the way up shows that the parents can be found again.
        os.mkdir("zz", dir_fd=descriptor)
        if level % 100 == 0:
            os.close(os.open("found", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
            os.close(os.open("zz/later", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    yield tmp_path
    remove_deep(tmp_path)


def remove_deep(root: Path) -> None:
    """Take a deep tree apart from the top: each level is moved up before its parent is removed."""
    top = root / "level0000"
    while top.exists():
        for entry in top.glob("level*"):
            entry.rename(root / "next")
        shutil.rmtree(top)
        if (root / "next").exists():
            (root / "next").rename(top)


@pytest.mark.slow
def test_a_tree_deeper_than_any_path_is_walked_whole_in_few_descriptors(abyss: Path) -> None:
    before = lasting_descriptors()
    highest: list[int] = []

    def watch() -> bool:
        highest.append(open_descriptors())
        return False

    result = run(Context(is_cancelled=watch), s1={"paths": [str(abyss)], "names": ["^(found|later)$"]})
    assert len(result.records) == 2 * LEVELS // 100
    assert (result.statistics["errors"], result.notes) == (0, ())
    assert max(len(record["path"]) for record in result.records) > 4096 * 4
    assert max(highest) - before < walk.OPEN_DIRECTORIES + 10
    assert lasting_descriptors() <= before


def test_files_come_before_directories_and_both_are_sorted(tmp_path: Path) -> None:
    grow(tmp_path, {"b": b"", "a": b"", "c/x": b"", "B/y": b"", "c/d/z": b"", ".h": b""})
    assert find(tmp_path, names=["."]) == [".h", "a", "b", "B/y", "c/x", "c/d/z"]


def test_a_directory_larger_than_a_sorted_run_is_seen_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SORTED_NAMES", 10)
    monkeypatch.setattr(batching, "BATCH_NAMES", 4)
    grow(tmp_path, {f"{number:03}": b"" for number in range(95)})
    assert sorted(find(tmp_path, names=["."])) == [f"{number:03}" for number in range(95)]


def test_links_to_directories_and_dangling_links_and_special_files_are_counted(tmp_path: Path) -> None:
    grow(tmp_path, {"d/in": b"x", "file": b"abc"})
    (tmp_path / "dirlink").symlink_to("d")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "fifolink").symlink_to("fifo")
    result = run(s1={"paths": [str(tmp_path)], "contents": ["!nothing"], "options": {"matchall": True}})
    assert paths(result, tmp_path) == ["file", "link", "d/in"]
    assert [record["type"] for record in result.records] == ["file", "link", "file"]
    assert result.statistics["skipped"] == {"dangling-link": 2, "directory-link": 2, "special-file": 2}


def test_a_link_to_a_file_anywhere_is_judged_by_its_own_name_and_the_targets_content(tmp_path: Path) -> None:
    grow(tmp_path, {"in/other": b"", "out/target": b"secret\n"})
    (tmp_path / "in/link").symlink_to("../out/target")
    found = find(tmp_path / "in", names=["^link$"], contents=["^secret$"], sizes=["7"], modes=["^-"])
    assert found == ["link"]


def test_hard_links_are_two_names_and_both_are_reported(tmp_path: Path) -> None:
    grow(tmp_path, {"one": b"abc"})
    os.link(tmp_path / "one", tmp_path / "two")
    assert find(tmp_path, contents=["abc"]) == ["one", "two"]


def test_made_up_file_systems_are_not_entered_from_above_but_from_a_root_inside(tmp_path: Path) -> None:
    own = f"/proc/{os.getpid()}/task/{os.getpid()}"
    search = {"names": ["^(comm|limits|kmsg)$"], "options": {"matchall": True, "maxdepth": 2}}
    above = run(s1={**search, "paths": ["/"]}, s2={**search, "paths": [own]})
    assert not [record for record in above.records if record["search"] == "s1" and "/proc/" in record["path"]]
    assert [record["path"] for record in above.records if record["search"] == "s2"] == [
        f"{own}/comm",
        f"{own}/limits",
    ]
    assert "/proc: proc is not searched from above" in above.notes
    assert above.statistics["skipped"]["pseudo-filesystem"] >= 1


def test_a_directory_that_vanishes_during_the_walk_is_noted_and_the_walk_goes_on(tmp_path: Path) -> None:
    grow(tmp_path, {"a/x": b"", "b/x": b"", "c/x": b"", "first": b""})
    context = Context()
    walked = step(context, tmp_path, names=["."])
    assert next(walked) == "first"
    shutil.rmtree(tmp_path / "b")
    assert list(walked) == ["a/x", "c/x"]
    assert context.statistics["skipped"] == {"vanished": 1}
    assert context.notes == [f"{tmp_path}/b: vanished while the scan ran"]


def test_a_directory_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path) -> None:
    grow(tmp_path, {"in/a/x": b"", "in/first": b"", "out/secret": b""})
    context = Context()
    walked = step(context, tmp_path / "in", names=["."])
    assert next(walked) == "first"
    shutil.rmtree(tmp_path / "in/a")
    (tmp_path / "in/a").symlink_to(tmp_path / "out")
    assert list(walked) == []
    assert context.notes == [f"{tmp_path}/in/a: was replaced while it was walked"]


def test_a_directory_that_is_moved_while_the_walk_is_below_costs_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With one directory kept open the walk has to find each parent again on its way up.
    monkeypatch.setattr(walk, "OPEN_DIRECTORIES", 1)
    grow(
        tmp_path,
        {"in/a/b/c/first": b"", "in/a/b/c/d/x": b"", "in/a/b/z/y": b"", "in/a/z/y": b"", "in/q/y": b""},
    )
    context = Context()
    walked = step(context, tmp_path / "in", names=["."])
    assert next(walked) == "a/b/c/first"
    (tmp_path / "in/a/b").rename(tmp_path / "elsewhere")
    assert list(walked) == ["a/b/c/d/x", "a/b/z/y", "a/z/y", "q/y"]
    assert context.notes == []


def test_a_parent_that_cannot_be_found_again_is_said_and_the_rest_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "OPEN_DIRECTORIES", 1)
    grow(tmp_path, {"in/a/b/c/first": b"", "in/a/b/c/d/x": b"", "in/a/b/z/y": b"", "in/q/y": b""})
    context = Context()
    walked = step(context, tmp_path / "in", names=["."])
    assert next(walked) == "a/b/c/first"
    (tmp_path / "in/a/b/c").rename(tmp_path / "elsewhere")
    (tmp_path / "in/a/b").rename(tmp_path / "gone")
    assert list(walked) == ["a/b/c/d/x", "q/y"]
    assert context.notes == [
        f"{tmp_path}/in/a/b: moved while it was walked: 1 of its directories were not searched"
    ]


def test_what_may_not_be_read_is_an_error_by_name_and_the_walk_goes_on(tmp_path: Path) -> None:
    grow(tmp_path, {"open/a": b"abc", "closed/b": b"abc", "open/secret": b"abc"})
    (tmp_path / "closed").chmod(0)
    (tmp_path / "open/secret").chmod(0)
    for directory in (tmp_path, *tmp_path.parents):
        if directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o005)
        if directory.parent == Path("/tmp"):
            break
    notes, statistics, found = as_nobody(tmp_path)
    (tmp_path / "closed").chmod(0o755)
    assert found == [f"{tmp_path}/open/a"]
    assert notes == [f"{tmp_path}/closed: Permission denied", f"{tmp_path}/open/secret: Permission denied"]
    assert (statistics["errors"], statistics["files_read"]) == (2, 1)


def as_nobody(root: Path) -> Any:
    """Search contents as a user without rights, in a child where we are root."""

    def search() -> Any:
        result = run(s1={"paths": [str(root)], "contents": ["!nothing"], "options": {"matchall": True}})
        return result.notes, result.statistics, [record["path"] for record in result.records]

    return run_apart(search, prepare=become_nobody)
