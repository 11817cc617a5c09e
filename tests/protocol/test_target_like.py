"""LIKE against a slow and plain reading of what it means."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.target_like import Wildcard, compile_like, fold, parse_like
from tests.support.targets import NASTY, endpoint_texts, like_patterns


def _as_regex(pattern: str) -> str:
    """Translate to an expression that backtracks: the meaning, at any price."""
    translated = {Wildcard.RUN: "(?:.*)", Wildcard.ONE: "."}
    return "".join(translated[i] if isinstance(i, Wildcard) else re.escape(i) for i in parse_like(pattern))


_short = st.text(st.sampled_from("ab%_é"), max_size=8)


@given(st.one_of(like_patterns, _short), st.one_of(endpoint_texts, _short))
@example("a%a", "a")
@example("ab%ba", "aba")
@example("%a%a%", "a")
@example("_%_", "a")
@example("%", "")
@example("_", "")
def test_like_means_what_the_plain_translation_means(pattern: str, value: str) -> None:
    expected = re.fullmatch(_as_regex(pattern), value, re.DOTALL) is not None
    assert compile_like(pattern, ignore_case=False)(value) is expected


@given(st.one_of(like_patterns, _short), st.one_of(endpoint_texts, _short))
def test_both_ways_to_match_agree(pattern: str, value: str) -> None:
    # A pattern with `_` takes the automaton: `_%` before both asks the same of one character more.
    by_pieces = compile_like("%" + pattern, ignore_case=True)
    by_bits = compile_like("%_" + pattern, ignore_case=True)
    assert by_bits("x" + value) is by_pieces(value)


@pytest.mark.parametrize(
    ("pattern", "value", "is_match"),
    [
        ("WEB%", "web1", True),
        ("é", "É", True),
        ("ß", "ẞ", True),
        ("ς", "Σ", False),  # Σ is compared as the small sigma inside a word
        ("k", "\u212a", False),  # the Kelvin sign
        ("\u212a", "K", False),
        ("i", "İ", False),
        ("ss", "ß", False),
        ("_", "İ", True),
        ("\\A%", "abc", True),
    ],
)
def test_ilike_folds_one_character_at_a_time(pattern: str, value: str, is_match: bool) -> None:  # noqa: FBT001
    assert compile_like(pattern, ignore_case=True)(value) is is_match


@given(st.one_of(st.text(), st.sampled_from(NASTY)))
def test_folding_keeps_the_length_and_never_crosses_into_ascii(text: str) -> None:
    assert len(fold(text)) == len(text)
    assert [c.isascii() for c in fold(text)] == [c.isascii() for c in text]
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize("pattern", ["%a" * 512, "%_a" * 341, "_%" * 512, "a%" * 511 + "_b"])
def test_patterns_that_ruin_backtracking_end_at_once(pattern: str) -> None:
    # A backtracking matcher would not live to see the end of this.
    assert not compile_like(pattern, ignore_case=False)("a" * 200 + "!")
    assert compile_like(pattern + "%", ignore_case=False)("a" * 2000) is not pattern.endswith("b")


@pytest.mark.parametrize("pattern", ["\\", "a\\", "\\\\\\"])
def test_a_pattern_may_not_end_with_its_escape(pattern: str) -> None:
    with pytest.raises(ValueError, match="ends with a backslash"):
        compile_like(pattern, ignore_case=False)
