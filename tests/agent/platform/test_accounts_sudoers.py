"""Tests of who may what by sudo."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.platform.accounts_sudoers import Person, Right, Sudoers
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import grow
from tests.support.examples import USUAL_EXAMPLES


def person(name: str = "eve", uid: int = 1000, *groups: str) -> Person:
    return Person(name, uid, frozenset(groups), frozenset({4711} if groups else ()))


def right(root: Path, text: str) -> Right | None:
    files = Rooted(str(grow(root, {"etc/sudoers": text.encode()})))
    found = Sudoers(files, "web1.example.org").right_of(person("eve", 1000, "wheel"))
    assert files.errors == 0
    return found


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("eve ALL=(ALL:ALL) ALL", (True, False)),
        ("eve ALL=(ALL) NOPASSWD: ALL", (True, True)),
        ("eve ALL = NOPASSWD:ALL", (True, True)),
        ("%wheel ALL=(ALL) ALL", (True, False)),
        ("%#4711 ALL=(ALL) ALL", (True, False)),
        ("#1000 ALL=(root) ALL", (True, False)),
        ("bob, eve ALL=(ALL) ALL", (True, False)),
        ("eve\tALL=(ALL) \\\n  NOPASSWD: ALL # all of it", (True, True)),
        ("eve ALL=(ALL) /bin/ls, NOPASSWD: /bin/cat /etc/\\=x, PASSWD: /bin/su", (False, True)),
        ("eve ALL=(www-data) NOPASSWD: ALL", (False, False)),
        ("eve ALL=() ALL", (False, False)),
        ("eve ALL=(:disk) ALL", (False, False)),
        ("eve ALL=(ALL) ALL, !/bin/su", (True, False)),
        ("eve ALL=(ALL) ALL, !ALL", (False, False)),
        ("eve ALL=(ALL) ALL\neve ALL=(ALL) !ALL", (False, False)),
        ("eve web1=(ALL) ALL", (True, False)),
        ("eve 10.0.0.0/8, db=(ALL) ALL", (True, False)),
        ("eve db=/bin/ls : web1 = (ALL) NOPASSWD: ALL", (True, True)),
        ("User_Alias OPS = bob, eve : DBA = carl\nCmnd_Alias ANY = ALL\nOPS ALL=(ALL) ANY", (True, False)),
        ("Runas_Alias R = ALL, !root\nCmnd_Alias C = /bin/a b, /bin/c\neve ALL=(R) ALL", (False, False)),
        ("User_Alias ALLBUT = ALL, !bob\nALLBUT ALL=(ALL) ALL", (True, False)),
        ("Defaults !authenticate\neve ALL=(ALL) ALL", (True, True)),
        ("Defaults:eve !authenticate\neve ALL=(ALL) ALL", (True, True)),
        ("Defaults:bob !authenticate\neve ALL=(ALL) ALL", (True, False)),
        ('Defaults secure_path="/a:/b", env_keep += "X=Y"\neve ALL=(ALL) ALL', (True, False)),
        ("eve ALL=(ALL) CWD=/tmp TIMEOUT=5m SETENV: NOPASSWD: ALL", (True, True)),
        ('"eve" ALL=(ALL) ALL', (True, False)),
        ("+admins ALL=(ALL) ALL", (True, False)),
        ("eve ALL=(ALL) sudoedit /etc/motd", (False, False)),
    ],
)
def test_a_right_is_told_as_sudo_would_judge_it(
    tmp_path: Path, text: str, verdict: tuple[bool, bool]
) -> None:
    found = right(tmp_path, text)
    assert found is not None
    assert (found.has_all, found.without_password) == verdict


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# eve ALL=(ALL) ALL",
        "bob ALL=(ALL) ALL",
        "eve db=(ALL) ALL",
        "ALL, !eve ALL=(ALL) ALL",
        "User_Alias OPS = ALL, !%wheel\nOPS ALL=(ALL) ALL",
        "User_Alias OPS = OPS\nOPS ALL=(ALL) ALL",
        "%other ALL=(ALL) ALL",
        "#1 ALL=(ALL) ALL",
    ],
)
def test_who_is_named_by_no_rule_has_no_right(tmp_path: Path, text: str) -> None:
    assert right(tmp_path, text) is None


def test_includes_are_followed_and_what_editors_leave_is_not_read(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/sudoers.d/ops": b"eve ALL=(ALL) /bin/a\n\neve ALL=(ALL) /bin/b",
            "etc/sudoers.d/old.bak": b"eve ALL=(ALL) NOPASSWD: ALL",
            "etc/sudoers.d/old~": b"eve ALL=(ALL) NOPASSWD: ALL",
            "etc/local": b"%wheel ALL=(ALL) ALL\n@include none\n#includedir none",
        },
    )
    found = right(tmp_path, "@includedir /etc/sudoers.d\n#include local\n")
    assert found is not None
    assert (found.has_all, found.without_password, found.rules) == (True, False, 3)
    assert found.places == ("/etc/sudoers.d/ops:1", "/etc/sudoers.d/ops:3", "/etc/local:1")


@pytest.mark.parametrize(
    "text",
    [
        "eve",
        "eve ALL",
        "eve ALL=",
        "eve ALL=(",
        'eve ALL="x',
        "= = =",
        "User_Alias",
        "User_Alias X",
        "!",
        ",,",
    ],
)
def test_a_line_that_is_none_is_an_error_and_the_others_count(tmp_path: Path, text: str) -> None:
    grow(tmp_path, {"etc/sudoers": f"{text}\neve ALL=(ALL) ALL\n\xff\x00\x1b".encode("latin-1")})
    notes: list[str] = []
    files = Rooted(str(tmp_path), note=notes.append)
    found = Sudoers(files, "h").right_of(person())
    assert found is not None
    assert found.has_all
    if text != "User_Alias":
        assert any("line 1 is not understood" in note for note in notes)


def test_includes_without_end_are_cut(tmp_path: Path) -> None:
    grow(tmp_path, {"etc/sudoers": b"@include sudoers\n" * 3 + b"eve ALL=(ALL) ALL\n"})
    files = Rooted(str(tmp_path))
    assert Sudoers(files, "h").right_of(person()) is not None
    assert files.errors > 0


def test_aliases_that_grow_without_end_take_no_long_time(tmp_path: Path) -> None:
    doubled = "".join(f"User_Alias A{n} = A{n + 1}, A{n + 1}, !A{n + 1}\n" for n in range(3000))
    assert right(tmp_path, doubled + "A0 ALL=(ALL) ALL\neve ALL=(ALL) ALL\n") is not None
    nested = "".join(f"User_Alias B{n} = B{n + 1}\n" for n in range(40)) + "User_Alias B40 = eve\n"
    assert right(tmp_path, nested + "B0 ALL=(ALL) ALL\n") is not None


@settings(max_examples=USUAL_EXAMPLES, deadline=None)
@given(st.text('aA%#!,=:()"\\ \n\t@+*/.', max_size=120))
def test_any_text_is_rules_or_is_counted(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("sudo")
    grow(root, {"etc/sudoers": text.encode()})
    Sudoers(Rooted(str(root)), "h").right_of(person("a", 1, "A"))
