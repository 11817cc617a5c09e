"""Tests of literals derived from expressions: what is said to be required is in whatever matches."""

import pytest
import re2
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agent.scan.literals import MAX_LITERAL_BYTES, Literal, required_literal

ATOMS = [
    "a", "b", "ab", "c", r"\.", ".", "[ab]", "[]a]", "[^]b]", "[[:alpha:]a]", r"[\]b]", "(", ")", "(?:", "|",
    "*", "+", "?", "{0}", "{2}", "{,2}", "{", "}", "]", "^", "$", r"\b", r"\d", r"\x41", r"\Q", "(?i)", "\\",
    "(?P<n>", "(ab)", "(a|b)", "(?i:AB)", "[a", "[[:", "-", " ", "é", "\n", "\r", r"\pL", r"\C", "_",
]  # fmt: skip
PARTS = st.lists(st.sampled_from(ATOMS), min_size=1, max_size=8).map("".join)
CHARACTERS = ["a", "b", "ab", "c", ".", "A", "B", "é", "}", "{", "]", "-", " ", "_"]
TEXTS = st.lists(st.sampled_from(CHARACTERS), max_size=8).map("".join)


def is_match(expression: str, text: str) -> bool:
    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile("(?m)" + expression, options)
    except re2.error:
        assume(False)  # noqa: FBT003
    return pattern.search(text) is not None


@given(PARTS, TEXTS)
@example("ab{0}c", "ac")
@example("a+*b", "b")
@example("ab|c", "c")
@example("(?i)ab", "AB")
@example("x[[:]a:]b", "xa")
def test_a_text_without_what_is_required_does_not_match(expression: str, text: str) -> None:
    literal, is_all = required_literal(expression)
    found = is_match(expression, text)
    if literal:
        assert not found or literal in text.encode()
    if is_all:
        assert found is (literal in text.encode())


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("needle", Literal(b"needle", is_all=True)),
        (r"/etc/cron\.d", Literal(b"/etc/cron.d", is_all=True)),
        ("x", Literal(b"x", is_all=True)),
        ("[a-z]+-needle-[0-9]+", Literal(b"-needle-")),
        (r"^root:.*:/bin/(ba)?sh$", Literal(b":/bin/")),
        ("abcd?ef", Literal(b"abc")),
        ("(needle)", Literal()),
        ("needle|other", Literal()),
        ("(?i)needle", Literal()),
        ("[0-9]x[0-9]", Literal()),
        ("", Literal()),
        ("n" * 100, Literal(b"n" * MAX_LITERAL_BYTES)),
    ],
)
def test_the_longest_text_that_an_expression_surely_requires(expression: str, expected: Literal) -> None:
    assert required_literal(expression) == expected
