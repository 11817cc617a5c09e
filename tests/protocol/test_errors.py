"""Refusals and failures: every code is in the one table, every detail is one line."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import (
    CODES,
    EXIT_FOUND,
    EXIT_OUT_OF_REACH,
    MAX_DETAIL,
    EnvironmentFailure,
    InvalidInput,
    MigError,
)

ROOT = Path(__file__).parents[2]
SOURCES = [path for name in ("agent", "client", "protocol", "server") for path in (ROOT / name).rglob("*.py")]
SOURCES += [ROOT / "build_zipapp.py"]
RAISED = ("InvalidInput", "EnvironmentFailure")


def literals(tree: ast.AST) -> Iterator[str]:
    """Yield the codes that are written where an error is made."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in RAISED:
            for part in ast.walk(node.args[0]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


def words(tree: ast.AST) -> Iterator[str]:
    """Yield every string of the source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def tree_of(path: Path) -> ast.AST:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_code_that_is_raised_is_in_the_table(path: Path) -> None:
    assert set(literals(tree_of(path))) - {"code"} <= set(CODES)


@pytest.mark.slow
def test_every_code_of_the_table_is_raised_somewhere() -> None:
    table = ROOT / "protocol" / "errors.py"
    used = {word for path in SOURCES if path != table for word in words(tree_of(path))}
    assert set(CODES) <= used


def test_every_code_has_a_status_an_exit_code_and_a_text() -> None:
    for code, info in CODES.items():
        assert code == code.lower()
        assert 400 <= info.http < 600, code
        assert EXIT_FOUND < info.exit <= EXIT_OUT_OF_REACH, code
        assert info.text
        assert info.text.isprintable()


def test_a_code_that_is_not_in_the_table_cannot_be_raised() -> None:
    with pytest.raises(KeyError, match="no-such-code"):
        raise InvalidInput("no-such-code")


def test_an_error_without_detail_says_what_its_code_means() -> None:
    assert str(InvalidInput("expired")) == "expired: the action has expired"
    assert str(InvalidInput("expired", "since noon")) == "expired: since noon"


def test_a_failure_of_the_environment_says_whether_to_try_again() -> None:
    assert EnvironmentFailure("server-away", retryable=True).retryable
    assert not EnvironmentFailure("server-away").retryable


@pytest.mark.parametrize(
    ("detail", "line"),
    [
        ("in words: é 漢字", "in words: é 漢字"),
        ("a\nb\tc\x1b[2J\x00", r"a\nb\tc\x1b[2J\x00"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("x" * 5000, "x" * 999 + "…"),
    ],
)
def test_details_never_carry_control_characters(detail: str, line: str) -> None:
    assert InvalidInput("bad-json", detail).detail == line


@given(st.text() | st.text(max_size=8).map(lambda text: text * 1000))
def test_any_detail_becomes_one_short_line(detail: str) -> None:
    error = MigError("bad-json", detail)
    assert error.detail.isprintable()
    assert 0 < len(error.detail) <= 2 * MAX_DETAIL
