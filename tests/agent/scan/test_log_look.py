"""Tests of looking at one log, by what its first bytes say it is."""

import gzip
import lzma
import os
from pathlib import Path

import pytest

from agent.platform.journal_file import SIGNATURE
from agent.scan.log_look import Findings, Reading, decode, encode, look_at_log, tally_of
from agent.scan.log_question import LineFilter, Question

LINES = b"2026-01-02T03:04:05Z needle\n2026-01-02T03:04:06Z hay\n" * 50


def look_at(path: Path, question: Question | None = None) -> Findings:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        asked = question or Question(LineFilter(["needle"]))
        found = look_at_log(descriptor, os.fstat(descriptor), asked, Reading(lambda: None))
    finally:
        os.close(descriptor)
    assert decode(encode(found)) == found
    return found


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_text_is_looked_at_also_where_it_is_packed(pack: type[bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(pack(LINES))
    found = look_at(path)
    assert (found.form, found.lines, found.problems) == ("iso", 100, ())
    assert [tally_of(group).count for group in found.groups] == [50]


@pytest.mark.slow
def test_what_unpacks_only_in_part_is_counted_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.log.gz"
    path.write_bytes(gzip.compress(LINES * 1000)[:-900])
    found = look_at(path)
    assert found.groups[0].count > 0
    assert "ends in the middle of what it packs" in found.problems[0]


def test_a_journal_is_known_by_its_first_bytes_and_a_broken_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "system.journal"
    path.write_bytes(SIGNATURE + b"\0" * 500)
    found = look_at(path)
    assert (found.form, found.groups) == ("journal", ())
    assert "of a kind that is not known" in found.problems[0]


def test_a_question_about_units_passes_over_what_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(LINES)
    assert look_at(path, Question(LineFilter([]), units=LineFilter(["x"]))).skipped == "no-journal"


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.touch()
    assert look_at(path) == Findings()
