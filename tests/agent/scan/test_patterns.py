"""Tests of regular expressions on an endpoint, with and without an engine for them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from agent.execute import run_operation
from agent.module import Context, decode_params
from agent.registry import load_module
from agent.scan import patterns
from protocol.errors import InvalidInput
from tests.agent.scan.runs import find, grow, run

HOSTILE = "^(a+)+$"


@pytest.fixture
def without_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "re2", None)
    patterns._engine.cache_clear()
    yield
    monkeypatch.undo()
    patterns._engine.cache_clear()


@pytest.mark.usefixtures("without_engine")
@pytest.mark.parametrize("field", ["names", "modes", "contents"])
def test_without_an_engine_expressions_are_refused_as_unsupported(field: str) -> None:
    result = run_operation("file", {"searches": {"s1": {"paths": ["/etc"], field: ["a"]}}}, Context())
    assert (result.status, result.found) == ("unsupported", False)
    assert "needs google-re2" in result.notes[0]


@pytest.mark.usefixtures("without_engine")
def test_without_an_engine_searches_by_size_and_hash_run() -> None:
    assert run(s1={"paths": ["/etc/passwd"], "sizes": [">1"]}).found


def test_a_pattern_that_hangs_a_backtracking_engine_ends_at_once() -> None:
    line = b"a" * 100_000 + b"!"
    assert patterns.TextPattern(HOSTILE).is_in(line) is False
    assert patterns.compile_lines(HOSTILE).pattern.search(line) is None


@pytest.mark.parametrize(
    ("expression", "by_block"),
    [
        ("^a$", True),
        ("(?i)a", True),
        ("(?P<name>a)", True),
        ("(?:m)", True),
        ("(?m)a", False),
        ("(?i-m:^a)", False),
        (r"\Aa", False),
        (r"a\z", False),
        (r"\C", False),
    ],
)
def test_only_what_means_the_same_on_many_lines_is_searched_in_blocks(
    expression: str, *, by_block: bool
) -> None:
    assert patterns.compile_lines(expression).by_block is by_block


# As UTF-8, `\\pL` is many ranges of bytes; as Latin-1, which lines are matched in, it is a few.
LETTERS = r"\pL{1000}"
MANY = "|".join(f"(?:[ab]*a[ab]{{{n}}}c)" for n in range(500, 600))


@pytest.mark.parametrize(
    ("field", "expression"),
    [
        ("names", LETTERS),
        ("names", "(?:a{1000}){1000}"),
        ("contents", "(?:a{1000}){1000}"),
        ("contents", MANY),
    ],
)
def test_an_expression_too_large_for_an_endpoint_is_refused_before_a_file_is_touched(
    field: str, expression: str
) -> None:
    with pytest.raises(InvalidInput, match="too large|not a regular expression"):
        decode_params(load_module("file").params, {"searches": {"s1": {"paths": ["/"], field: [expression]}}})


def test_what_is_large_in_another_encoding_only_is_searched_for(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"x" * 1000, "b": b"x" * 999})
    assert find(tmp_path, contents=[LETTERS]) == ["a"]


def test_what_an_automaton_has_no_memory_for_is_found_all_the_same() -> None:
    expressions = [f"[ab]*a[ab]{{{n}}}c" for n in range(100, 112)]
    random = Random(1)  # noqa: S311  (repeatable, protects nothing)
    text = bytes(random.choice(b"ab") for _ in range(10_000))
    joined = patterns.Joined([patterns.compile_lines(expression) for expression in expressions])
    assert joined.pattern.search(text) is None
    line = b"a" + b"b" * 105 + b"c"
    assert joined.pattern.search(text + b"\n" + line + b"\n") is not None
    assert joined.which(line) == [5]


def test_expressions_too_large_for_a_set_are_told_apart_one_by_one() -> None:
    expressions = [*(f"x{number}[ab]{{999}}c" for number in range(86)), "^x7", "aa$"]
    joined = patterns.Joined([patterns.compile_lines(expression) for expression in expressions])
    assert joined._make_set() is None
    for _ in range(2):
        assert joined.which(b"x7aa") == [86, 87]
