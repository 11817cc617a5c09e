"""Tests of counting the wanted lines of a text log."""

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent.scan.log_lines import TextLook
from agent.scan.log_question import Captures, LineFilter, Question, Window
from agent.scan.texts import time_text

MTIME_NS = int(time.mktime((2026, 3, 1, 0, 0, 0, 0, 0, -1))) * 10**9
LINES = [
    b"",
    b"x needle",
    b"needle\r",
    b"\xff",
    b"Jan  2 03:04:05 h needle",
    b"2026-01-02T03:04:05Z needle",
    b" needle",
]


def look_at(data: bytes, *expressions: str, pieces: int = 1 << 20, **more: Any) -> TextLook:
    limits = {name: more.pop(name) for name in ("max_line_bytes",) if name in more}
    look = TextLook(Question(LineFilter(expressions), **more), mtime_ns=MTIME_NS, **limits)
    for at in range(0, len(data), pieces):
        look.feed(data[at : at + pieces])
    look.finish()
    return look


@given(lines=st.lists(st.sampled_from(LINES)), pieces=st.integers(1, 60), ends=st.booleans())
def test_lines_are_counted_however_their_bytes_come(lines: list[bytes], pieces: int, *, ends: bool) -> None:
    data = b"\n".join(lines) + b"\n" * ends
    expected = sum(b"needle" in line for line in lines)
    look = look_at(data, "needle$", pieces=pieces)
    assert look.tally.count + look.tally.undated == expected
    # An empty line at the end without its end is none.
    assert look.lines_seen == len(data.split(b"\n")) - (not data or data.endswith(b"\n"))


def test_the_first_and_last_time_are_those_of_matching_lines_in_the_window() -> None:
    data = b"".join(
        b"2026-01-02T03:04:%02dZ %s\n" % (at, b"needle" if at % 2 else b"hay") for at in range(60)
    )
    look = look_at(data, "needle")
    assert (look.tally.count, look.tally.undated) == (30, 0)
    first = look.tally.first_ns
    assert first is not None
    assert time_text(first) == "2026-01-02T03:04:01Z"
    inside = look_at(data, "needle", window=Window(first + 10 * 10**9, first + 20 * 10**9)).tally
    assert inside.count == 5
    assert (inside.first_ns, inside.last_ns) == (first + 10 * 10**9, first + 18 * 10**9)


def test_a_line_without_a_time_continues_the_one_before_only_where_it_is_indented() -> None:
    data = b"2026-01-02T03:04:05Z Traceback\n  at needle\n\tat needle\nneedle\n"
    tally = look_at(data, "needle").tally
    assert (tally.count, tally.undated) == (2, 1)
    assert tally.first_ns is not None
    assert time_text(tally.first_ns) == "2026-01-02T03:04:05Z"


def test_a_year_that_began_between_lines_that_match_is_not_missed() -> None:
    quiet = b"".join(b"%s 15 00:00:00 h quiet\n" % month for month in (b"Jan", b"Apr", b"Aug", b"Nov")) * 2
    data = b"Nov  1 00:00:00 h needle\n" + quiet + b"Jan  3 00:00:00 h quiet\nFeb  1 00:00:00 h needle\n"
    tally = look_at(data, "needle", pieces=60).tally
    assert tally.first_ns is not None
    assert tally.last_ns is not None
    assert time_text(tally.first_ns)[:4] == "2023"
    assert time_text(tally.last_ns)[:4] == "2026"


def test_values_of_named_groups_are_counted_also_where_the_year_comes_later() -> None:
    expression = r"user (?P<user>\S+)"
    data = b"Jan  2 03:04:05 h user eve\n" * 3 + b"Jan  2 03:04:06 h user \xff\n" + b"user bob\n"
    look = look_at(data, expression, fields=("user", "none"), captures=Captures([expression]))
    assert look.tally.values == ({"eve": 3, "�": 1, "bob": 1}, {})


def test_a_line_beyond_all_measure_is_matched_in_its_beginning_and_counted() -> None:
    data = b"needle " + b"x" * 1000 + b" pin\nneedle\n"
    look = look_at(data, "needle", pieces=7, max_line_bytes=100)
    assert (look.tally.undated, look.cut_lines, look.lines_seen) == (2, 1, 2)
    assert look_at(data, "pin", pieces=7, max_line_bytes=100).tally.is_empty()


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_are_lines(data: bytes, pieces: int) -> None:
    whole, split = look_at(data), look_at(data, pieces=pieces)
    assert whole.lines_seen == split.lines_seen
    assert whole.tally.count + whole.tally.undated == split.tally.count + split.tally.undated
