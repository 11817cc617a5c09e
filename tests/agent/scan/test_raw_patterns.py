"""Tests of looking for patterns in raw bytes that come in pieces."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.raw_patterns import (
    REACH_BYTES,
    RawSearch,
    compile_expression,
    compile_string,
    require_expression,
)
from protocol.errors import InvalidInput


def offsets(search: RawSearch) -> list[list[int]]:
    return [one.offsets for one in search.places()]


def run(
    data: bytes, patterns: list[str], pieces: int, *, start: int = 0, most: int = 1000
) -> list[list[int]]:
    """Look for patterns, those in hexadecimal as byte strings, in bytes that come in pieces."""
    made = [compile_string(one[1:]) if one.startswith("=") else compile_expression(one) for one in patterns]
    search = RawSearch(made, most=most)
    search.begin(start)
    for at in range(0, len(data), pieces):
        search.feed(data[at : at + pieces])
    search.finish()
    return offsets(search)


@given(
    parts=st.lists(st.sampled_from([b"needle", b"need", b"le", b"\n", b"\0", b"aa", b"x" * 50])),
    pieces=st.integers(1, 40),
    start=st.integers(0, 5000),
)
def test_places_are_the_same_however_the_bytes_come(parts: list[bytes], pieces: int, start: int) -> None:
    data = b"".join(parts)
    patterns = ["=6e6565646c65", "=6161", "n.*e", "^le$", r"\bneed\b", "x{10}"]
    expected = [
        [found.start() for found in re.finditer(b"(?=needle)", data)],
        [found.start() for found in re.finditer(b"(?=aa)", data)],
        *(
            [found.start() for found in re.finditer(expression, data, re.MULTILINE)]
            for expression in (b"n.*e", b"^le$", rb"\bneed\b", b"x{10}")
        ),
    ]
    assert run(data, patterns, pieces, start=start) == [[at + start for at in one] for one in expected]


@pytest.mark.parametrize("at", [REACH_BYTES - 3, 2 * REACH_BYTES - 1, 3 * REACH_BYTES])
def test_a_match_across_pieces_that_are_larger_than_what_is_searched_again_is_found(at: int) -> None:
    data = bytearray(5 * REACH_BYTES)
    data[at : at + 6] = b"needle"
    for pieces in (REACH_BYTES, REACH_BYTES + 1, at + 3, len(data)):
        assert run(bytes(data), ["=6e6565646c65", "need.e", "(?i)NEEDLE"], pieces) == [[at]] * 3


def test_bytes_that_could_not_be_read_join_nothing_and_move_what_follows() -> None:
    search = RawSearch([compile_string("6162"), compile_expression("ab")], most=10)
    search.begin(100)
    search.feed(b"xab a")
    search.begin(1000)
    search.feed(b"b ab")
    search.finish()
    assert offsets(search) == [[101, 1002], [101, 1002]]


def test_what_was_found_often_enough_is_looked_for_no_more() -> None:
    search = RawSearch([compile_string("61"), compile_expression("[ab]"), compile_string("63")], most=3)
    search.feed(b"aaaaabbbbb")
    search.finish()
    assert offsets(search) == [[0, 1, 2], [0, 1, 2], []]
    assert [one.is_cut for one in search.places()] == [True, True, False]
    assert search.is_open()


def test_an_expression_is_one_on_bytes() -> None:
    assert run(b"\x00\xff\xfe", [r"\xff.", "[^a]{2}"], 10) == [[1], [0]]
    assert run("xé".encode(), ["é", "[éè]"], 1) == [[1], [1]]


@pytest.mark.parametrize("expression", ["x*", "", "^", "$", r"\Aab", r"ab\z", "(a|)"])
def test_what_means_nothing_on_raw_bytes_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="contents"):
        require_expression(expression)


def test_what_is_no_expression_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a regular expression"):
        require_expression("(")
    require_expression("a+")


def test_looking_can_be_ended_between_matches() -> None:
    def check() -> None:
        raise InvalidInput("cancelled", "now")

    search = RawSearch([compile_string("61")], most=5, check=check)
    with pytest.raises(InvalidInput, match="cancelled"):
        search.feed(b"aaa")
