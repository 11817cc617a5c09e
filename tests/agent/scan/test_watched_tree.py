"""Tests of comparing places with how they were: what is told, and what is forgotten."""

import os
from pathlib import Path

import pytest

from agent.scan.watched_tree import Look, Tree


def _nothing(_count: int) -> None:
    pass


LOOK = Look(trusts_status=True, on_read=_nothing)
ENTRIES = 1000


def make_tree(
    place: Path, *, is_deep: bool = True, most: int = ENTRIES, excludes: tuple[str, ...] = ()
) -> Tree:
    """Return a tree that knows its place as it is."""
    named = (str(place),)
    tree = Tree(
        paths=() if is_deep else named,
        recursive=named if is_deep else (),
        excludes=excludes,
        max_entries=most,
        max_hash_bytes=1 << 20,
    )
    list(tree.compare_all(LOOK))
    return tree


def kinds(tree: Tree, place: Path) -> dict[str, str]:
    """Compare everything, and return by relative path what was told."""
    return {
        os.path.relpath(str(report.record["path"]), place): report.kind for report in tree.compare_all(LOOK)
    }


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "place"
    (made / "a" / "b").mkdir(parents=True)
    (made / "a" / "b" / "file").write_text("x")
    (made / "top").write_text("x")
    return made


def test_what_is_as_it_was_is_not_told(place: Path) -> None:
    assert kinds(make_tree(place), place) == {}


def test_a_directory_that_goes_takes_all_below_it_along(place: Path) -> None:
    tree = make_tree(place)
    (place / "a" / "b" / "file").unlink()
    (place / "a" / "b").rmdir()
    (place / "a").rmdir()
    assert kinds(tree, place) == {"a": "removed", "a/b": "removed", "a/b/file": "removed"}


def test_a_name_that_goes_takes_all_below_it_along_when_it_alone_is_compared(place: Path) -> None:
    tree = make_tree(place)
    (place / "a").rename(place.parent / "elsewhere")
    told = tree.compare(os.fsencode(place), {b"a"}, LOOK)
    assert [report.kind for report in told] == ["removed"] * 3


def test_another_type_under_the_same_name_is_told_as_replaced(place: Path) -> None:
    tree = make_tree(place)
    (place / "top").unlink()
    (place / "top").symlink_to("/etc/shadow")
    assert kinds(tree, place) == {"top": "replaced"}


def test_the_place_itself_is_watched_too(place: Path) -> None:
    tree = make_tree(place)
    place.chmod(0o777)
    [report] = tree.compare_all(LOOK)
    assert (report.kind, report.severity, report.record["path"]) == ("attributes", "high", str(place))


def test_a_place_that_comes_later_is_found(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "later")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "file").write_text("x")
    assert kinds(tree, tmp_path / "later") == {".": "created", "file": "created"}


def test_of_a_plain_place_what_is_below_its_entries_is_left_alone(place: Path) -> None:
    tree = make_tree(place, is_deep=False)
    (place / "a" / "b" / "file").write_text("y")
    (place / "a" / "new").write_text("y")
    assert kinds(tree, place) == {}


def test_what_is_excluded_is_no_entry(place: Path) -> None:
    tree = make_tree(place, excludes=("top", f"{place}/a/b"))
    assert {os.path.relpath(os.fsdecode(path), place) for path in tree.entries} == {".", "a"}


def test_what_the_configuration_names_no_more_is_forgotten_in_silence(place: Path) -> None:
    entries = make_tree(place).entries
    tree = make_tree(place / "a")
    tree.entries = dict(entries)
    assert kinds(tree, place) == {}
    assert os.fsencode(place / "top") not in tree.entries


def test_new_places_are_taken_in_silence_and_known_ones_are_compared(place: Path) -> None:
    tree = make_tree(place)
    known = set(tree.entries)
    (place / "top").write_text("changed")
    (place / "new").write_text("x")
    tree.add_silently(LOOK, known)
    assert kinds(tree, place) == {"top": "changed"}


def test_beyond_the_bound_nothing_more_is_taken_in_and_that_is_known(place: Path) -> None:
    tree = make_tree(place, most=2)
    assert (len(tree.entries), tree.is_full) == (2, True)


def test_a_link_that_is_a_place_is_followed_and_one_inside_is_not(tmp_path: Path, place: Path) -> None:
    (tmp_path / "bin").symlink_to(place)
    (place / "out").symlink_to("/etc")
    tree = make_tree(tmp_path / "bin")
    assert os.fsencode(place / "top") in tree.entries
    assert not any(path.startswith(b"/etc") for path in tree.entries)
