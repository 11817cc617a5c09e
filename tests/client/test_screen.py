import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.screen import csv_cell, printable

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(st.text(alphabet=st.characters()))
def test_nothing_hidden_is_left_in_any_text(text: str) -> None:
    assert not {unicodedata.category(character) for character in printable(text)} & HIDDEN


@given(st.text(alphabet=st.characters()))
def test_no_csv_cell_is_a_formula_or_holds_anything_hidden(text: str) -> None:
    cell = csv_cell(text)
    assert cell[:1] not in {"=", "+", "-", "@"}
    assert not {unicodedata.category(character) for character in cell} & HIDDEN


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\r", "a\\x0ab\\x0d"),
        ("exe\u202etxt.", "exe\\u202etxt."),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("a\u200bb", "a\\u200bb"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("no\u00a0break", "no\\xa0break"),
        ("näh 文", "näh 文"),
    ],
)
def test_what_does_not_show_itself_is_written_as_an_escape(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown


def test_a_long_text_is_cut_and_says_so() -> None:
    assert printable("x" * 5000, 10) == "xxxxxxxxxx ... (5000 characters)"
