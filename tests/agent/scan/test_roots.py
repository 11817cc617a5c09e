"""Tests of where searches begin: links, globs, missing paths, and roots that meet."""

import os
from pathlib import Path

import pytest

from tests.agent.scan.runs import find, grow, paths, run
from tests.support.apart import become_nobody, run_apart


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    grow(
        tmp_path,
        {
            "usr/bin/ls": b"ls",
            "usr/bin/.hidden": b"h",
            "usr/lib/python3/a.py": b"a",
            "usr/lib/python3.11/b.py": b"b",
            "opt/one/conf/x.conf": b"x",
            "opt/one/data": b"d",
            "opt/two/conf/y.conf": b"y",
            "opt/file": b"f",
        },
    )
    (tmp_path / "bin").symlink_to("usr/bin")
    return tmp_path


def search_of(tree: Path, *roots: str, **options: object) -> dict[str, object]:
    return {
        "paths": [f"{tree}/{root}" for root in roots],
        "names": ["."],
        "options": {"matchall": True, **options},
    }


def test_a_root_that_is_a_link_is_followed_shown_as_written_and_noted(tree: Path) -> None:
    result = run(s1=search_of(tree, "bin"))
    assert paths(result, tree) == ["bin/.hidden", "bin/ls"]
    assert result.notes == (f"{tree}/bin leads through a link to {tree}/usr/bin, which was followed",)


def test_a_root_behind_a_link_is_followed_and_noted(tree: Path) -> None:
    result = run(s1=search_of(tree, "bin/ls"))
    assert paths(result, tree) == ["bin/ls"]
    assert result.notes == (f"{tree}/bin leads through a link to {tree}/usr/bin, which was followed",)


def test_a_root_that_is_a_link_to_a_file_is_looked_at_under_the_links_name(tree: Path) -> None:
    (tree / "link").symlink_to("opt/file")
    result = run(s1={**search_of(tree, "link"), "sizes": ["1"]})
    assert paths(result, tree) == ["link"]
    assert (result.records[0]["type"], result.records[0]["size_bytes"]) == ("link", 1)
    assert "leads through a link" in result.notes[0]


def test_a_root_may_be_a_file_and_its_directory_is_not_listed(tree: Path) -> None:
    result = run(s1=search_of(tree, "usr/bin/ls"))
    assert paths(result, tree) == ["usr/bin/ls"]
    assert result.statistics["files_seen"] == 1


def test_trailing_slashes_and_dots_in_a_root_mean_nothing(tree: Path) -> None:
    result = run(s1={"paths": [f"{tree}//usr/./bin/"], "names": ["ls"]})
    assert paths(result, tree) == ["usr/bin/ls"]


def test_two_dots_in_a_root_go_up_from_where_the_link_leads(tree: Path) -> None:
    result = run(s1={"paths": [f"{tree}/bin/.."], "names": ["b.py"]})
    assert [record["path"] for record in result.records] == [f"{tree}/bin/../lib/python3.11/b.py"]


def test_a_missing_root_is_an_error_and_the_other_roots_are_searched(tree: Path) -> None:
    result = run(s1=search_of(tree, "absent", "opt/file"))
    assert paths(result, tree) == ["opt/file"]
    assert result.notes == (f"{tree}/absent: No such file or directory",)
    assert result.statistics["errors"] == 1


def test_roots_that_are_a_dangling_link_a_loop_or_a_fifo_are_errors(tree: Path) -> None:
    (tree / "dangling").symlink_to("nowhere")
    (tree / "loop").symlink_to("loop")
    os.mkfifo(tree / "fifo")
    result = run(s1=search_of(tree, "dangling", "loop", "fifo"))
    assert result.records == ()
    assert result.statistics["errors"] == 3
    assert any("neither a file nor a directory" in note for note in result.notes)


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("usr/bin/*", ["usr/bin/.hidden", "usr/bin/ls"]),
        ("usr/bin/l*", ["usr/bin/ls"]),
        ("opt/*", ["opt/file", "opt/one/data", "opt/one/conf/x.conf", "opt/two/conf/y.conf"]),
        ("opt/*/conf", ["opt/one/conf/x.conf", "opt/two/conf/y.conf"]),
        ("opt/*/conf/[!x]*", ["opt/two/conf/y.conf"]),
        ("opt/*/data", ["opt/one/data"]),
        ("**/*.conf", ["opt/one/conf/x.conf", "opt/two/conf/y.conf"]),
        ("opt/**/conf/*", ["opt/one/conf/x.conf", "opt/two/conf/y.conf"]),
        ("**/**/x.conf", ["opt/one/conf/x.conf"]),
        ("opt/**", ["opt/file", "opt/one/data", "opt/one/conf/x.conf", "opt/two/conf/y.conf"]),
        ("b?n/ls", ["bin/ls"]),
        ("usr/lib/python3/*", ["usr/lib/python3/a.py"]),
    ],
)
def test_a_glob_is_expanded_by_the_walk(tree: Path, glob: str, found: list[str]) -> None:
    result = run(s1=search_of(tree, glob))
    assert paths(result, tree) == found
    assert not any("matched nothing" in note for note in result.notes)


def test_what_a_glob_matches_is_a_root_with_a_depth_of_its_own(tree: Path) -> None:
    assert paths(run(s1=search_of(tree, "opt/*", maxdepth=1)), tree) == ["opt/file", "opt/one/data"]
    assert len(paths(run(s1=search_of(tree, "opt/*", maxdepth=2)), tree)) == 4


