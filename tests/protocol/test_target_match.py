"""Whom a target matches."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given

from protocol.target import Endpoint, Target, parse_target
from protocol.target_tree import Not
from tests.support.targets import NASTY, WEB, endpoints, targets

MATCHING = [
    "TRUE",
    "true",
    "os = 'linux'",
    "OS='linux'",
    "agents.os = 'linux'",
    "Agents . os = 'linux'",
    "agents.tags->>'operator' = 'ops'",
    "os <> 'windows'",
    "os != 'windows'",
    "name < 'web2'",
    "name <= 'web1.example.net'",
    "name > 'web'",
    "name >= 'WEB1'",
    "name LIKE 'web%'",
    "name like 'web_.%.net'",
    "name NOT LIKE 'web'",
    "name NOT LIKE 'WEB%'",
    "name ILIKE 'WEB%'",
    "name NOT ILIKE 'DB%'",
    "tags->>'büro' ILIKE 'kÖLN'",
    "environment->>'it''s' = '100%'",
    "environment->>'it''s' LIKE '%\\%'",
    "environment->>'it''s' NOT LIKE '%\\_'",
    "name ~ '^web[0-9]+\\.'",
    "name ~ 'eb1'",
    "name ~* '^WEB'",
    "name !~ '^WEB'",
    "name !~* '^DB'",
    "tags->>'operator' IN ('ops','it')",
    "tags->>'operator' IN ('ops')",
    "tags->>'operator' NOT IN ('it')",
    "tags->>'missing' IS NULL",
    "tags->>'empty' IS NOT NULL",
    "tags->>'empty' = ''",
    "os IS NOT NULL",
    "status = 'online'",
    "status IN ('online', 'idle')",
    "heartbeattime > NOW() - INTERVAL '5 minutes'",
    "heartbeattime > now() - interval '2 Minute'",
    "heartbeattime <= NOW ( ) - INTERVAL ' 100 seconds '",
    "heartbeattime < NOW()",
    "heartbeattime IS NOT NULL",
    "os = 'linux' AND name LIKE 'web%' AND tags->>'operator' IN ('it') OR NOT environment->>'init' = 'rc'",
    "NOT os = 'windows' AND NOT NOT os = 'linux'",
    "os = 'windows' AND arch = 'arm64' OR os = 'linux'",
    "os = 'linux'\n  AND (\tarch = 'arm64' OR arch = 'amd64' )",
    "((os = 'linux'))",
    "NOT (os = 'windows' OR arch = 'arm64')",
    "tags->>'missing' = 'x' OR os = 'linux'",
    "NOT (tags->>'missing' = 'x' AND os = 'windows')",
]

NOT_MATCHING = [
    "NOT TRUE",
    "os = 'Linux'",
    "os = 'linux '",
    "name LIKE 'web'",
    "name LIKE 'WEB%'",
    "name LIKE '%_______________________________'",
    "name ~ '^eb'",
    "name ~ 'WEB'",
    "tags->>'operator' IN ('Ops')",
    "tags->>'Operator' = 'ops'",
    "tags->>'empty' IS NULL",
    "heartbeattime > NOW() - INTERVAL '99 seconds'",
    "heartbeattime IS NULL",
    "status = 'offline'",
    "os = 'linux' AND (arch = 'arm64' OR arch = '386')",
    # A tag that is missing is NULL: neither equal nor different, whatever is asked of it.
    "tags->>'missing' = 'x'",
    "tags->>'missing' <> 'x'",
    "NOT tags->>'missing' = 'x'",
    "NOT tags->>'missing' <> 'x'",
    "tags->>'missing' IN ('x')",
    "tags->>'missing' NOT IN ('x')",
    "tags->>'missing' LIKE '%'",
    "tags->>'missing' NOT LIKE 'x'",
    "tags->>'missing' !~ 'x'",
    "tags->>'missing' = 'x' AND os = 'linux'",
    "NOT (tags->>'missing' = 'x' AND os = 'linux')",
    "NOT (tags->>'missing' = 'x' OR os = 'windows')",
    "tags->>'missing' = 'x' OR os = 'windows'",
]


@pytest.mark.parametrize("text", MATCHING)
def test_a_true_condition_matches(text: str) -> None:
    assert parse_target(text).matches(WEB)


@pytest.mark.parametrize("text", NOT_MATCHING)
def test_a_condition_that_is_false_or_unknown_does_not_match(text: str) -> None:
    assert not parse_target(text).matches(WEB)


@pytest.mark.parametrize("text", MATCHING + NOT_MATCHING)
def test_what_is_printed_parses_to_the_same_target(text: str) -> None:
    target = parse_target(text)
    assert parse_target(str(target)) == target
    assert str(parse_target(str(target))) == str(target)


@given(targets, endpoints())
def test_a_condition_and_its_negation_never_both_match(target: Target, endpoint: Endpoint) -> None:
    assert not (target.matches(endpoint) and Target(Not(term=target.tree)).matches(endpoint))


@pytest.mark.slow
@pytest.mark.parametrize("value", [*NASTY, "\0", "\ud800", "a\udfff", "x" * 5000])
@pytest.mark.parametrize("operator", ["=", "<", "LIKE", "ILIKE", "~", "!~*"])
def test_whatever_an_endpoint_says_there_is_an_answer(operator: str, value: str) -> None:
    endpoint = msgspec.structs.replace(WEB, name=value, tags={"a": value})
    assert parse_target(f"name {operator} 'web' OR tags->>'a' {operator} 'b%' OR TRUE").matches(endpoint)


@pytest.mark.slow
def test_re2_is_imported_by_the_first_target_that_needs_it_and_refused_where_it_is_missing() -> None:
    script = """
import sys
from protocol.errors import InvalidInput
from protocol.target import parse_target
parse_target("os = 'linux' AND name LIKE 'web%'")
assert "re2" not in sys.modules
sys.modules["re2"] = None
try:
    parse_target("name ~ 'x'")
except InvalidInput as error:
    print(error)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == (
        "bad-target: regular expressions need google-re2, which is not installed here, at character 8\n"
    )
