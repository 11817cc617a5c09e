"""Tests of which lines are wanted, and of counting what is known of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.log_question import MAX_VALUES, Captures, LineFilter, Tally, Window, value_text

EXPRESSIONS = ["needle", "^a", "b$", "", "x*", r"\Aa", "[^x]$", "n.*e", "é", "(?i)NEEDLE"]


def wanted(expressions: list[str], text: bytes) -> list[bytes]:
    return [text[start:end] for start, end in LineFilter(expressions).lines(text)]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@given(st.lists(st.sampled_from([b"", b"a", b"b", b"needle", b"x", b"a needle b", b"\xff", "é".encode()])))
def test_a_text_of_many_lines_is_searched_as_line_by_line(expression: str, lines: list[bytes]) -> None:
    one_by_one = [line for line in lines or [b""] if LineFilter([expression]).admits(line)]
    assert wanted([expression], b"\n".join(lines)) == one_by_one


def test_any_expression_is_enough_and_what_an_inverted_one_matches_is_left_out() -> None:
    text = b"one\ntwo\none two\nthree\n\none"
    assert wanted(["one", "two"], text) == [b"one", b"two", b"one two", b"one"]
    assert wanted(["one", "!two"], text) == [b"one", b"one"]
    assert wanted(["!o"], text) == [b"three", b""]
    assert wanted([], text) == text.split(b"\n")


def test_of_a_message_with_several_lines_one_is_to_match_and_none_what_is_inverted() -> None:
    message = b"first\nsecond"
    assert LineFilter(["^second$"]).admits(message)
    assert LineFilter([r"\Asecond\z"]).admits(message)
    assert not LineFilter(["first.second"]).admits(message)
    assert not LineFilter(["first", "!second"]).admits(message)


def test_named_groups_give_what_they_hold() -> None:
    captures = Captures([r"user (?P<user>\S+)( from (?P<host>\S+))?", "!(?P<not>x)", "plain"])
    assert captures.names == {"user", "host"}
    assert captures.of(b"user eve from host7") == {"user": b"eve", "host": b"host7"}
    assert captures.of(b"junk\nuser eve") == {"user": b"eve"}
    assert captures.of(b"plain") == {}
    assert Captures(["plain"]).names == frozenset()


def test_a_window_has_its_beginning_and_not_its_end() -> None:
    window = Window(10, 20)
    assert [at for at in (9, 10, 19, 20) if window.holds(at)] == [10, 19]
    assert Window().holds(-5)
    assert Window().is_open
    assert not Window(None, 3).is_open


def test_tallies_of_parts_make_one_of_the_whole() -> None:
    whole, first, second = Tally(["a"]), Tally(["a"]), Tally(["a"])
    for part, time_ns, value in ((first, 5, "x"), (second, 3, "x"), (second, None, "y"), (first, 9, None)):
        part.add(time_ns, (value,))
        whole.add(time_ns, (value,))
    first.merge(second)
    for tally in (whole, first):
        assert (tally.count, tally.undated, tally.first_ns, tally.last_ns) == (3, 1, 3, 9)
        assert tally.values == ({"x": 2, "y": 1},)
    assert Tally().is_empty()


def test_values_beyond_the_bound_are_counted_together() -> None:
    tally = Tally(["a"])
    for number in range(MAX_VALUES + 5):
        tally.add(1, (str(number),))
    tally.add(1, ("0",))
    assert len(tally.values[0]) == MAX_VALUES + 1
    assert tally.values[0][None] == 5
    assert tally.values[0]["0"] == 2


def test_a_value_is_cut_and_never_more_than_text() -> None:
    assert value_text(b"\xff\x1b[2J") == "�\x1b[2J"
    assert len(value_text(b"a" * 10_000)) == 256
