"""Tests of searches that ask for types of entries."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.module import Context
from protocol.acl import PathRules
from tests.agent.scan.runs import find, grow, paths, refused, run

ALL = ["file", "directory", "link", "fifo", "socket", "block", "character"]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    grow(tmp_path, {"d/inner": b"abc", "plain": b"abc"})
    (tmp_path / "to-file").symlink_to("plain")
    (tmp_path / "to-directory").symlink_to("d")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "d/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        yield tmp_path


@pytest.mark.parametrize(
    ("types", "found"),
    [
        (["file"], ["plain", "d/inner"]),
        (["directory"], [".", "d"]),
        (["link"], ["dangling", "to-directory", "to-file"]),
        (["fifo"], ["d/fifo"]),
        (["socket", "fifo"], ["socket", "d/fifo"]),
        (["!file", "!directory", "!link"], ["socket", "d/fifo"]),
        (["block", "character"], []),
    ],
)
@pytest.mark.parametrize("matchall", [True, False])
def test_entries_of_the_types_asked_for_are_found_as_they_are(
    tree: Path, types: list[str], found: list[str], *, matchall: bool
) -> None:
    if types[0].startswith("!") and not matchall:
        # Any one check is enough: what is no file may be a link.
        assert len(find(tree, types=types, matchall=False)) == 9
        return
    result = run(s1={"paths": [str(tree)], "types": types, "options": {"matchall": matchall}})
    assert [os.path.relpath(record["path"], tree) for record in result.records] == found
    assert {record["type"] for record in result.records} <= set(types) or types[0].startswith("!")
    assert (result.notes, result.statistics["skipped"]) == ((), {})


def test_mismatch_turns_the_types_round(tree: Path) -> None:
    assert find(tree, types=["file", "link", "directory"], options={"mismatch": ["type"]}) == [
        "socket",
        "d/fifo",
    ]


def test_a_link_has_its_own_facts_and_nothing_is_followed_or_read(tree: Path) -> None:
    search = {"types": ["link"], "names": ["to-file"], "options": {"matchall": True, "returnsha256": True}}
    result = run(s1={"paths": [str(tree)], **search})
    record = result.records[0]
    assert (record["mode"], record["size_bytes"], record.get("hashes")) == ("Lrwxrwxrwx", len("plain"), None)
    assert result.statistics["files_read"] == 0


def test_content_holds_only_for_what_can_be_read(tree: Path) -> None:
    assert find(tree, types=["file", "fifo", "link"], contents=["!zzz"]) == ["plain", "d/inner"]
    assert find(tree, types=ALL, contents=["abc"]) == ["plain", "d/inner"]


def test_a_search_without_types_beside_one_with_them_still_follows_links_to_files(tree: Path) -> None:
    result = run(
        plain={"paths": [str(tree)], "names": ["."], "options": {"matchall": True}},
        typed={"paths": [str(tree)], "types": ["link", "directory"]},
    )
    assert paths(result, tree, "plain") == ["plain", "to-file", "d/inner"]
    assert paths(result, tree, "typed") == [str(tree), "d", "dangling", "to-directory", "to-file"]
    assert result.statistics["skipped"] == {"dangling-link": 1, "directory-link": 1, "special-file": 2}


@pytest.mark.parametrize("types", [["fifo"], ["!file"], ["socket", "!link"]])
def test_files_that_no_search_can_want_are_seen_by_their_listing_only(tree: Path, types: list[str]) -> None:
    search = {"paths": [str(tree)], "types": types, "options": {"matchall": True}}
    alone = run(s1=search)
    assert alone.statistics["files_seen"] == 9
    beside = run(s1=search, s2={"paths": [str(tree)], "names": ["."]})
    assert paths(beside, tree, "s1") == paths(alone, tree, "s1")
    assert paths(beside, tree, "s2") == ["plain", "to-file", "d/inner"]


def test_depth_counts_for_directories_as_for_files(tree: Path) -> None:
    grow(tree, {"d/e/f/x": b""})
    assert find(tree, types=["directory"], options={"maxdepth": 2}) == [str(tree), "d", "d/e"]


@pytest.mark.parametrize(
    ("path", "types", "found"),
    [
        ("socket", ["socket"], ["socket"]),
        ("d/*", ["fifo"], ["d/fifo"]),
        ("*", ["directory"], ["d"]),
        ("**/f*", ["fifo"], ["d/fifo"]),
        ("dangling", ["link"], ["dangling"]),
        ("to-file", ["link"], ["to-file"]),
        ("to-directory", ["link", "file"], ["to-directory/inner", "to-directory"]),
        ("d/fifo", ["file"], []),
        ("plain", ["file"], ["plain"]),
    ],
)
def test_paths_name_entries_of_any_type(tree: Path, path: str, types: list[str], found: list[str]) -> None:
    result = run(s1={"paths": [f"{tree}/{path}"], "types": types})
    assert sorted(paths(result, tree)) == sorted(found)
    assert result.statistics["errors"] == 0


def test_a_path_that_is_a_link_is_said_to_be_looked_at_as_one(tree: Path) -> None:
    result = run(s1={"paths": [f"{tree}/to-file"], "types": ["file"]})
    assert (result.records, result.notes) == ((), (f"{tree}/to-file is a link, and is looked at as one",))


def test_a_missing_path_is_an_error_also_with_types(tree: Path) -> None:
    assert run(s1={"paths": [f"{tree}/absent"], "types": ["link"]}).statistics["errors"] == 1


def test_devices_are_told_apart_and_never_read() -> None:
    search = {"paths": ["/dev"], "options": {"maxdepth": 1, "matchall": True, "returnsha256": True}}
    result = run(s1={**search, "types": ["character"], "names": ["^(null|zero)$"]})
    assert [(record["path"], record["type"], record["mode"][:2]) for record in result.records] == [
        ("/dev/null", "character", "Dc"),
        ("/dev/zero", "character", "Dc"),
    ]
    assert result.statistics["files_read"] == 0


def test_entries_outside_of_what_the_rules_allow_are_not_looked_at(tree: Path) -> None:
    rules = PathRules((str(tree / "d"),), ())
    result = run(Context(paths=rules), s1={"paths": [str(tree)], "types": ALL})
    assert sorted(paths(result, tree)) == ["d", "d/fifo", "d/inner"]
    assert result.statistics["skipped"]["not-allowed"] >= 4


def test_a_type_that_does_not_exist_is_refused() -> None:
    assert "types" in refused(types=["dir"])
