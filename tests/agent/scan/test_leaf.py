"""Directories that hold no others, listed by whoever judges their files: what is told stays the same."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.scan import walk, worker
from agent.scan.coverage import Coverage
from agent.scan.leaf import COUNTING_TYPES, is_leaf, list_leaf, most_names
from agent.scan.mounts import Mounts
from agent.scan.run import Effort
from agent.scan.worker import LISTED_NAMES
from tests.agent.scan.runs import grow
from tests.agent.scan.test_independence import placed, searches, tree
from tests.agent.scan.test_pool import Asked, hashes, kill_at, name_of, nothing_is_left

__all__ = ["nothing_is_left", "tree"]


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory on a file system that counts directories in its links, whatever tests lie on elsewhere."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        assert Mounts().stated_type(Path(name).stat().st_dev) in COUNTING_TYPES
        yield Path(name)


@pytest.fixture(scope="module")
def counted(tree: Path) -> Iterator[Path]:
    """The tree of the property of independence, on such a file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        shutil.copytree(tree, Path(name) / "tree", symlinks=True, ignore=shutil.ignore_patterns("fifo"))
        os.mkfifo(Path(name) / "tree/aa/x/fifo")
        yield Path(name) / "tree"


def test_a_directory_without_others_in_it_is_told_by_its_links_where_the_file_system_counts_them(
    root: Path,
) -> None:
    grow(root, {"files/a": b"", "files/b": b"", "more/a": b"", "more/below/b": b""})
    (root / "empty").mkdir()
    (root / "files/link").symlink_to("../more")
    told = {path.name: is_leaf(path.stat()) for path in root.iterdir()}
    assert told == {"files": True, "more": False, "empty": True}


def test_a_large_directory_is_listed_by_the_walk_which_shares_out_its_names(root: Path) -> None:
    grow(root, {f"{index:05}": b"" for index in range(1000)})
    assert not is_leaf(root.stat())


def test_about_as_many_names_are_expected_as_a_directory_may_hold(root: Path) -> None:
    assert most_names(root.stat()) == 1
    grow(root, {f"{index:03}": b"" for index in range(300)})
    assert 150 <= most_names(root.stat()) <= 600


