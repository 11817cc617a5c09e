"""Tests of matching lines: exactly what a line-by-line reading gives, however the bytes come in."""

import itertools
from itertools import pairwise

import pytest
import re2
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agent.scan.lines import LineQuestion, LineScan
from agent.scan.pattern_set import Costs, PatternSet
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
        st.builds("{}|{}".format, inner, inner),
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


def is_expression(expression: str) -> bool:
    try:
        reference(expression, b"")
    except re2.error:
        return False
    return True


def ask(*expressions: str, every: frozenset[int] = frozenset(), **limits: int) -> LineQuestion:
    """Return the question whether each expression matches some line and, of those in `every`, each line."""
    patterns = PatternSet([compile_lines(expression) for expression in expressions])
    some = frozenset(range(len(expressions)))
    return LineQuestion(patterns, some=some, every=every, check=lambda: None, **limits)


def feed(scan: LineScan, chunks: list[bytes]) -> None:
    for chunk in chunks:
        scan.feed(chunk)
    scan.finish()


def cut_at(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


def scan_lines(expression: str, chunks: list[bytes], **limits: int) -> tuple[bool, bool]:
    """Return the same as `reference`, by the scan."""
    scan = ask(expression, every=frozenset([0]), **limits).begin()
    feed(scan, chunks)
    return scan.answers.some[0], scan.answers.every[0]


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
    assume(is_expression(expression))
    assert scan_lines(expression, cut_at(data, cuts)) == reference(expression, data)


@pytest.mark.parametrize("spent_s", [0, 1], ids=["quick together", "always too slow together"])
@given(st.lists(EXPRESSIONS, min_size=1, max_size=12), DATA, st.lists(st.integers(0, 40)))
@example(["a.*b", "b.*a", "^b", "b$", "[ab]a"], b"ab\nba\nab\nb\n", [])
@example([r"\Qa", "a)", "(b", "b"], b"a)\n(b", [])
@example(["aAb|a.*bb", "[ab]ab|aAb|A{2}"], b"bab\nabxb\naAa\nbb\n", [])
@example(["a.*aAb", "b+aAb+", "aAb"], b"aAb\nxx\nb\n\naab\nbaAb\n", [])
@example(["(?P<name>a)", "(?P<name>b)", "[é]"], b"b\n\xc3\xa9", [])
def test_many_patterns_together_are_the_same_as_each_by_itself(
    spent_s: int, expressions: list[str], data: bytes, cuts: list[int]
) -> None:
    kept = [expression for expression in expressions if is_expression(expression)]
    expected = {index: reference(expression, data)[0] for index, expression in enumerate(kept)}
    clock = itertools.count(step=spent_s)
    patterns = PatternSet(
        [compile_lines(expression) for expression in kept],
        # So small that a few bytes are as a large file.
        costs=Costs(piece_bytes=4, measured_bytes=1, pattern=12, rejoin_lines=0),
        clock=lambda: next(clock),
    )
    question = LineQuestion(patterns, some=frozenset(expected), every=frozenset(), check=lambda: None)
    for _ in range(3):
        scan = question.begin()
        feed(scan, cut_at(data, cuts))
        assert scan.answers.some == expected
    assert question.answer(data).some == expected


def test_a_file_without_lines_matches_nothing_and_not_every_line() -> None:
    assert scan_lines("", []) == (False, False)
    assert scan_lines("^$", [b"\n"]) == (True, True)


def test_a_needle_behind_a_line_of_a_megabyte_is_found() -> None:
    assert scan_lines("^needle$", [b"x" * (1 << 20), b"x\nneed", b"le\n"]) == (True, False)


def test_a_line_longer_than_the_window_is_matched_in_overlapping_pieces_and_said() -> None:
    scan = ask(
        "needle", "^x+$", "^after$", every=frozenset([1]), max_line_bytes=100, overlap_bytes=10
    ).begin()
    feed(scan, [b"x" * 96, b"need", b"le" + b"x" * 300, b"\nafter\n"])
    assert scan.is_cut
    assert scan.answers == ({0: True, 1: True, 2: True}, {1: False})


def test_a_line_within_the_window_is_not_said_to_be_cut() -> None:
    scan = ask("a", max_line_bytes=100).begin()
    feed(scan, [b"x" * 100])
    assert (scan.is_cut, scan.answers.some) == (False, {0: False})


def test_a_scan_is_closed_once_all_is_answered() -> None:
    scan = ask("a", "b", every=frozenset([1])).begin()
    scan.feed(b"a\n")
    assert scan.is_open()
    scan.feed(b"b\n")
    assert not scan.is_open()
    assert scan.answers == ({0: True, 1: True}, {1: False})


def test_patterns_that_nobody_needs_any_more_are_dropped() -> None:
    scan = ask("a", "b").begin()
    scan.keep_only(some={1}, every=set())
    scan.feed(b"a b\n")
    assert scan.answers.some == {1: True}


def test_memory_for_one_endless_line_is_bounded_by_the_window() -> None:
    scan = ask("q", max_line_bytes=1 << 16).begin()
    held = 0
    for _ in range(200):
        scan.feed(b"\x00" * 4096)
        held = max(held, sum(map(len, scan._pending)))
    assert held <= (1 << 16) + 4096


def test_a_file_at_hand_is_answered_as_one_that_comes_in_pieces() -> None:
    question = ask("needle", "x+needle")
    for data in (b"", b"\n", b"needle", b"xneedle\r\n", b"other\n"):
        scan = question.begin()
        feed(scan, [data])
        assert question.answer(data) == scan.answers
