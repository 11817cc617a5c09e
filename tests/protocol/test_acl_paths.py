"""The path rules of an ACL, as they are written and as they judge what parameters say."""

from typing import Any

import pytest

from protocol.acl import Acl, PathRules, convert_acl
from protocol.errors import InvalidInput

ADA = "A" * 40


def entry(**rules: Any) -> dict[str, Any]:
    return {"minimum_weight": 1, "investigators": {ADA: 1}, **rules}


def acl(**entries: Any) -> Acl:
    return convert_acl(entries)


@pytest.mark.parametrize(
    "path", ["/etc", "/etc/", "/etc/passwd", "//etc/./ssh", "/etc/*.conf", "/usr/lib/**"]
)
def test_what_lies_at_or_below_an_allowed_path_is_allowed(path: str) -> None:
    PathRules(("/etc", "/usr/lib")).require([path])


@pytest.mark.parametrize(
    "path", ["/", "/usr", "/etcetera", "/*", "/e*", "/etc*", "/etc/../root", "/etc/..", "etc", "C:\\etc", ""]
)
def test_what_may_lie_outside_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="acl-refused"):
        PathRules(("/etc", "/usr/lib")).require(["/etc", path])


def test_deny_wins_and_what_lies_above_it_is_left_to_the_walk() -> None:
    rules = PathRules(("/etc",), ("/etc/ssh",))
    rules.require(["/etc", "/etc/sshd", "/etc/s*"])
    for path in ("/etc/ssh", "/etc/ssh/key", "/etc/ssh/*"):
        with pytest.raises(InvalidInput, match="denied by /etc/ssh"):
            rules.require([path])
    with pytest.raises(InvalidInput, match="acl-refused"):
        PathRules(None, ("/",)).require(["/etc"])


def test_without_rules_everything_is_allowed() -> None:
    PathRules().require(["/", "..", "C:\\"])


@pytest.mark.parametrize(
    "rules",
    [
        {"paths": []},
        {"deny": []},
        {"paths": ["etc"]},
        {"paths": ["/etc/"]},
        {"paths": ["//etc"]},
        {"paths": ["/etc/../root"]},
        {"paths": ["/etc/./a"]},
        {"deny": ["/home/*"]},
        {"paths": ["/a\0b"]},
        {"path": ["/etc"]},
        {"paths": "/etc"},
    ],
    ids=str,
)
def test_a_rule_that_could_be_read_in_two_ways_is_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="bad-config"):
        acl(file=entry(**rules))


def test_a_modules_own_entry_overrides_the_default_wholly() -> None:
    table = acl(default=entry(paths=["/etc"], deny=["/etc/ssh"]), file=entry())
    assert table.path_rules("file").is_open
    assert table.path_rules("other") == PathRules(("/etc",), ("/etc/ssh",))
    # An alias of a module is no name of it.
    assert table.path_rules("filechecker") == PathRules(("/etc",), ("/etc/ssh",))


def test_matched_text_is_given_only_where_the_modules_own_entry_says_so() -> None:
    table = acl(default=entry(fields=True), log=entry())
    assert table.allows_fields("other")
    assert not table.allows_fields("log")
    with pytest.raises(InvalidInput, match="acl-refused"):
        acl(log=entry(fields=True)).allows_fields("other")
    with pytest.raises(InvalidInput, match="bad-config"):
        acl(log=entry(fields="yes"))
