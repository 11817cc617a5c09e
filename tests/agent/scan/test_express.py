"""Tests that what is judged in bulk is judged as it would be one by one, and that nothing slips through."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.scan import batching, patterns, quick_reading, settling
from agent.scan.express import Express
from agent.scan.patterns import TextPattern
from agent.scan.quick_reading import Survivor
from tests.agent.scan.runs import find, grow, run
from tests.agent.scan.test_independence import placed, searches, tree
from tests.agent.scan.test_pool import Asked, name_of

__all__ = ["tree"]


@pytest.fixture
def in_bulk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let files that a test has just made count as settled; return how many entries were left over."""
    monkeypatch.setattr(quick_reading, "SETTLED_NS", -(10**15))
    left: list[int] = []
    survivors = Express.survivors

    def counting(self: Express, *place: Any) -> Iterator[Survivor] | None:
        found = survivors(self, *place)
        if found is None:
            left.append(-1)
            return None
        names = list(found)
        left.append(len(names))
        return iter(names)

    monkeypatch.setattr(Express, "survivors", counting)
    return left


def one_by_one(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Express, "survivors", lambda *_place: None)


@pytest.mark.slow
@settings(deadline=None)
@given(found=st.lists(searches(), min_size=1, max_size=3))
def test_judging_in_bulk_gives_what_judging_one_by_one_gives(tree: Path, found: list[dict[str, Any]]) -> None:
    named = {f"s{number}": placed(search, tree) for number, search in enumerate(found)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick_reading, "SETTLED_NS", -(10**15))
        patch.setattr(quick_reading, "_FIRST_BYTES", 8)
        in_bulk = Asked(named, workers=0).all()
    with pytest.MonkeyPatch.context() as patch:
        one_by_one(patch)
        assert Asked(named, workers=0).all() == in_bulk


def test_what_every_file_is_asked_is_asked_in_bulk(tmp_path: Path, in_bulk: list[int]) -> None:
    grow(tmp_path, {f"{number}": b"x" * number for number in range(9)})
    asked: tuple[dict[str, Any], ...] = (
        {"sha256": ["0" * 64]},
        {"contents": ["y"]},
        {"sizes": [">20"]},
        {"bytes": ["79"]},
        {"contents": ["y"], "bytes": ["7878"], "magics": ["elf"], "entropies": [">1"]},
    )
    for search in asked:
        assert find(tmp_path, **search) == []
    assert in_bulk == [0, 0, 0, 0, 0]


def test_of_searches_of_every_sort_together_only_what_some_search_wants_is_judged_by_each(
    tmp_path: Path, in_bulk: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(
        tmp_path,
        {"dull": b"hay", "long": b"x" * 30, "line": b"a needle", "known": b"known", "bytes": b"\x01\x02"},
    )
    digests = {"sha256": [hashlib.sha256(b"known").hexdigest()], "md5": ["0" * 32]}
    asked: dict[str, dict[str, Any]] = {
        "size": {"sizes": [">20"]},
        "content": {"contents": ["^a needle$"]},
        "digest": {**digests, "options": {"matchall": False}},
        "bytes": {"bytes": ["0102"]},
    }
    judged: list[int] = []
    conclude = quick_reading.QuickReader._conclude

    def counting(self: quick_reading.QuickReader, status: os.stat_result, *about: Any) -> None:
        judged.append(status.st_size)
        conclude(self, status, *about)

    monkeypatch.setattr(quick_reading.QuickReader, "_conclude", counting)
    searches = {
        name: {"paths": [str(tmp_path)], "options": {"matchall": True}, **search}
        for name, search in asked.items()
    }
    found = run(None, **searches)
    assert {record["search"]: Path(record["path"]).name for record in found.records} == {
        "size": "long",
        "content": "line",
        "digest": "known",
        "bytes": "bytes",
    }
    assert sorted(judged) == [2, 5, 8, 30]
    assert in_bulk == [0]


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ({"names": ["^a"]}, "name=^a"),
        ({"names": ["!b"]}, "name=!b"),
        ({"sizes": ["<5"]}, "size=<5"),
        ({"contents": ["^x+$"]}, "content=^x+$"),
        ({"bytes": ["7878"]}, "bytes=7878"),
        ({"sha256": [hashlib.sha256(b"xx").hexdigest()]}, f"sha256={hashlib.sha256(b'xx').hexdigest()}"),
        ({"magics": ["!elf"]}, "magic=!elf"),
        ({"modes": ["!x"]}, "mode=!x"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_where_any_check_is_enough_and_there_is_one_it_is_judged_in_bulk_and_named(
    tmp_path: Path, in_bulk: list[int], check: dict[str, list[str]], said: str
) -> None:
    grow(tmp_path, {"a": b"xx", "b": b"\x7fELFyyyy"})
    (tmp_path / "b").chmod(0o755)
    found = run(s1={"paths": [str(tmp_path)], **check, "options": {"matchall": False}}).records
    assert [(record["path"], record["checks"]) for record in found] == [(f"{tmp_path}/a", (said,))]
    assert in_bulk == [0]


def test_names_of_a_directory_in_which_every_search_has_enough_by_now_are_passed_by(tmp_path: Path) -> None:
    grow(tmp_path, {**{f"a/{number:02}": b"x" for number in range(20)}, "b/last": b"x"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settling, "LAG", 1)
        patch.setattr(batching, "BATCH_NAMES", 2)
        searches = {
            name: {
                "paths": [str(tmp_path / name)],
                "names": ["."],
                "options": {"matchall": True, "matchlimit": 1},
            }
            for name in ("a", "b")
        }
        assert Asked(searches, workers=0).names() == ["00", "last"]


def test_a_file_that_changed_lately_is_judged_by_itself(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"x"})
    left: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick_reading.QuickReader, "_conclude", lambda *_about: left.append(True))
        assert find(tmp_path, contents=["x"]) == ["a"]
    assert left == []


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 1 << 20, (1 << 20) + 1])
def test_content_and_digests_are_of_the_whole_file_whatever_its_size(
    tmp_path: Path, in_bulk: list[int], size: int
) -> None:
    grow(tmp_path, {"a": os.urandom(size).replace(b"\n", b"x")})
    os.truncate(tmp_path / "a", size)
    search = {"s1": {"paths": [str(tmp_path)], "contents": ["!needle"], "options": {"returnsha256": True}}}
    matches, statistics, _ = Asked(search, workers=0).all()
    assert in_bulk == [1 if size > 1 << 20 else 0]
    with pytest.MonkeyPatch.context() as patch:
        one_by_one(patch)
        assert Asked(search, workers=0).all()[:2] == (matches, statistics)


