"""Tests of the seam for a further examination: asked once of each file that a search selects."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent.module import Context
from agent.scan.coverage import Coverage
from agent.scan.plan import make_plan
from agent.scan.scan import scan
from agent.scan.search import Search
from tests.agent.scan.runs import grow


def examine(tree: Path, **searches: Mapping[str, Any]) -> tuple[dict[tuple[str, str], bytes], Context]:
    """Return what was said of the beginning of each file, by search and path."""

    def look(descriptor: int, status: os.stat_result, path: bytes) -> bytes:
        if path.endswith(b"broken"):
            raise OSError(errno.EIO, "the disk is gone")
        return b"%d:" % status.st_size + os.read(descriptor, 4)

    context = Context()
    planned = {
        label: msgspec.convert({"paths": [str(tree)], **search}, Search) for label, search in searches.items()
    }
    plan = make_plan(planned, now_ns=0)
    coverage = Coverage(context.note)
    found = scan(plan, coverage=coverage, check=context.check, truncate=context.truncate, examine=look)
    said = {
        (plan.searches[match.search].label, os.fsdecode(match.path).removeprefix(f"{tree}/")): match.examined
        for match in found
    }
    context.statistics.update(coverage.statistics())
    return said, context


def test_each_file_that_a_search_selects_is_examined_from_its_beginning(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"abcdefgh", "b": b"xy", "other": b"abcd"})
    said, _ = examine(
        tmp_path,
        by_name={"names": ["^[ab]$"]},
        by_content={"contents": ["abc"], "names": ["^a"], "options": {"matchall": True}},
    )
    assert said == {("by_name", "a"): b"8:abcd", ("by_content", "a"): b"8:abcd", ("by_name", "b"): b"2:xy"}


def test_a_file_that_cannot_be_examined_is_reported_without_a_reply_and_named(tmp_path: Path) -> None:
    grow(tmp_path, {"broken": b"abc", "fine": b"abc"})
    said, context = examine(tmp_path, s1={"names": ["."]})
    assert said == {("s1", "broken"): b"", ("s1", "fine"): b"3:abc"}
    assert context.notes == [f"{tmp_path}/broken: Input/output error"]
    assert context.statistics["errors"] == 1


def test_what_no_search_selects_is_not_opened_for_an_examination(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"abc"})
    said, context = examine(tmp_path, s1={"sizes": [">1k"], "names": ["b"]})
    assert said == {}
    assert context.statistics["files_read"] == 0
