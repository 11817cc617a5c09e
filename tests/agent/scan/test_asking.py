"""Tests of what is asked of every file, whatever searches are active together."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.scan.asking import reads_every_file, status_test, told_at_once, wanted_digests
from agent.scan.judging import Candidate, by_status
from agent.scan.plan import make_plan
from agent.scan.search import Search

ZEROS, ONES = "0" * 64, "1" * 64


def candidates(*searches: dict[str, Any], **options: Any) -> list[Candidate]:
    """Return searches as they stand before any file was looked at."""
    known = {
        f"s{number}": msgspec.convert(
            {"paths": ["/"], "options": {"matchall": True, **options}, **search}, Search
        )
        for number, search in enumerate(searches)
    }
    plan = make_plan(known, now_ns=0)
    return [Candidate(number, search, ()) for number, search in enumerate(plan.searches)]


@pytest.mark.parametrize(
    ("searches", "is_told"),
    [
        ([{"names": ["a"]}], True),
        ([{"sizes": [">1"], "modes": ["^u"]}], True),
        ([{"names": ["a"], "sizes": [">1"]}], False),
        ([{"names": ["a"], "contents": ["b"]}], False),
        ([{"names": ["a"]}, {"names": ["b"]}], False),
    ],
)
def test_one_search_by_names_or_by_the_status_alone_is_told_at_once(
    searches: list[dict[str, Any]], *, is_told: bool
) -> None:
    assert (told_at_once(candidates(*searches)) is not None) is is_told


def test_what_is_told_at_once_says_the_check_that_was_enough() -> None:
    told = told_at_once(candidates({"names": ["a"]}, matchall=False))
    assert told is not None
    assert told.said == ("name=a",)


@pytest.mark.parametrize(
    "searches",
    [
        [{"sizes": [">2"]}],
        [{"sizes": ["<2"]}],
        [{"sizes": [">2"], "modes": ["r"]}],
        [{"sizes": ["<1"]}, {"sizes": [">4"]}],
        [{"sizes": [">2"], "options": {"matchall": True, "mismatch": ["size"]}}],
        [{"owners": ["nobody-of-this-name"]}],
    ],
)
def test_a_status_is_wanted_as_it_is_search_by_search(tmp_path: Path, searches: list[dict[str, Any]]) -> None:
    chosen = candidates(*searches)
    is_wanted, wanted = status_test(chosen)
    for size in range(6):
        (tmp_path / "file").write_bytes(b"x" * size)
        status = os.stat(tmp_path / "file")  # noqa: PTH116  (what is asked is asked of this)
        assert (is_wanted(status) is wanted) is bool(by_status(chosen, status))


@pytest.mark.parametrize(
    ("search", "reads"),
    [
        ({"sha256": [ZEROS]}, True),
        ({"contents": ["a"]}, True),
        ({"sizes": [">1"], "sha256": [ZEROS]}, False),
        ({"sizes": [">1"]}, False),
    ],
)
def test_a_search_that_goes_by_the_status_first_does_not_read_every_file(
    search: dict[str, Any], *, reads: bool
) -> None:
    assert reads_every_file(candidates(search)[0]) is reads


def test_digests_that_alone_are_wanted_come_by_kind() -> None:
    wanted = wanted_digests(candidates({"sha256": [ZEROS]}, {"sha256": [ONES], "md5": ["2" * 32]}))
    assert wanted is not None
    assert {maker(b"").hexdigest()[:4]: digests for maker, digests in wanted} == {
        "d41d": {bytes.fromhex("2" * 32)},
        "e3b0": {bytes.fromhex(ZEROS), bytes.fromhex(ONES)},
    }


@pytest.mark.parametrize(
    "search",
    [
        {"contents": ["a"]},
        {"sha256": [ZEROS], "contents": ["a"]},
        {"sha256": [ZEROS], "options": {"matchall": True, "mismatch": ["sha256"]}},
    ],
)
def test_where_more_than_digests_is_asked_they_do_not_tell_it_all(search: dict[str, Any]) -> None:
    assert wanted_digests(candidates(search)) is None
