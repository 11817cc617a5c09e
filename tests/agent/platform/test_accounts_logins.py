"""Tests of when people logged in: by each kind of record that systems keep."""

import sqlite3
import struct
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from agent.platform.accounts_logins import Logins
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import grow

WHEN = 1_700_000_000


def logins(root: Path) -> Logins:
    return Logins(Rooted(str(root)), lambda: None)


def row(user: bytes, kind: int = 7, pid: int = 1, when: int = WHEN, *, is_long: bool = False) -> bytes:
    head = struct.pack("<hxxi32s4s32s256s4x", kind, pid, b"pts/0", b"ts/0", user, b"203.0.113.7")
    tail = struct.pack("<qqq16x20x4x", 1, when, 0) if is_long else struct.pack("<iii16x20x", 1, when, 0)
    return head + tail


@pytest.mark.parametrize("is_long", [False, True])
def test_last_logins_and_failed_ones_are_read_from_rows_of_either_length(
    tmp_path: Path, *, is_long: bool
) -> None:
    rows = [row(b"eve", when=WHEN - 5, is_long=is_long), row(b"eve", is_long=is_long)]
    rows += [row(b"reboot", kind=2, is_long=is_long), row(b"bob", when=WHEN - 9, is_long=is_long)]
    failed = [row(name, kind=6, is_long=is_long) for name in (b"eve", b"eve", b"admin")]
    grow(tmp_path, {"var/log/wtmp": b"".join(rows), "var/log/btmp": b"".join(failed)})
    found = logins(tmp_path).last({})
    assert sorted(found) == [b"bob", b"eve"]
    assert (found[b"eve"].time_s, found[b"eve"].terminal, found[b"eve"].host) == (
        WHEN,
        b"pts/0",
        b"203.0.113.7",
    )
    assert logins(tmp_path).failed() == {b"eve": 2, b"admin": 1}


def test_a_row_that_the_system_s_own_tool_writes_is_understood(tmp_path: Path) -> None:
    text = "[7] [00042] [ts/0] [mallory ] [pts/3       ] [198.51.100.9        ] [198.51.100.9   ] [{}]\n"
    made = subprocess.run(
        ["/usr/bin/utmpdump", "-r"],
        input=text.format("2023-11-14T22:13:20,000000+00:00").encode(),
        capture_output=True,
        check=True,
    ).stdout
    grow(tmp_path, {"var/log/wtmp": made})
    login = logins(tmp_path).last({})[b"mallory"]
    assert (login.time_s, login.pid, login.terminal, login.host) == (WHEN, 42, b"pts/3", b"198.51.100.9")


def test_without_any_record_of_failures_nothing_is_said_of_them(tmp_path: Path) -> None:
    assert logins(tmp_path).failed() is None
    assert logins(grow(tmp_path, {"var/log/btmp": b""})).failed() == {}


@pytest.mark.parametrize("form", ["<I32s256s", "<Q32s256s"])
def test_lastlog_is_asked_by_number(tmp_path: Path, form: str) -> None:
    size = struct.calcsize(form)
    data = bytearray(size * 1001)
    data[size * 1000 :] = struct.pack(form, WHEN, b"tty1", b"host")
    grow(tmp_path, {"var/log/lastlog": bytes(data)})
    found = logins(tmp_path).last({0: b"root", 1000: b"eve", 4_000_000_000: b"far"})
    assert {name: login.time_s for name, login in found.items()} == {b"eve": WHEN}


def test_the_databases_that_came_after_are_read(tmp_path: Path) -> None:
    grow(tmp_path, {"var/lib/lastlog/x": b"", "var/lib/wtmpdb/x": b""})
    with closing(sqlite3.connect(tmp_path / "var/lib/lastlog/lastlog2.db")) as database:
        database.execute(
            "CREATE TABLE Lastlog2(Name TEXT PRIMARY KEY, Time INTEGER, TTY TEXT,"
            " RemoteHost TEXT, PAM_Service TEXT)"
        )
        database.execute("INSERT INTO Lastlog2 VALUES('eve', ?, 'pts/1', 'h', 'sshd')", (WHEN,))
        database.commit()
    with closing(sqlite3.connect(tmp_path / "var/lib/wtmpdb/wtmp.db")) as database:
        database.execute(
            "CREATE TABLE wtmp(ID INTEGER PRIMARY KEY, Type INTEGER, User TEXT, Login INTEGER,"
            " Logout INTEGER, TTY TEXT, RemoteHost TEXT, Service TEXT)"
        )
        rows = [(1, "reboot", WHEN), (3, "bob", WHEN), (3, "eve", WHEN + 1), (3, "odd", "text")]
        for kind, user, when in rows:
            login = when * 1_000_000 if isinstance(when, int) else when
            database.execute("INSERT INTO wtmp(Type, User, Login) VALUES(?, ?, ?)", (kind, user, login))
        database.commit()
    found = logins(tmp_path).last({})
    assert {name: login.time_s for name, login in found.items()} == {b"eve": WHEN + 1, b"bob": WHEN}


def test_who_is_logged_in_has_a_living_process_or_an_open_session(tmp_path: Path) -> None:
    session = b"# private\nUSER=carl\nSTATE=active\nCLASS=user\nTTY=tty2\nREALTIME=1700000000123456\n"
    grow(
        tmp_path,
        {
            "run/utmp": row(b"eve", pid=7) + row(b"gone", pid=8) + row(b"", pid=7),
            "run/systemd/sessions/1": session,
            "run/systemd/sessions/2": session.replace(b"=active", b"=closing").replace(b"carl", b"left"),
            "run/systemd/sessions/3": session.replace(b"=user", b"=greeter").replace(b"carl", b"gdm"),
            "run/systemd/sessions/4": session.replace(b"carl", b"eve").replace(b"tty2", b"pts/0"),
        },
    )
    found = logins(tmp_path).now(lambda pid: pid == 7)
    assert {name: len(sessions) for name, sessions in found.items()} == {b"eve": 1, b"carl": 1}
    assert found[b"carl"][0].time_s == WHEN


@pytest.mark.parametrize("content", [b"", b"x" * 383, b"\xff" * 4000, b"SQLite format 3\0" + b"\1" * 500])
def test_records_that_are_none_do_no_harm(tmp_path: Path, content: bytes) -> None:
    names = ("var/log/wtmp", "var/log/btmp", "var/log/lastlog", "run/utmp", "var/lib/lastlog/lastlog2.db")
    grow(tmp_path, dict.fromkeys((*names, "run/systemd/sessions/1"), content))
    found = logins(tmp_path)
    found.last({0: b"root"})
    found.failed()
    found.now(lambda _pid: True)
