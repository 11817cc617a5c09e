"""Tests of leaving out: by name, by place, with all that is below."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.excludes import Exclusions
from tests.agent.scan.runs import find, grow, paths, run

TREE = {
    "a/keep": b"",
    "a/cache/x": b"",
    "a/b/cache/y": b"",
    "a/b/z.log": b"",
    "a/b/z": b"",
    "var/lib/docker/deep/w": b"",
    "var/lib/other": b"",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return grow(tmp_path, TREE)


@pytest.mark.parametrize(
    ("excludes", "left_out"),
    [
        (["cache"], {"a/cache/x", "a/b/cache/y"}),
        (["*.log", "docker"], {"a/b/z.log", "var/lib/docker/deep/w"}),
        (["{}/a/cache"], {"a/cache/x"}),
        (["{}/a/cache/"], {"a/cache/x"}),
        (["{}/**/cache"], {"a/cache/x", "a/b/cache/y"}),
        (["{}/*/b"], {"a/b/cache/y", "a/b/z.log", "a/b/z"}),
        (["{}/a/**"], {"a/keep", "a/cache/x", "a/b/cache/y", "a/b/z.log", "a/b/z"}),
        (["{}/a/b/z"], {"a/b/z"}),
        (["{}/var/lib/docker/deep/**"], {"var/lib/docker/deep/w"}),
        (["{}"], set(TREE)),
        (["/"], set(TREE)),
        (["/nowhere", "nothing", "z?"], set()),
    ],
)
def test_what_is_excluded_is_left_out_with_all_that_is_below(
    tree: Path, excludes: list[str], left_out: set[str]
) -> None:
    search = {"names": ["."], "excludes": [glob.format(tree) for glob in excludes]}
    result = run(s1={"paths": [str(tree)], **search})
    assert set(paths(result, tree)) == set(TREE) - left_out
    assert bool(left_out) is bool(result.statistics["skipped"])


def test_an_exclusion_holds_for_the_path_as_written_and_for_where_it_leads(tree: Path) -> None:
    (tree / "link").symlink_to("a/b")
    written = {"paths": [f"{tree}/link"], "names": ["z$"]}
    assert run(s1=written).records
    for excluded in (f"{tree}/link/z", f"{tree}/a/b/z", f"{tree}/link", f"{tree}/a/b", f"{tree}/a"):
        assert run(s1={**written, "excludes": [excluded]}).records == (), excluded


def test_a_path_that_the_search_excludes_itself_is_left_out_and_that_is_said(tree: Path) -> None:
    search = {"paths": [f"{tree}/a/b", f"{tree}/var"], "names": ["."], "excludes": [f"{tree}/a"]}
    result = run(s1=search)
    assert set(paths(result, tree)) == {"var/lib/docker/deep/w", "var/lib/other"}
    assert result.notes == (f"{tree}/a/b: is excluded by the search itself",)
    assert result.statistics["skipped"] == {"excluded": 1}


def test_a_glob_does_not_lead_into_what_is_excluded(tree: Path) -> None:
    search = {"paths": [f"{tree}/*/lib/*"], "names": ["."], "excludes": ["docker"]}
    assert paths(run(s1=search), tree) == ["var/lib/other"]
    assert run(s1={**search, "excludes": [f"{tree}/v*"]}).records == ()


def test_a_path_that_another_path_of_the_search_leads_to_is_judged_by_its_own_name(tree: Path) -> None:
    (tree / "link").symlink_to("a/b")
    search = {"paths": [f"{tree}/a", f"{tree}/link"], "names": ["^z$"], "excludes": [f"{tree}/link/b"]}
    assert run(s1=search).records
    both = {**search, "paths": [f"{tree}/link", f"{tree}/a"]}
    assert paths(run(s1=both), tree) == ["link/z"]


def test_another_search_sees_what_one_excludes(tree: Path) -> None:
    result = run(
        s1={"paths": [str(tree)], "names": ["."], "excludes": ["b", f"{tree}/var"]},
        s2={"paths": [str(tree)], "names": ["^z"]},
    )
    assert set(paths(result, tree, "s1")) == {"a/keep", "a/cache/x"}
    assert set(paths(result, tree, "s2")) == {"a/b/z", "a/b/z.log"}


def test_names_that_are_not_text_can_be_excluded(tmp_path: Path) -> None:
    (tmp_path / "b\udcff").write_bytes(b"")
    grow(tmp_path, {"a": b"", "b\n": b""})
    assert find(tmp_path, names=["."], excludes=["b?"]) == ["a"]


def plain(glob: str) -> str:
    """Return a glob as an expression on paths, the simple way."""
    parts = []
    for component in glob.split("/")[1:]:
        if component == "**":
            parts.append("(/[^/]+)*")
        else:
            parts.append("/" + component.replace("*", "[^/]*").replace("?", "[^/]"))
    whole = "".join(parts)
    return f"{whole}/[^/]+" if glob.endswith("**") else whole


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "*", "**", "?b", "b", "a*"]), min_size=1, max_size=4), max_size=3
    ),
    st.lists(st.sampled_from(["a", "b", "a?", "*b"]), max_size=2),
    st.lists(st.lists(st.sampled_from(["a", "b", "ab", "c"]), min_size=1, max_size=5), min_size=1),
)
def test_what_is_left_out_is_what_the_globs_match_or_lies_below(
    places: list[list[str]], names: list[str], asked: list[list[str]]
) -> None:
    globs = ["/" + "/".join(components) for components in places]
    excludes = Exclusions([*globs, *names])
    expressions = [re.compile(f"{plain(glob)}(/.*)?") for glob in globs]
    expressions += [re.compile("(/.*)?/" + plain(f"/{name}")[1:] + "(/.*)?") for name in names]
    for components in asked:
        path = "/" + "/".join(components)
        left_out = any(expression.fullmatch(path) for expression in expressions)
        assert excludes.has(path.encode()) is left_out
        directory, _, name = path.rpartition("/")
        assert excludes.has_name(directory.encode() or b"/", name.encode()) is left_out


NAMES = st.sampled_from(["a", "b", "ab"])
COMPONENTS = st.lists(st.sampled_from(["a", "*", "**", "?b", "b"]), min_size=1, max_size=4)


@given(st.lists(COMPONENTS, max_size=3), st.lists(NAMES, min_size=1, max_size=5))
def test_what_is_below_something_left_out_is_left_out(globs: list[list[str]], names: list[str]) -> None:
    excludes = Exclusions(["/" + "/".join(components) for components in globs])
    path = b""
    was_out = False
    for name in (name.encode() for name in names):
        is_out = excludes.has(path + b"/" + name)
        assert is_out or not was_out
        assert is_out == (was_out or excludes.has_name(path or b"/", name))
        path, was_out = path + b"/" + name, is_out
