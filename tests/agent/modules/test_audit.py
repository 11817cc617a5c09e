"""Tests of the module audit: its rules, and a real watcher where the kernel here tells of programs."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.module import Context
from agent.modules.audit import Params, _Rule, _Seen, read_process, run
from agent.platform.netlink import ProcListener
from agent.watch_config import AuditConfig, AuditRule
from protocol.errors import InvalidInput
from tests.support.watching import MakeWatched, Watched


def config(*rules: AuditRule, **changes: Any) -> dict[str, dict[str, Any]]:
    told = AuditConfig(rules=rules)._asdict()
    return {"audit": {**told, "rules": [rule._asdict() for rule in rules], **changes}}


def kernel_tells() -> bool:
    try:
        ProcListener().close()
    except InvalidInput:
        return False
    return True


def is_up(watched: Watched) -> bool:
    return bool(watched.state("audit")["told"])


def test_a_program_that_a_rule_names_is_told_without_its_arguments(
    make_watched: MakeWatched, tmp_path: Path
) -> None:
    program = tmp_path / "evil\x1b[31m"
    shutil.copy("/bin/sleep", program)
    rule = AuditRule(name="tmp", executable=f"{re.escape(str(tmp_path))}/.*", severity="high")
    watched = make_watched(config(rule, AuditRule(name="none", executable="/nothing"), kernel_audit=False))
    watched.watchers.start()
    if not kernel_tells():
        watched.run_until(lambda: watched.state("audit")["unsupported"])
        assert "proc connector" in watched.state("audit")["reason"]
        return
    watched.run_until(lambda: is_up(watched))
    assert watched.state("audit")["told"]["sources"] == {"process_starts": "listening", "kernel_audit": "off"}
    with subprocess.Popen([program, "12345678"]) as started:
        try:
            watched.run_until(lambda: bool(watched.told("exec")))
        finally:
            started.kill()
    [alert] = watched.told("exec")
    ours = {"pid": started.pid, "ppid": os.getpid(), "uid": os.getuid()}
    assert alert.record["process"].startswith("evil")
    assert {name: value for name, value in alert.record.items() if name != "process"} == {
        "rule": "tmp",
        "executable": str(program),
        **ours,
    }
    assert not any(b"12345678" in body for body in watched.published)


@pytest.mark.slow
def test_a_rule_that_is_no_regular_expression_ends_the_watch_with_the_reason(
    make_watched: MakeWatched,
) -> None:
    watched = make_watched(config(AuditRule(name="bad", executable="(")))
    watched.watchers.start()
    watched.run_until(lambda: bool(watched.told("watcher-ended")))
    assert "rule bad" in watched.state("audit")["reason"]


SEEN = _Seen("/usr/bin/curl", ("1000", "0"), "web", ("SYSCALL",))


@pytest.mark.parametrize(
    ("rule", "is_named"),
    [
        ({"executable": "/usr/bin/.*"}, True),
        ({"executable": "/usr/bin"}, False),
        ({"executable": "curl"}, False),
        ({"user": "1000"}, True),
        ({"user": "root"}, True),
        ({"user": "nobody"}, False),
        ({"user": "no such user"}, False),
        ({"key": "web"}, True),
        ({"key": "we"}, False),
        ({"types": ("USER_LOGIN", "SYSCALL")}, True),
        ({"types": ("USER_LOGIN",)}, False),
        ({"executable": ".*curl", "user": "root", "key": "web", "types": ("SYSCALL",)}, True),
        ({"executable": ".*curl", "user": "nobody"}, False),
    ],
)
def test_all_that_a_rule_gives_must_hold(rule: dict[str, Any], is_named: bool) -> None:  # noqa: FBT001
    assert _Rule(AuditRule(name="x", **rule)._asdict()).matches(SEEN) is is_named


def test_a_process_is_described_by_what_it_runs_and_one_that_is_gone_is_nothing(tmp_path: Path) -> None:
    facts = read_process(os.getpid())
    assert facts is not None
    assert (facts["pid"], facts["ppid"]) == (os.getpid(), os.getppid())
    assert read_process(0x7FFFFFFF) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "exe").symlink_to(b"/tmp/\xff")
    (tmp_path / "7" / "status").write_bytes(b"Name:\ta\xff\\n\nPPid:\t1\nUid:\t5\t6\t7\t8\n")
    assert read_process(7, str(tmp_path)) == {
        "executable": "/tmp/\\xff",
        "executable_b64": "L3RtcC//",
        "process": "a\\xff\\n",
        "pid": 7,
        "ppid": 1,
        "uid": 5,
    }


def test_the_question_tells_what_is_listened_to() -> None:
    told = {"sources": {"process_starts": "listening"}, "events": {"execs": 3}, "reports": {"exec": 1}}
    state = {"running": True, "ended": 0, "reason": "", "unsupported": False, "told": told}
    [record] = run(Params(), Context(watchers={"audit": state}))
    assert (record.sources, record.events, record.reason) == (told["sources"], {"execs": 3}, None)


@pytest.mark.parametrize(("watchers", "note"), [({}, "[agent.audit]"), (None, "without an agent")])
def test_where_nothing_is_configured_nothing_is_found_and_said(watchers: Any, note: str) -> None:
    context = Context(watchers=watchers)
    assert list(run(Params(), context)) == []
    assert note in context.notes[0]
