"""Tests of matching lines: exactly what a line-by-line reading gives, however the bytes come in."""

from itertools import pairwise

import re2
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agent.scan.lines import LineScan
from agent.scan.patterns import compile_lines

ATOMS = [
    "a", "b", ".", " ", r"\s", r"\S", r"\W", r"\D", "[^a]", "[^b]", r"[\s\S]", "^", "$", r"\b", r"\B", r"\n",
    r"\r", r"\x00", r"\xff", "é", r"\A", r"\z", r"\C", "(?s:.)", "(?i:A)", "(?m:^)", "(?m:$)", "(?-m:^)",
    "(?-m:$)", "(?s-m:.$)", r"\Qa.\E", "()", r"[[:space:]]", r"\pL", r"[^\n]",
]  # fmt: skip


def combine(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("(?:{})*".format, inner),
        st.builds("(?:{})+?".format, inner),
        st.builds("(?:{})?".format, inner),
        st.builds("(?m){}".format, inner),
    )


EXPRESSIONS = st.recursive(st.sampled_from(ATOMS), combine, max_leaves=8)
DATA = st.lists(
    st.sampled_from(
        [b"a", b"b", b"\n", b"\r", b"\r\n", b" ", b"\x00", b"\xff", "é".encode(), b"A.", b"\n\n"]
    ),
    max_size=40,
).map(b"".join)


def lines_of(data: bytes) -> list[bytes]:
    """Return the lines of a file as the reference defines them."""
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def reference(expression: str, data: bytes) -> tuple[bool, bool]:
    """Return whether some line matches, and whether every line does, matching each by itself."""
    options = re2.Options()
    options.log_errors = False
    if expression.isascii():
        options.encoding = re2.Options.Encoding.LATIN1
    pattern = re2.compile(expression.encode(), options)
    found = [pattern.search(line) is not None for line in lines_of(data)]
    return any(found), bool(found) and all(found)


def scan_lines(expression: str, chunks: list[bytes], **limits: int) -> tuple[bool, bool]:
    """Return the same as `reference`, by the scan."""
    lines = LineScan((compile_lines(expression),), some=[0], every=[0], check=lambda: None, **limits)
    for chunk in chunks:
        lines.feed(chunk)
    lines.finish()
    return lines.found_some[0], lines.found_every[0]


@given(EXPRESSIONS, DATA, st.lists(st.integers(0, 40)))
@example("a$", b"a\r\n", [])
@example("a$", b"a\r", [])
@example("^$", b"a\n", [])
@example("^$", b"\n", [])
@example("^$", b"\r\n", [1])
@example("a[^x]*b", b"a\nb", [])
@example(r"\Aa", b"b\na\n", [])
@example(r"\r$", b"a\r\r\n", [2])
def test_a_scan_in_pieces_is_the_same_as_matching_each_line(
    expression: str, data: bytes, cuts: list[int]
) -> None:
    try:
        expected = reference(expression, data)
    except re2.error:
        assume(False)  # noqa: FBT003
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    chunks = [data[start:end] for start, end in pairwise(places)]
    assert scan_lines(expression, chunks) == expected


def test_a_file_without_lines_matches_nothing_and_not_every_line() -> None:
    assert scan_lines("", []) == (False, False)
    assert scan_lines("^$", [b"\n"]) == (True, True)


def test_a_needle_behind_a_line_of_a_megabyte_is_found() -> None:
    assert scan_lines("^needle$", [b"x" * (1 << 20), b"x\nneed", b"le\n"]) == (True, False)


def test_a_line_longer_than_the_window_is_matched_in_overlapping_pieces_and_said() -> None:
    lines = LineScan(
        (compile_lines("needle"), compile_lines("^x+$"), compile_lines("^after$")),
        some=[0, 2],
        every=[1],
        check=lambda: None,
        max_line_bytes=100,
        overlap_bytes=10,
    )
    for chunk in (b"x" * 96, b"need", b"le" + b"x" * 300, b"\nafter\n"):
        lines.feed(chunk)
    lines.finish()
    assert lines.is_cut
    assert lines.found_some == {0: True, 2: True}
    assert lines.found_every == {1: False}


def test_a_line_within_the_window_is_not_said_to_be_cut() -> None:
    lines = LineScan((compile_lines("a"),), some=[0], every=[], check=lambda: None, max_line_bytes=100)
    lines.feed(b"x" * 100)
    lines.finish()
    assert (lines.is_cut, lines.found_some) == (False, {0: False})


def test_a_scan_is_closed_once_all_is_answered() -> None:
    lines = LineScan((compile_lines("a"), compile_lines("b")), some=[0], every=[1], check=lambda: None)
    lines.feed(b"a\n")
    assert not lines.is_open()
    assert (lines.found_some, lines.found_every) == ({0: True}, {1: False})


def test_patterns_that_nobody_needs_any_more_are_dropped() -> None:
    lines = LineScan((compile_lines("a"), compile_lines("b")), some=[0, 1], every=[], check=lambda: None)
    lines.keep_only(some={1}, every=set())
    lines.feed(b"a b\n")
    assert lines.found_some == {1: True}


def test_memory_for_one_endless_line_is_bounded_by_the_window() -> None:
    lines = LineScan((compile_lines("q"),), some=[0], every=[], check=lambda: None, max_line_bytes=1 << 16)
    held = 0
    for _ in range(200):
        lines.feed(b"\x00" * 4096)
        held = max(held, sum(map(len, lines._pending)))
    assert held <= (1 << 16) + 4096
