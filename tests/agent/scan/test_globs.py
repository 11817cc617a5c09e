"""Tests of globs on names."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.globs import NameGlob, is_glob, split_path


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        (b"*", [b"a", b".hidden", b"\xff", b"a\nb"], []),
        (b"*.log", [b"a.log", b".log", b"a.b.log"], [b"a.log.1", b"alog"]),
        (b"?", [b"a", "é".encode(), b"\xff"], [b"", b"ab"]),
        (b"[a-c]x", [b"ax", b"cx"], [b"dx", b"x"]),
        (b"[!a-c]x", [b"dx"], [b"ax", b"x"]),
        (b"[^a]", [b"b"], [b"a"]),
        (b"[]]", [b"]"], [b"["]),
        (b"[*]", [b"*"], [b"a"]),
        (b"[a-]", [b"a", b"-"], [b"b"]),
        (b"[ab", [b"[ab"], [b"a"]),
        ("[é]".encode(), ["é".encode()], [b"\xc3"]),
        (b"a*b*c", [b"abc", b"aXbYc", b"abbcc"], [b"acb", b"ab"]),
        (b"plain", [b"plain"], [b"plainer"]),
    ],
)
def test_a_glob_matches_whole_names(glob: bytes, matching: list[bytes], other: list[bytes]) -> None:
    compiled = NameGlob(glob)
    assert [name for name in matching + other if compiled.matches(name)] == matching


@given(st.text("ab*?[]!-", max_size=12), st.text("ab[]!-", max_size=12))
def test_a_glob_means_what_fnmatch_means(glob: str, name: str) -> None:
    assert NameGlob(glob.encode()).matches(name.encode()) == fnmatch.fnmatchcase(name, glob)


def test_a_glob_of_many_stars_ends_soon() -> None:
    assert not NameGlob(b"*a" * 200 + b"b").matches(b"a" * 255)


def test_paths_are_split_without_empty_components_and_dots() -> None:
    assert split_path(b"//usr/./lib/") == [b"usr", b"lib"]
    assert split_path(b"/") == []
    assert split_path(b"/a/../b") == [b"a", b"..", b"b"]


def test_only_special_characters_make_a_glob() -> None:
    assert [is_glob(name) for name in (b"a*", b"a?", b"[a]", b"a]", b"a.b")] == [
        True,
        True,
        True,
        False,
        False,
    ]
