"""Tests of reading accounts, groups and the state of passwords."""

import grp
import pwd
from pathlib import Path

import pytest

from agent.platform.accounts_local import LocalAccounts
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import grow

DAY = 86_400


def read(root: Path, passwd: bytes, shadow: bytes | None = None, group: bytes = b"") -> LocalAccounts:
    tree = {"etc/passwd": passwd, "etc/group": group}
    if shadow is not None:
        tree["etc/shadow"] = shadow
    return LocalAccounts(Rooted(str(grow(root, tree))))


@pytest.mark.parametrize(
    ("secret", "state", "kind"),
    [
        (b"", "none", None),
        (b"*", "unset", None),
        (b"!", "unset", None),
        (b"!!", "unset", None),
        (b"!*", "unset", None),
        (b"x", "unset", None),
        (b"$6$salt$hash", "set", "sha512crypt"),
        (b"$y$j9T$salt$hash", "set", "yescrypt"),
        (b"!$6$salt$hash", "locked", "sha512crypt"),
        (b"*$5$salt$hash", "locked", "sha256crypt"),
        (b"$2b$05$hash", "set", "bcrypt"),
        (b"$1$salt$hash", "set", "md5crypt"),
        (b"$new$thing", "set", "unknown"),
        (b"ab.CDEFGHIJ/k", "set", "descrypt"),
    ],
)
def test_a_password_s_state_and_kind_are_told(
    tmp_path: Path, secret: bytes, state: str, kind: str | None
) -> None:
    local = read(tmp_path, b"eve:x:1:1::/:/bin/sh\n", b"eve:%s:19000:0:90:7:::\n" % secret)
    password = local.accounts[0].password
    assert (password.state, password.kind) == (state, kind)
    assert (password.changed_s, password.expires_s) == (19000 * DAY, 19090 * DAY)


def test_a_hash_in_passwd_itself_counts(tmp_path: Path) -> None:
    local = read(tmp_path, b"a::1:1::/:\nb:$1$s$h:1:1::/:\nc:x:1:1::/:\n", b"d:*:1:::::\n")
    states = [(one.password.state, one.password.kind) for one in local.accounts]
    assert states == [("none", None), ("set", "md5crypt"), ("unset", None)]


def test_without_a_shadow_file_the_state_is_unknown(tmp_path: Path) -> None:
    assert read(tmp_path, b"eve:x:1:1::/:/bin/sh\n").accounts[0].password.state == "unknown"


@pytest.mark.parametrize(
    ("row", "changed", "expires", "account", "must"),
    [
        (b"e:$6$:19000:0:99999:7:::", 19000, None, None, False),
        (b"e:$6$:0:0:90:7:::", None, None, None, True),
        (b"e:$6$:19000:0::7::20000:", 19000, None, 20000, False),
        (b"e:$6$::::::", None, None, None, False),
        (b"e:$6$:-1:0:x:7::99999999999:", None, None, None, False),
    ],
)
def test_ages_are_told_where_they_are_kept(
    tmp_path: Path, row: bytes, changed: int | None, expires: int | None, account: int | None, *, must: bool
) -> None:
    password = read(tmp_path, b"e:x:1:1::/:\n", row + b":" * (8 - row.count(b":"))).accounts[0].password
    in_days = [
        seconds // DAY if seconds is not None else None
        for seconds in (password.changed_s, password.expires_s, password.account_expires_s)
    ]
    assert in_days == [changed, expires, account]
    assert password.must_change is must


def test_groups_are_the_own_one_and_those_that_list_the_user(tmp_path: Path) -> None:
    local = read(
        tmp_path,
        b"eve:x:1000:100::/home/eve:/bin/bash\n",
        group=b"sudo:x:27:bob,eve\nusers:x:100:\nx:x:5:evelyn\n",
    )
    (eve,) = local.accounts
    assert [group.name for group in local.groups_of(eve)] == [b"users", b"sudo"]
    assert eve.has_shell()


@pytest.mark.parametrize("shell", [b"/usr/sbin/nologin", b"/bin/false", b"/sbin/halt", b"/bin/sync"])
def test_some_shells_let_nobody_in(tmp_path: Path, shell: bytes) -> None:
    assert not read(tmp_path, b"d:x:1:1::/:%s\n" % shell).accounts[0].has_shell()


def test_lines_that_are_none_are_errors_and_the_others_count(tmp_path: Path) -> None:
    notes: list[str] = []
    grow(
        tmp_path,
        {
            "etc/passwd": b"short:x\n+::::::\n# note\n\nbad:x:-1:1::/:\n"
            b"big:x:99999999999:1::/:\n\xff\x1b:x:5:5::/:\n",
            "etc/group": b"g:x:abc:\n\xff:x:7:\x07,\n",
        },
    )
    local = LocalAccounts(Rooted(str(tmp_path), note=notes.append))
    assert [account.name for account in local.accounts] == [b"\xff\x1b"]
    assert [(group.gid, group.members) for group in local.groups] == [(7, (b"\x07",))]
    assert len(notes) == 3


def test_this_system_s_accounts_are_those_that_the_c_library_names() -> None:
    local = LocalAccounts(Rooted())
    found = {
        (one.name.decode(), one.uid, one.gid, one.home.decode(), one.shell.decode()) for one in local.accounts
    }
    wanted = {(one.pw_name, one.pw_uid, one.pw_gid, one.pw_dir, one.pw_shell) for one in pwd.getpwall()}
    assert found == wanted
    assert {group.gid for group in local.groups} == {group.gr_gid for group in grp.getgrall()}