def test_what_takes_a_files_place_is_not_read_in_bulk(tmp_path: Path, in_bulk: list[int]) -> None:
    grow(tmp_path, {"a": b"x", "b": b"x", "c": b"x"})
    (tmp_path / "link").symlink_to("a")
    opened = os.open

    def swap(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"a" and (tmp_path / "b").is_file():
            (tmp_path / "b").unlink()
            os.mkfifo(tmp_path / "b")
            (tmp_path / "c").unlink()
            (tmp_path / "c").symlink_to("/etc/passwd")
        return opened(path, flags, mode, dir_fd=dir_fd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", swap)
        assert find(tmp_path, contents=["."]) == ["a", "link"]
    assert in_bulk == [3]


def test_what_vanishes_or_takes_a_files_place_is_not_told_by_its_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:03}" for number in range(100)]
    grow(tmp_path, dict.fromkeys(names, b"x"))
    asked = os.stat

    def swap(path: Any, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        if path == b"000" and (tmp_path / "040").is_file():
            (tmp_path / "040").unlink()
            os.mkfifo(tmp_path / "040")
            (tmp_path / "070").unlink()
        return asked(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "stat", swap)
    matches, statistics, _ = Asked({"s1": {"paths": [str(tmp_path)], "names": ["."]}}, workers=0).all()
    assert [name_of(match) for match in matches] == [name for name in names if name not in ("040", "070")]
    assert statistics["skipped"] == {"special-file": 1, "vanished": 1}
    assert statistics["files_seen"] == 100


NAMES = st.lists(
    st.sampled_from([b"a", b"ab", b"b\nab", b"\xff", b"\xc3\xa9", b"a\xff", b"A.b", b" ", b"\r", b""]),
    unique=True,
)


@pytest.mark.parametrize("make_finder", [patterns._finder, patterns._plain_finder])
@given(
    names=NAMES,
    expression=st.sampled_from(
        [
            *["a", "^a", "b$", "^ab$", r"\x{e9}", ".", r"\s", "(?i)a\\.", r"\Aa"],
            *["x*", "$", "^", "^$", "a|b$", "(a)|(b)", r"\Qb", "(?U)a+b?", "(?s)a.b", "b*?", r"\b", r"\B"],
        ]
    ),
)
def test_names_searched_together_match_as_they_do_alone(
    make_finder: Any, names: list[bytes], expression: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patterns, "_finder", make_finder)
        pattern = TextPattern(expression)
    assert pattern.among(names, b"\n".join(names)) == {name for name in names if pattern.is_in(name)}