@pytest.mark.parametrize("glob", ["opt/*.txt", "absent/*", "opt/file/*", "opt/*/absent", "**/absent"])
def test_a_glob_that_matches_nothing_is_noted(tree: Path, glob: str) -> None:
    result = run(s1=search_of(tree, glob))
    assert (result.records, result.notes) == ((), (f"search s1: {tree}/{glob} matched nothing",))


def test_a_link_to_a_directory_that_a_glob_finds_is_not_followed_and_counted(tree: Path) -> None:
    result = run(s1=search_of(tree, "*"))
    assert "bin/ls" not in paths(result, tree)
    assert result.statistics["skipped"] == {"directory-link": 1}
    assert "links to directories, not followed: 1" in result.notes


def test_globs_that_meet_in_one_directory_report_each_file_once(tree: Path) -> None:
    result = run(s1=search_of(tree, "usr/bin/*", "bin/*", "usr", "bin"))
    assert paths(result, tree)[:2] == ["usr/bin/.hidden", "usr/bin/ls"]
    assert len(result.records) == len({record["path"] for record in result.records}) == 4
    assert not any("matched nothing" in note for note in result.notes)


@pytest.mark.parametrize(
    "roots", [("opt", "opt"), ("opt", "opt/one"), ("opt", "opt/file"), ("opt/", "opt/./"), ("opt", "opt/**")]
)
def test_a_file_that_two_roots_of_a_search_reach_is_reported_once(tree: Path, roots: tuple[str, str]) -> None:
    result = run(s1=search_of(tree, *roots))
    assert len(result.records) == 4
    assert result.statistics["files_seen"] == 4


def test_of_two_roots_the_path_is_shown_as_the_first_one_leads_to_it(tree: Path) -> None:
    result = run(first=search_of(tree, "bin", "usr/bin"), second=search_of(tree, "usr/bin", "bin"))
    assert paths(result, tree, "first") == ["bin/.hidden", "bin/ls"]
    assert paths(result, tree, "second") == ["usr/bin/.hidden", "usr/bin/ls"]
    assert result.statistics["files_seen"] == 2


def test_a_search_is_active_by_whole_components_of_its_path(tree: Path) -> None:
    result = run(all=search_of(tree, "usr"), python=search_of(tree, "usr/lib/python3"))
    assert paths(result, tree, "python") == ["usr/lib/python3/a.py"]


def test_leaving_a_root_ends_a_searchs_scope(tmp_path: Path) -> None:
    grow(tmp_path, {"a/in": b"", "b/out": b"", "z": b"", "a/n/in": b"", "aa/out": b""})
    result = run(all=search_of(tmp_path, ""), one=search_of(tmp_path, "a"))
    assert paths(result, tmp_path, "one") == ["a/in", "a/n/in"]


def test_each_search_keeps_its_own_depth(tree: Path) -> None:
    result = run(deep=search_of(tree, ""), flat=search_of(tree, "opt", maxdepth=1))
    assert paths(result, tree, "flat") == ["opt/file"]
    assert len(paths(result, tree, "deep")) == 8


def test_the_roots_own_files_have_depth_one(tree: Path) -> None:
    assert find(tree / "opt", names=["."], options={"maxdepth": 1}) == ["file"]
    assert find(tree / "opt", names=["."], options={"maxdepth": 2}) == ["file", "one/data"]


def test_a_path_with_newlines_and_bytes_that_are_no_text_is_found_and_escaped(tmp_path: Path) -> None:
    (tmp_path / "new\nline").mkdir()
    directory = os.fsencode(tmp_path) + b"/new\nline"
    for name in (b"\xff\\x", b"plain\n", "é".encode()):
        Path(os.fsdecode(directory + b"/" + name)).write_bytes(b"")
    result = run(s1={"paths": [f"{tmp_path}/*"], "names": ["."]})
    assert paths(result, tmp_path) == ["new\nline/plain\n", "new\nline/é", "new\nline/\\xff\\\\x"]
    assert "path_b64" not in result.records[0]
    assert result.records[2]["path_b64"]


def test_one_character_of_a_name_is_one_dot(tmp_path: Path) -> None:
    for name in ("é".encode(), b"\xff", b"ab"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"")
    result = run(s1={"paths": [str(tmp_path)], "names": ["^.$"]})
    assert paths(result, tmp_path) == ["é", "\\xff"]


@pytest.mark.parametrize("path", ["/proc/1/cwd", "/proc/1/cwd/x", "/proc/1", "/proc/1/c*d/x", "/proc/1/cw*"])
def test_a_link_that_may_not_be_read_is_an_error_and_the_scan_goes_on(tmp_path: Path, path: str) -> None:
    grow(tmp_path, {"a": b""})

    def search() -> object:
        options = {"maxdepth": 1}
        base = {"names": ["^(a|cwd)$"], "options": options}
        result = run(s1={**base, "paths": [path]}, s2={**base, "paths": ["/proc/self/attr"]})
        return [result.status, list(result.notes), result.statistics["errors"]]

    status, notes, errors = run_apart(search, prepare=become_nobody)
    assert status == "ok"
    assert errors or any("matched nothing" in note for note in notes)