def test_files_and_links_are_listed_in_order_and_all_else_is_said(root: Path) -> None:
    notes: list[str] = []
    coverage = Coverage(notes.append)
    grow(root, {"b": b"", "a\n": b"", "made/late": b""})
    (root / "link").symlink_to("b")
    os.mkfifo(root / "fifo")
    descriptor = os.open(root, os.O_RDONLY)
    try:
        assert list_leaf(descriptor, os.fsencode(root), coverage) == (
            [b"a\n", b"b", b"link"],
            {b"link": "link"},
        )
    finally:
        os.close(descriptor)
    assert notes == [f"{root}/made: was made while the scan ran, and not searched"]
    assert coverage.statistics()["skipped"] == {"special-file": 1}
    assert coverage.statistics()["errors"] == 1


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(found=st.lists(searches(), min_size=1, max_size=3), names=st.integers(1, 5))
def test_the_answer_is_the_same_whoever_lists(counted: Path, found: list[dict[str, Any]], names: int) -> None:
    named = {f"s{number}": placed(search, counted) for number, search in enumerate(found)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.scan.worker.LISTED_NAMES", names)
        patch.setattr(walk, "COUNTING_TYPES", frozenset())
        expected = Asked(named, workers=0).all()
        patch.setattr(walk, "COUNTING_TYPES", COUNTING_TYPES)
        for workers, effort in ((0, Effort()), (1, Effort(here_files=3)), (2, Effort(0, 0, defer_bytes=6))):
            assert Asked(named, workers=workers, effort=effort).all() == expected


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_a_worker_that_dies_in_the_middle_of_a_directory_that_it_listed_costs_the_file_that_it_was_at(
    root: Path, number: signal.Signals
) -> None:
    grow(root, {f"d{n % 7}/{n:03}": b"%d" % n for n in range(700)})
    matches, statistics, notes = Asked(hashes(root), examine=kill_at(b"123", number)).all()
    expected = [f"{n:03}" for d in range(7) for n in range(d, 700, 7) if n != 123]
    assert [name_of(match) for match in matches] == expected
    assert notes == [f"{root}/d4/123: not judged: the process that read it was killed by {number.name}"]
    assert (statistics["errors"], statistics["files_seen"], statistics["files_read"]) == (1, 700, 699)


def test_a_directory_that_changes_between_two_workers_is_judged_as_the_second_finds_it(root: Path) -> None:
    grow(root, {f"d/{n:03}": b"x" for n in range(LISTED_NAMES + 44)})

    def examine(_descriptor: int, _status: os.stat_result, path: bytes) -> bytes:
        if path.endswith(b"/280"):
            # What comes first is gone, so that every other file has another place in the listing.
            (root / "d/000").unlink()
            (root / "d/281").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return b"seen"

    matches, statistics, notes = Asked(hashes(root), examine=examine).all()
    lost = {0, 280, 281}
    assert [name_of(match) for match in matches] == [
        f"{n:03}" for n in range(LISTED_NAMES + 44) if n not in lost
    ]
    assert notes == [f"{root}/d/280: not judged: the process that read it was killed by SIGKILL"]
    assert statistics["errors"] == 1


def test_large_files_of_a_directory_that_a_worker_listed_come_back_under_their_names(root: Path) -> None:
    contents = {f"{n:02}": os.urandom(70 << 10 if n % 3 else 5) for n in range(20)}
    grow(root / "d", contents)
    (root / "d/link").symlink_to("01")
    matches, statistics, notes = Asked(hashes(root)).all()
    assert [name_of(match) for match in matches] == [*sorted(contents), "link"]
    assert matches[-1].kind == "link"
    assert matches[-1].digests == matches[1].digests
    assert (statistics["files_seen"], notes) == (21, [])


BY_STATUS: dict[str, dict[str, Any]] = {
    "none": {"sizes": [">9"]},
    "some": {"sizes": ["3"], "modes": ["rw"], "options": {"matchall": True}},
    "all": {"sizes": ["<9"]},
    "any": {"sizes": ["3"], "modes": ["x"], "options": {"matchall": False}},
    "others": {"sizes": ["3"], "options": {"matchall": True, "mismatch": ["size"]}},
    "enough": {"sizes": [">2"], "options": {"matchall": True, "matchlimit": 150}},
}


@pytest.mark.parametrize("search", [BY_STATUS[name] for name in BY_STATUS if name != "any"])
def test_a_directory_of_files_of_which_the_status_is_asked_is_judged_by_one_look_at_each(
    root: Path, monkeypatch: pytest.MonkeyPatch, search: dict[str, Any]
) -> None:
    grow(root, {f"d{n % 7}/{n:03}": b"x" * (n % 8) for n in range(700)})
    asked = {"s1": {"paths": [str(root)], **search}}
    expected = Asked(asked, workers=0).all()
    # Had somebody to list one, it would be named as not judged.
    monkeypatch.setattr(worker, "list_leaf", lambda *_about: 1 // 0)
    assert Asked(asked, effort=Effort(0, 0)).all() == expected


def make_link(at: Path) -> None:
    (at / "400").unlink()
    (at / "400").symlink_to("401")


def make_fifo(at: Path) -> None:
    (at / "400").unlink()
    os.mkfifo(at / "400")


def make_odd_name(at: Path) -> None:
    (at / "400").rename(os.fsdecode(os.fsencode(at) + b"/4\xff\n"))


@pytest.mark.slow
@pytest.mark.parametrize("change", [make_link, make_fifo, make_odd_name])
@pytest.mark.parametrize("search", BY_STATUS.values(), ids=BY_STATUS)
def test_whatever_else_is_in_such_a_directory_is_told_as_ever(
    root: Path, monkeypatch: pytest.MonkeyPatch, search: dict[str, Any], change: Any
) -> None:
    grow(root, {f"d{n % 7}/{n:03}": b"x" * (n % 8) for n in range(700)})
    change(root / "d1")
    asked = {"s1": {"paths": [str(root)], **search}}
    told = Asked(asked, effort=Effort(0, 0)).all()
    monkeypatch.setattr(walk, "COUNTING_TYPES", frozenset())
    assert told == Asked(asked, workers=0).all()
