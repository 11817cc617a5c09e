"""Tests of the filters of a question about processes, on facts that are given."""

from typing import Any

import msgspec
import pytest

from agent.platform.process_programs import Programs
from agent.platform.process_subject import Ancestor, NotKnown
from agent.platform.processes import ProcessFacts
from agent.scan.accounts import Accounts
from agent.scan.capabilities import mask_of
from agent.scan.fence import Fence
from agent.scan.process_checks import TextFilter, make_checks
from agent.scan.process_filters import ProcessFilters
from protocol.acl import PathRules

NOW_S = 1_700_000_000.0
DIGITS = "0123456789abcdef" * 4


class Given:
    """A process whose facts are as given; what is an exception is not known."""

    def __init__(self, facts: dict[str, Any], **others: Any) -> None:
        base = {
            "pid": 42,
            "ppid": 1,
            "process": b"x",
            "uid": 0,
            "gid": 0,
            "started_s": NOW_S - 100,
            "state": "S",
        }
        self.facts = ProcessFacts(**{**base, **facts})
        self._others: dict[str, Any] = {
            "executable": (b"/usr/bin/x", False), "user": "root", "command": b"x", "variables": (),
            "ports": (), "open_files": (), "libraries": (), "container": None, "ancestors": (), "cut": (),
            **others,
        }  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        value = self._others[name]
        if isinstance(value, Exception):
            raise value
        return value


def holds(subject: Given, **filters: Any) -> bool:
    checks = make_checks(
        msgspec.convert(filters, ProcessFilters),
        now_s=NOW_S,
        accounts=Accounts("/nonexistent", "/nonexistent"),
        programs=Programs([], Fence(PathRules()), lambda: None),
    )
    return checks.hold(subject)


@pytest.mark.parametrize(
    ("container", "containers", "expected"),
    [
        (None, ["any"], False),
        (None, ["!any"], True),
        (DIGITS, ["any"], True),
        (DIGITS, ["!any"], False),
        (DIGITS, [DIGITS[:12]], True),
        (DIGITS, [DIGITS[:11]], False),
        (DIGITS, [DIGITS[1:13]], False),
        (DIGITS, [f"!{DIGITS[:12]}"], False),
        (DIGITS, ["any", f"!{DIGITS[:12]}"], False),
        ("web", ["db", "web"], True),
        ("web", ["we"], False),
    ],
)
def test_a_container_is_told_by_name_or_by_the_beginning_of_its_id(
    container: str | None, containers: list[str], *, expected: bool
) -> None:
    assert holds(Given({}, container=container), containers=containers) is expected


@pytest.mark.parametrize(
    ("values", "texts", "expected"),
    [
        (["a"], [], False),
        (["!a"], [], True),
        (["a"], [b"b", b"xax"], True),
        (["a", "b"], [b"b"], True),
        (["a", "!b"], [b"a", b"b"], False),
        (["a", "!b"], [b"a", b"c"], True),
        (["!a", "!b"], [b"c"], True),
        (["!a", "!b"], [b"b"], False),
        (["^a$"], [b"b", b"a", b"c"], True),
        (["^b.c$"], [b"b", b"c"], False),
        (["(?s)^b.c$"], [b"b\nc", b"d"], True),
        (["!^c$"], [b"b\nc", b"d"], True),
        (["^\\xff$"], [b"\xff", b"d"], True),
    ],
)
def test_plain_expressions_are_alternatives_and_others_leave_out(
    values: list[str], texts: list[bytes], *, expected: bool
) -> None:
    assert TextFilter(values).holds(texts) is expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["^x$"], True), (["^y$"], None), (["!^y$"], None), (["^x$", "!^y$"], None)],
)
def test_where_the_program_is_not_known_the_own_name_may_be_enough(
    names: list[str], *, expected: bool | None
) -> None:
    subject = Given({}, executable=NotKnown("program", "Permission denied"))
    if expected is None:
        with pytest.raises(NotKnown, match="^program: Permission denied$"):
            holds(subject, names=names)
    else:
        assert holds(subject, names=names) is expected


def test_what_is_not_known_is_asked_last_and_only_where_the_rest_holds() -> None:
    subject = Given({}, libraries=NotKnown("libraries", "Permission denied"))
    assert not holds(subject, pids=[41], libraries=["x"])
    with pytest.raises(NotKnown, match="^libraries: Permission denied$"):
        holds(subject, pids=[42], libraries=["!x"])


def test_a_user_of_a_domain_is_told_with_and_without_it() -> None:
    subject = Given({"uid": -1}, user="CORP\\Ada")
    assert holds(subject, users=["CORP\\Ada"])
    assert holds(subject, users=["ada"])
    assert not holds(subject, users=["bob"])
    assert not holds(subject, users=["!ada"])


def test_ancestors_are_told_by_their_own_names_and_their_programs() -> None:
    subject = Given(
        {}, ancestors=(Ancestor(1, b"forged", b"C:\\web\\httpd", 0.0, 0), Ancestor(2, b"k", None, 0.0, 0))
    )
    for expression, expected in (("^forged$", True), ("^httpd$", True), ("^k$", True), ("web", False)):
        assert holds(subject, ancestors=[expression]) is expected
        assert holds(subject, ancestors=[f"!{expression}"]) is not expected


def test_capabilities_are_alternatives() -> None:
    subject = Given({"capabilities": mask_of("cap_net_raw")})
    assert holds(subject, capabilities=["cap_chown", "cap_net_raw"])
    assert not holds(subject, capabilities=["any", "!cap_net_raw"])
    assert holds(Given({}), capabilities=["!any"])


@pytest.mark.parametrize(
    ("starts", "expected"),
    [(["<2m"], True), (["<1m"], False), ([">1m"], True), ([">2m"], False), (["<2m", ">1m"], True)],
)
def test_starts_are_borders_that_all_hold(starts: list[str], *, expected: bool) -> None:
    assert holds(Given({}), starts=starts) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/tmp/x", True),
        (b"/var/tmp/a/x", True),
        (b"/dev/shm/x", True),
        (b"/run/user/1000/x", True),
        (b"/memfd:x", True),
        (b"/tmpx", False),
        (b"/opt/tmp/x", False),
    ],
)
def test_temporary_places_are_known(path: bytes, *, expected: bool) -> None:
    subject = Given({}, executable=(path, False))
    assert holds(subject, fromtemporary=True) is expected
    assert holds(subject, fromtemporary=False) is not expected
