"""Targets as a whole: printing, what endpoints enforce, and the examples that people read."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given

from protocol.errors import InvalidInput
from protocol.target import Endpoint, Target, parse_target
from protocol.target_tree import MAP_COLUMNS, TEXT_COLUMNS, And
from tests.support.targets import WEB, endpoints, has_platform_terms, targets


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("Agents.OS!='x'", "os <> 'x'"),
        ("((os='a') and ((name='b')) and (arch='c'))", "os = 'a' AND name = 'b' AND arch = 'c'"),
        ("(os='a' and name='b') or arch='c'", "os = 'a' AND name = 'b' OR arch = 'c'"),
        ("os='a' and (name='b' or arch='c')", "os = 'a' AND (name = 'b' OR arch = 'c')"),
        ("not (os='a' and name='b')", "NOT (os = 'a' AND name = 'b')"),
        ("not (not os='a')", "NOT NOT os = 'a'"),
        ("name in('a','it''s')", "name IN ('a', 'it''s')"),
        ("name not ilike 'A%'", "name NOT ILIKE 'A%'"),
        ("name !~* 'a'", "name !~* 'a'"),
        ("heartbeattime>now()-interval '120 second'", "heartbeattime > NOW() - INTERVAL '2 minutes'"),
        ("heartbeattime>now()-interval '1 week'", "heartbeattime > NOW() - INTERVAL '7 days'"),
        ("heartbeattime>now()-interval '90061 seconds'", "heartbeattime > NOW() - INTERVAL '90061 seconds'"),
        ("heartbeattime<now()-interval '0 days'", "heartbeattime < NOW()"),
        ("tags->>'o''k' is not null", "tags->>'o''k' IS NOT NULL"),
    ],
)  # fmt: skip
def test_a_target_prints_in_one_form(text: str, printed: str) -> None:
    assert str(parse_target(text)) == printed


@pytest.mark.parametrize(
    ("text", "enforced"),
    [
        ("status = 'online'", "TRUE"),
        ("status = 'online' AND heartbeattime > NOW() - INTERVAL '5 minutes'", "TRUE"),
        ("status = 'online' AND os = 'linux'", "os = 'linux'"),
        ("(os = 'linux' AND status IN ('online')) AND arch = 'amd64'", "os = 'linux' AND arch = 'amd64'"),
        ("heartbeattime IS NOT NULL AND (os = 'a' OR os = 'b')", "os = 'a' OR os = 'b'"),
        ("os = 'linux' OR os = 'darwin'", "os = 'linux' OR os = 'darwin'"),
    ],
)
def test_endpoints_enforce_what_is_left_without_the_platforms_terms(text: str, enforced: str) -> None:
    assert str(parse_target(text).enforced()) == enforced


def test_an_endpoint_that_knows_no_status_matches_no_condition_on_it() -> None:
    endpoint = msgspec.structs.replace(WEB, status=None, heartbeattime=None, now=None)
    assert not parse_target("status = 'online'").matches(endpoint)
    assert not parse_target("heartbeattime < NOW()").matches(endpoint)
    assert parse_target("status = 'online'").enforced().matches(endpoint)


@given(targets, endpoints())
def test_what_endpoints_enforce_never_leaves_out_an_endpoint_that_matches(
    target: Target, endpoint: Endpoint
) -> None:
    enforced = target.enforced()
    assert enforced.matches(endpoint) or not target.matches(endpoint)
    assert not has_platform_terms(enforced.tree)


@given(targets)
def test_every_tree_prints_to_text_that_parses_to_it(target: Target) -> None:
    assert parse_target(str(target)) == target
    assert hash(parse_target(str(target))) == hash(target)


def test_a_target_equals_only_targets_and_shows_itself() -> None:
    assert parse_target("TRUE") == parse_target("true")
    assert repr(parse_target("true")) == "Target('TRUE')"
    assert parse_target("TRUE") != "TRUE"
    assert isinstance(parse_target("os='a' AND (os='b' AND os='c')").tree, And)


_DOCUMENT = (Path(__file__).parents[2] / "docs" / "targets.md").read_text(encoding="utf-8")


def _blocks(kind: str) -> list[str]:
    """Return the lines of the fenced blocks of this kind."""
    return "\n".join(
        re.findall(rf"^```{kind}\n(.*?)\n```$", _DOCUMENT, re.DOTALL | re.MULTILINE)
    ).splitlines()


def _column(heading: str, number: int) -> list[str]:
    """Return the code in one column of the table whose heading line begins so."""
    table = _DOCUMENT.partition(f"\n{heading}")[2].partition("\n\n")[0].splitlines()[2:]
    return [row.split(" | ")[number].strip("| ")[1:-1] for row in table]


EXAMPLES = _blocks("sql") + _column("| Name |", 2) + _column("| Signed |", 0) + _column("| Signed |", 1)


def test_the_examples_are_found() -> None:
    assert len(_blocks("sql")) == 11
    assert len(_blocks("refused")) == 11
    assert len(EXAMPLES) == 27


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_in_the_documentation_parses_and_prints_as_written(text: str) -> None:
    assert str(parse_target(text)).replace("(", "").replace(")", "") == text.replace("(", "").replace(")", "")


@pytest.mark.parametrize("text", _blocks("refused"))
def test_every_example_of_what_is_refused_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="^bad-target: "):
        parse_target(text)


@pytest.mark.parametrize(
    ("signed", "enforced"), [*zip(_column("| Signed |", 0), _column("| Signed |", 1), strict=True)]
)
def test_the_documentation_says_what_endpoints_enforce(signed: str, enforced: str) -> None:
    assert str(parse_target(signed).enforced()) == enforced


def test_the_documentation_names_every_column() -> None:
    named = [each.partition("->>")[0] for each in _column("| Name |", 0)]
    assert sorted(named) == sorted([*TEXT_COLUMNS, *MAP_COLUMNS, "heartbeattime"])
