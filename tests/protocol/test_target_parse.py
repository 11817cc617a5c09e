"""What the target language refuses, and where its limits are."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidInput
from protocol.target import parse_target
from protocol.target_parse import MAX_DEPTH, MAX_IDS, MAX_PATTERN, MAX_REGEXES, MAX_TERMS

PLATFORM = "only the platform knows status and heartbeattime: not allowed under OR or NOT, at character "
REFUSED = [
    ("", "is expected, not the end, at character 1"),
    ("   ", "not the end, at character 4"),
    ("os", "a comparison is expected, not the end, at character 3"),
    ("os =", "text in single quotes is expected, not the end, at character 5"),
    ("os = linux", "text in single quotes is expected, not 'linux', at character 6"),
    ('os = "linux"', "text stands in single quotes, and names without any, at character 6"),
    ("os = 5", "'5' is not part of the language, at character 6"),
    ("os = 'x", "a quoted string without an end, at character 6"),
    ("os = 'x''", "a quoted string without an end, at character 6"),
    ("os == 'x'", "text in single quotes is expected, not '=', at character 5"),
    ("'linux' = os", "is expected, not 'linux', at character 1"),
    ("1=1", "'1' is not part of the language, at character 1"),
    ("os = 'x' os = 'y'", "AND, OR or the end is expected, not 'os', at character 10"),
    ("os = 'x' AND", "not the end, at character 13"),
    ("(os = 'x'", "\\) is expected, not the end, at character 10"),
    ("os = 'x')", "AND, OR or the end is expected, not '\\)', at character 9"),
    ("os = 'x'; DROP TABLE agents", "';' is not part of the language, at character 9"),
    ("os = 'x' -- y", "AND, OR or the end is expected, not '-', at character 10"),
    ("os = 'x' /* y */", "'/' is not part of the language, at character 10"),
    ("os::text = 'x'", "':' is not part of the language, at character 3"),
    ("os || 'x' = 'y'", "'\\|' is not part of the language, at character 4"),
    ("os IN ()", "text in single quotes is expected, not '\\)', at character 8"),
    ("os IN ('x',)", "text in single quotes is expected, not '\\)', at character 12"),
    ("os IN ('x' 'y')", "\\) is expected, not 'y', at character 12"),
    ("os IN (SELECT os FROM agents)", "text in single quotes is expected, not 'select', at character 8"),
    ("os NOT = 'x'", "LIKE, ILIKE or IN is expected, not '=', at character 8"),
    ("os IS 'x'", "NULL is expected, not 'x', at character 7"),
    ("os = NULL", "text in single quotes is expected, not 'null', at character 6"),
    ("os BETWEEN 'a' AND 'b'", "a comparison is expected, not 'between', at character 4"),
    ("os LIKE 'a!%' ESCAPE '!'", "AND, OR or the end is expected, not 'escape', at character 15"),
    ("os LIKE 'a\\'", "the pattern ends with a backslash, at character 9"),
    ("os ~ '('", "RE2 does not take the pattern: .*, at character 6"),
    ("os ~ '(a)\\1'", "RE2 does not take the pattern: .*, at character 6"),
    ("os ~ '(?=a)'", "RE2 does not take the pattern: .*, at character 6"),
    ("os ~ '\\pL{1000}'", "RE2 does not take the pattern: .*, at character 6"),
    ("queueloc = 'x'", "one of id name .* is expected, not 'queueloc', at character 1"),
    ("other.os = 'x'", "is expected, not 'other', at character 1"),
    ("agents os = 'x'", ". is expected, not 'os', at character 8"),
    ("agents.agents.os = 'x'", "is expected, not 'agents', at character 8"),
    ("tags = 'x'", "tags->>'key' is expected, not '=', at character 6"),
    ("tags->'a' = 'x'", "tags->>'key' is expected, not '-', at character 5"),
    ("tags->>a = 'x'", "a key in single quotes is expected, not 'a', at character 8"),
    ("tags IS NULL", "tags->>'key' is expected, not 'is', at character 6"),
    ("os->>'a' = 'x'", "a comparison is expected, not '->>', at character 3"),
    ("heartbeattime > '2026-01-01'", "NOW is expected, not '2026-01-01', at character 17"),
    ("heartbeattime LIKE '2026%'", "a comparison with NOW\\(\\) is expected, not 'like', at character 15"),
    ("heartbeattime > NOW() - '5 minutes'", "INTERVAL is expected, not '5 minutes', at character 25"),
    ("heartbeattime > NOW() - INTERVAL '5'", "an interval is like '5 minutes': .*, at character 34"),
    ("heartbeattime > NOW() - INTERVAL '-5 minutes'", "an interval is like .*, at character 34"),
    ("heartbeattime > NOW() - INTERVAL '1 month'", "an interval is like .*, at character 34"),
    ("heartbeattime > NOW() - INTERVAL '9999999 days'", "an interval longer than ten years, at character 34"),
    ("os < NOW()", "text in single quotes is expected, not 'now', at character 6"),
    ("os = 'x\0'", "a NUL character, at character 8"),
    ("os = 'x\ud800'", "a character that is not Unicode, at character 8"),
    ("os = 'x'\u00a0AND TRUE", "'\\\\xa0' is not part of the language, at character 9"),
    ("status = 'online' OR os = 'linux'", PLATFORM + "1"),
    ("os = 'linux' OR status = 'online'", PLATFORM + "17"),
    ("NOT status = 'online'", PLATFORM + "5"),
    ("NOT NOT status = 'online'", PLATFORM + "9"),
    ("os = 'x' AND (arch = 'y' OR agents.status IN ('online'))", PLATFORM + "29"),
    ("os = 'x' OR arch = 'y' AND heartbeattime < NOW()", PLATFORM + "28"),
    ("NOT heartbeattime IS NULL", PLATFORM + "5"),
    ("os = 'x' AND NOT (status = 'idle' AND os = 'y')", PLATFORM + "19"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), REFUSED)
def test_anything_else_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=f"^bad-target: .*{problem}$"):
        parse_target(text)


def _ids(count: int) -> str:
    return ",".join(f"'{number:032x}'" for number in range(count))


LIMITS = {
    "ids": (f"id IN ({_ids(MAX_IDS)})", f"id IN ({_ids(501)})", "more than 500 ids, at character 4"),
    "ids apart": (
        f"id = 'x' OR id IN ({_ids(MAX_IDS - 1)})",
        f"id = 'x' OR NOT agents.id <> 'y' OR id NOT IN ({_ids(MAX_IDS - 1)})",
        "more than 500 ids, at character 44",
    ),
    "terms": (
        " OR ".join(["os='x'"] * MAX_TERMS),
        " OR ".join(["os='x'"] * 513),
        "more than 512 terms, at character 5121",
    ),
    "parentheses": (
        "(" * MAX_DEPTH + "TRUE" + ")" * MAX_DEPTH,
        "(" * 33 + "TRUE" + ")" * 33,
        "nested deeper than 32, at character 33",
    ),
    "nots": ("NOT " * MAX_DEPTH + "TRUE", "NOT " * 33 + "TRUE", "nested deeper than 32, at character 129"),
    "like": (
        f"os LIKE '{'x' * MAX_PATTERN}'",
        f"os LIKE '{'x' * 1025}'",
        "a pattern longer than 1024 characters, at character 9",
    ),
    "regex": (
        f"os ~ '{'x' * MAX_PATTERN}'",
        f"os ~ '{'x' * 1025}'",
        "a pattern longer than 1024 characters, at character 6",
    ),
    "regexes": (
        " OR ".join(["os ~ 'x'"] * MAX_REGEXES),
        " OR ".join(["os ~ 'x'"] * 65),
        "more than 64 regular expressions, at character 774",
    ),
    "characters": (
        f"os = '{'x' * 32761}'",
        f"os = '{'x' * 32762}'",
        "longer than 32768 characters, at character 32769",
    ),
    "written out": (
        f"os='{'x' * 32761}'",
        f"os='{'x' * 32762}'",
        "longer than 32768 characters when written out, at character 32768",
    ),
}


@pytest.mark.parametrize(("most", "too_much", "problem"), LIMITS.values(), ids=LIMITS.keys())
def test_limits_are_met_exactly(most: str, too_much: str, problem: str) -> None:
    target = parse_target(most)
    assert parse_target(str(target)) == target
    with pytest.raises(InvalidInput, match=f"^bad-target: {problem}$"):
        parse_target(too_much)


_WORDS = (
    "os", "name", "id", "status", "heartbeattime", "tags", "environment", "agents", ".", "->>", "=", "<>",
    "<", "!=", "<=", ">", ">=", "LIKE", "ILIKE", "~", "~*", "!~", "!~*", "IN", "NOT", "AND", "OR", "(", ")",
    ",", "IS", "NULL", "NOW", "INTERVAL", "-", "'5 minutes'", "'x'", "''", "'('", "'", "TRUE", ";", "--", '"',
    "é", "\0", "\ud800",
)  # fmt: skip
_SENTENCES = st.lists(st.one_of(st.sampled_from(_WORDS), st.text(max_size=3)), max_size=20).map(" ".join)


@given(st.one_of(st.text(), _SENTENCES))
def test_any_text_gives_a_target_or_a_refusal(text: str) -> None:
    try:
        target = parse_target(text)
    except InvalidInput as error:
        refusal = str(error)
    else:
        refusal = ""
        assert parse_target(str(target)) == target
    assert not refusal or re.match(r"(?s)bad-target: .*, at character [0-9]+\Z", refusal)
