"""Tests of what starts at a time, at boot and at login."""

from pathlib import Path

import pytest

from agent.platform.autostart import Start
from agent.platform.autostart_jobs import read_cron, read_desktop, read_rc, read_shell
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import Tree, grow


def cron(root: Path, tree: Tree) -> list[Start]:
    files = Rooted(str(grow(root, tree)))
    found = list(read_cron(files))
    assert files.errors == 0
    return found


@pytest.mark.parametrize(
    ("path", "line", "programs", "user"),
    [
        ("etc/crontab", b"* * * * * root /a --password secret", [b"/a"], b"root"),
        ("etc/cron.d/x", b"@reboot web cd /tmp && ./b", [b"cd", b"./b"], b"web"),
        ("var/spool/cron/crontabs/eve", b"*/5 * * * * /c %stdin /d", [b"/c"], b"eve"),
        ("var/spool/cron/eve", b"@daily date +\\%F | /e", [b"date", b"/e"], b"eve"),
        ("etc/crontabs/root", b"0 0 * * 0\t/f", [b"/f"], b"root"),
        ("etc/anacrontab", b"1 5 cron.daily nice run-parts /etc/cron.daily",
         [b"run-parts", b"/etc/cron.daily"], b"root"),
    ],
)  # fmt: skip
def test_an_entry_names_its_programs_and_its_user(
    tmp_path: Path, path: str, line: bytes, programs: list[bytes], user: bytes
) -> None:
    (start,) = cron(
        tmp_path, {path: b"# note\nPATH=/x:/y\nMAILTO=a b c d e f g\n" + line + b"\n\nshort line\n"}
    )
    assert [program.path for program in start.programs] == programs
    assert (start.user, start.line) == (user, 4)


def test_scripts_and_jobs_are_told(tmp_path: Path) -> None:
    grow(tmp_path, {"etc/cron.daily/a": b"", "etc/cron.hourly/b": b"", "var/spool/at/a00001": b"#!/bin/sh\n"})
    (tmp_path / "etc/cron.daily/a").chmod(0o755)
    found = cron(tmp_path, {"etc/periodic/15min/c": b"", "var/spool/at/.SEQ": b""})
    assert {start.path.decode(): start.enabled for start in found} == {
        "/etc/cron.hourly/b": False,
        "/etc/cron.daily/a": True,
        "/etc/periodic/15min/c": False,
        "/var/spool/at/a00001": True,
    }


def test_scripts_of_init_are_enabled_where_a_level_links_them(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/init.d/on": b"",
            "etc/init.d/off": b"",
            "etc/init.d/openrc": b"",
            "etc/rc2.d/S01on": b"",
            "etc/rc2.d/K01off": b"",
            "etc/runlevels/default/openrc": b"",
            "etc/rc.local": b"",
            "etc/init/job.conf": b"",
        },
    )
    assert {start.path.decode(): start.enabled for start in read_rc(Rooted(str(tmp_path)))} == {
        "/etc/rc.local": False,
        "/etc/init.d/off": False,
        "/etc/init.d/on": True,
        "/etc/init.d/openrc": True,
        "/etc/init/job.conf": None,
    }


def test_files_of_shells_are_told_for_all_and_for_each(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/profile": b"",
            "etc/profile.d/x.sh": b"",
            "etc/environment": b'A=1\nLD_PRELOAD="/x.so:/y.so"\n',
            "home/eve/.bashrc": b"",
            "home/eve/notes": b"",
        },
    )
    found = {start.path: start.programs for start in read_shell(Rooted(str(tmp_path)))}
    assert set(found) == {b"/etc/profile", b"/etc/profile.d/x.sh", b"/etc/environment", b"/home/eve/.bashrc"}
    assert [program.path for program in found[b"/etc/environment"]] == [b"/x.so", b"/y.so"]


def test_desktops_start_what_is_not_hidden(tmp_path: Path) -> None:
    entry = b"[Desktop Entry]\nExec=/usr/bin/app --x %U\n[Other]\nExec=/no\n"
    grow(
        tmp_path,
        {
            "etc/xdg/autostart/a.desktop": entry,
            "home/eve/.config/autostart/b.desktop": entry + b"[Desktop Entry]\nHidden=true\n",
            "home/eve/.config/autostart/c.desktop": b"[Desktop Entry]\nX-GNOME-Autostart-enabled=false\n",
        },
    )
    found = list(read_desktop(Rooted(str(tmp_path))))
    assert [(start.name, start.enabled) for start in found] == [
        (b"a.desktop", True),
        (b"b.desktop", False),
        (b"c.desktop", False),
    ]
    assert [program.path for program in found[0].programs] == [b"/usr/bin/app"]


def test_hostile_tables_do_no_harm(tmp_path: Path) -> None:
    lines = b"* * * * * \x1b \xff\x00'\n@ \n" + b"*" * 70_000 + b"\n* * * * * a " + b"(" * 70_000
    assert (
        len(
            cron(
                tmp_path, {"etc/crontab": lines, "etc/cron.d/\xff".encode("latin-1").decode("latin-1"): lines}
            )
        )
        == 4
    )
