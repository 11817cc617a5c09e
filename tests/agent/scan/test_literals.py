"""Tests of literals derived from expressions: what is said to be required is in whatever matches."""

import pytest
import re2
from hypothesis import assume, example, given
from hypothesis import strategies as st

from agent.scan.literals import MAX_LITERAL_BYTES, common_texts, probe_of, required_literals

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
    if is_match(expression, text):
        literals = required_literals(expression)
        assert not literals or any(literal in text.encode() for literal in literals)


@pytest.mark.parametrize(
    ("expression", "literals"),
    [
        ("needle", [b"needle"]),
        (r"/etc/cron\.d", [b"/etc/cron.d"]),
        ("[a-z]+-needle-[0-9]+", [b"-needle-"]),
        (r"^root:.*:/bin/(ba)?sh$", [b":/bin/"]),
        ("abcd?ef", [b"abc"]),
        ("(needle)", []),
        ("needle|other[0-9]", [b"needle", b"other"]),
        ("needle|[0-9]", []),
        ("needle|", []),
        ("aa|bb|cc|dd|ee|ff|gg", []),
        ("(?i)needle", []),
        ("[0-9]x[0-9]", []),
        ("", []),
        ("n" * 100, [b"n" * MAX_LITERAL_BYTES]),
    ],
)
def test_the_longest_text_that_each_alternative_surely_requires(
    expression: str, literals: list[bytes]
) -> None:
    assert required_literals(expression) == tuple(literals)


@pytest.mark.parametrize(
    ("literal", "probe"),
    [
        (b"migbench-needle", b"-needle"),
        (b" Accepted", b"Accepted"),
        (b"eval(", b"val("),
        (b"ab", b"ab"),
        (b"x", b"x"),
        (b"\x00\x00", b"\x00\x00"),
        (b"\x00\x00\x90MZ\x00", b"\x90MZ\x00"),
    ],
)
def test_a_literal_is_looked_for_from_its_rarest_byte_on(literal: bytes, probe: bytes) -> None:
    assert probe_of(literal) == probe


@given(st.binary(min_size=1, max_size=40))
def test_a_probe_is_in_its_literal(literal: bytes) -> None:
    assert literal.endswith(probe_of(literal))
    assert len(probe_of(literal)) >= min(3, len(literal))


@given(st.lists(st.text("abc", max_size=8).map(str.encode), max_size=10), st.integers(0, 4))
def test_each_literal_holds_one_of_the_texts_in_common(literals: list[bytes], most: int) -> None:
    texts = common_texts(literals, most)
    assert len(texts) <= most
    if texts:
        assert all(any(text in literal for text in texts) for literal in literals)


def test_what_literals_have_in_common_is_found() -> None:
    literals = [b"_evil%02d" % number for number in range(40)]
    assert common_texts(literals, 1) == (b"_evil",)
    assert common_texts([*literals, b"-needle-"], 2) == (b"_evil", b"-needle-")
    assert common_texts([*literals, b"-needle-"], 1) == ()
    assert common_texts([*literals, b""], 3) == ()
    assert common_texts([], 3) == ()
