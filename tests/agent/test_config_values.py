"""Tests of the values that a configuration's tables may hold."""

import pytest

from agent.config_values import read_flag, read_number, read_text, read_texts, require_table
from protocol.errors import InvalidInput


def test_values_are_read_or_their_defaults_taken() -> None:
    table = {"text": "x", "number": 5, "flag": False, "texts": ["/a"]}
    assert require_table(table, "[t]", tuple(table)) is table
    assert read_text(table, "text") == "x"
    assert (read_number(table, "number", 1, 0, 9), read_number(table, "none", 1, 0, 9)) == (5, 1)
    assert (read_flag(table, "flag", default=True), read_flag(table, "none", default=True)) == (False, True)
    assert (read_texts(table, "texts", (), 2, prefix="/"), read_texts(table, "none", ("d",), 2)) == (
        ("/a",),
        ("d",),
    )


@pytest.mark.parametrize("value", ["", 5, None])
def test_a_text_that_must_be_there_is_refused_otherwise(value: object) -> None:
    with pytest.raises(InvalidInput, match="text: must be a text"):
        read_text({"text": value}, "text")


@pytest.mark.parametrize("value", [True, "5", 10, -1, 2.0])
def test_a_number_out_of_its_bounds_or_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="from 0 to 9"):
        read_number({"n": value}, "n", 1, 0, 9)


@pytest.mark.parametrize("value", ["/a", ["a"], [""], ["/a", "/b", "/c"], [5]])
def test_a_list_of_other_texts_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="texts"):
        read_texts({"texts": value}, "texts", (), 2, prefix="/")
