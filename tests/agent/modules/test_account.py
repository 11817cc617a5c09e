"""Tests of the account module: filters, shortcuts, what is never told."""

from pathlib import Path
from typing import Any, get_args

import msgspec
import psutil
import pytest

from agent.execute import run_operation
from agent.module import Context
from agent.modules import account
from agent.registry import load_module
from client.flags import flag_parameters
from protocol.acl import PathRules
from protocol.result import OperationResult
from tests.agent.platform.test_accounts_logins import WHEN, row
from tests.agent.scan.runs import grow

SECRET = b"$6$pepper$0123456789abcdef"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return grow(
        tmp_path,
        {
            "etc/passwd": b"root:x:0:0::/root:/bin/bash\n"
            b"toor:x:0:0::/:/bin/sh\nweb:x:33:33::/var:/usr/sbin/nologin\n"
            b"eve:x:1000:1000:Eve:/home/eve:/bin/bash\n"
            b"open:x:1001:1001::/:/bin/sh\n"
            b"old:x:1002:1002::/:/bin/sh\n",
            "etc/group": b"root:x:0:\nsudo:x:27:eve\neve:x:1000:\ndocker:x:999:web\n",
            "etc/shadow": b"root:*:19000:0:99999:7:::\ntoor:"
            + SECRET
            + b":0:0:99999:7:::\nweb:!:19000:::::::\n"
            b"eve:!" + SECRET + b":19000:0:90:7:::\nopen::19000:0:::::\nold:" + SECRET + b":1:0::::2:\n",
            "etc/sudoers": b"%sudo ALL=(ALL:ALL) ALL\nweb ALL=(ALL) NOPASSWD: /bin/x secret-word\n",
            "home/eve/.ssh/authorized_keys": b"ssh-ed25519 AAAA eve@host\n",
            "var/log/wtmp": row(b"eve"),
            "var/log/btmp": row(b"eve", kind=6) + row(b"nobody-here", kind=6),
        },
    )


def run(root: Path, context: Context | None = None, **parameters: Any) -> OperationResult:
    result = run_operation("account", {"root": str(root), **parameters}, context or Context())
    assert result.status == "ok", result
    return result


def names(root: Path, **parameters: Any) -> list[str]:
    return [record["name"] for record in run(root, **parameters).records]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["root", "toor", "web", "eve", "open", "old"]),
        ({"names": ["^o", "!^old$"]}, ["open"]),
        ({"uids": [0]}, ["root", "toor"]),
        ({"uid0": True, "names": ["!^root$"]}, ["toor"]),
        ({"no_password": True}, ["open"]),
        ({"can_log_in": True}, ["toor", "eve", "open"]),
        ({"sudo": True}, ["eve"]),
        ({"nopasswd": True}, ["web"]),
        ({"keys": True}, ["eve"]),
        ({"groups": ["^(docker|sudo)$"]}, ["web", "eve"]),
        ({"groups": ["!^root$"]}, ["web", "eve", "open", "old"]),
        ({"shells": ["nologin$"]}, ["web"]),
        ({"logged_in": True}, []),
        ({"kinds": ["group"]}, ["root", "sudo", "eve", "docker"]),
        ({"kinds": ["group", "user"], "names": ["^eve$"]}, ["eve", "eve"]),
        ({"kinds": ["group"], "uids": [27]}, ["sudo"]),
        ({"kinds": ["group", "user"], "uid0": True}, ["root", "toor"]),
    ],
)
def test_filters_must_all_hold(root: Path, filters: dict[str, Any], found: list[str]) -> None:
    assert names(root, **filters) == found


def test_all_that_is_known_of_a_user_is_told(root: Path) -> None:
    result = run(root, names=["^eve$"])
    (record,) = result.records
    age = record.pop("password_age_days")
    assert age > 1000
    assert record == {
        "kind": "user",
        "name": "eve",
        "uid": 1000,
        "gid": 1000,
        "groups": ("eve", "sudo"),
        "home": "/home/eve",
        "shell": "/bin/bash",
        "can_log_in": True,
        "password": "locked",
        "password_kind": "sha512crypt",
        "password_changed": "2022-01-08T00:00:00Z",
        "password_expires": "2022-04-08T00:00:00Z",
        "sudo_all": True,
        "sudo_rules": ("/etc/sudoers:1",),
        "authorized_keys": 1,
        "failed_logins": 1,
        "last_login": {"time": "2023-11-14T22:13:20Z", "terminal": "pts/0", "remote_address": "203.0.113.7"},
    }
    assert WHEN == 1_700_000_000
    assert result.statistics["accounts_seen"] == 6
    assert result.statistics["failed_logins"] == 2


def test_neither_a_hash_nor_a_command_is_in_any_answer(root: Path) -> None:
    answer = msgspec.json.encode(run(root, kinds=["user", "group"]))
    for secret in (b"pepper", b"0123456789abcdef", b"secret-word", b"AAAA"):
        assert secret not in answer


def test_a_group_has_as_members_also_those_whose_own_it_is(root: Path) -> None:
    (record,) = run(root, kinds=["group"], names=["^root$"]).records
    assert record == {"kind": "group", "name": "root", "gid": 0, "members": ("root", "toor")}


def test_access_rules_keep_shadow_closed_and_the_state_is_unknown(root: Path) -> None:
    context = Context(paths=PathRules(allow=(str(root),), deny=(str(root / "etc/shadow"),)))
    result = run(root, context, names=["^eve$"])
    assert result.records[0]["password"] == "unknown"
    assert result.statistics["skipped"] == {"not-allowed": 1}
    assert result.notes == ("/etc/shadow: not looked at, this endpoint's access rules do not allow it",)


def test_a_system_without_records_of_logins_says_so(tmp_path: Path) -> None:
    grow(tmp_path, {"etc/passwd": b"a\x1b[2J\xff:x:1:1::/\xff:\n"})
    result = run(tmp_path)
    assert result.records[0]["name"] == "a\x1b[2J\\xff"
    assert any("keeps no record of logins" in note for note in result.notes)


def test_this_system_s_root_is_found() -> None:
    result = run_operation("account", {"uid0": True, "names": ["^root$"]}, Context())
    assert (result.status, len(result.records)) == ("ok", 1)
    assert result.records[0]["home"] == "/root"


@pytest.mark.parametrize(
    "parameters", [{"names": ["("]}, {"uids": [-1]}, {"kinds": ["x"]}, {"root": "x"}, {"x": 1}]
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any]) -> None:
    assert run_operation("account", parameters, Context()).status == "invalid-parameters"


def test_looser_spellings_and_flags_are_understood() -> None:
    assert account.upgrade({"name": "^a", "logged-in": True}) == {"names": ["^a"], "logged_in": True}
    module = load_module("account")
    assert flag_parameters(module, {"uid": (0,), "can-log-in": True}) == {"uids": [0], "can_log_in": True}


def test_elsewhere_those_logged_in_are_told_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    # Loaded for the system that it runs on, before that seems to be another one.
    assert psutil.users is not None
    monkeypatch.setattr("sys.platform", "darwin")
    result = run_operation("account", {}, Context())
    assert result.status == "ok"
    assert "only who is logged in now is told" in result.notes[0]


def test_the_declared_states_are_those_that_are_told() -> None:
    assert set(get_args(account.State)) == {"none", "set", "locked", "unset", "unknown"}
