"""Tests of regular expressions on an endpoint, with and without an engine for them."""

import sys
from collections.abc import Iterator

import pytest

from agent.execute import run_operation
from agent.module import Context
from agent.scan import patterns
from tests.agent.scan.runs import run

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
    assert patterns.compile_lines(HOSTILE).line.search(line) is None


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
    assert (patterns.compile_lines(expression).block is not None) is by_block
