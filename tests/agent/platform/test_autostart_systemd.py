"""Tests of what systemd starts."""

from pathlib import Path

from agent.platform.autostart_systemd import read_systemd
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import grow

UNIT = (
    b"[Service]\nUser=web\nEnvironment=TOKEN=secret\n"
    b"ExecStartPre=-/usr/bin/pre\nExecStart=/usr/bin/main --key secret\n"
)


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def starts(root: Path) -> dict[str, tuple[bool | None, bool, list[str]]]:
    files = Rooted(str(root))
    found = {
        start.path.decode(): (
            start.enabled,
            start.is_overridden,
            [program.path.decode() for program in start.programs],
        )
        for start in read_systemd(files)
    }
    assert files.errors == 0
    return found


def test_a_unit_is_enabled_where_a_link_wants_it(tmp_path: Path) -> None:
    grow(tmp_path, {"usr/lib/systemd/system/a.service": UNIT, "usr/lib/systemd/system/b.timer": b"[Timer]\n"})
    link(
        tmp_path / "etc/systemd/system/multi-user.target.wants/a.service", "/usr/lib/systemd/system/a.service"
    )
    assert starts(tmp_path) == {
        "/usr/lib/systemd/system/a.service": (True, False, ["/usr/bin/pre", "/usr/bin/main"]),
        "/usr/lib/systemd/system/b.timer": (False, False, []),
    }
    (start, _) = read_systemd(Rooted(str(tmp_path)))
    assert (start.user, start.programs[1].arguments) == (b"web", 2)


def test_units_are_enabled_by_aliases_and_as_instances_too(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "usr/lib/systemd/system/gdm.service": b"",
            "usr/lib/systemd/system/getty@.service": b"",
            "usr/lib/systemd/system/up.socket": b"[Socket]\nExecStartPost=/x\n",
        },
    )
    link(tmp_path / "etc/systemd/system/display-manager.service", "/usr/lib/systemd/system/gdm.service")
    link(tmp_path / "etc/systemd/system/getty.target.wants/getty@tty1.service", "../getty@.service")
    link(tmp_path / "etc/systemd/system/sockets.target.upholds/up.socket", "x")
    found = starts(tmp_path)
    assert found["/usr/lib/systemd/system/gdm.service"][0] is True
    assert found["/usr/lib/systemd/system/getty@.service"][0] is True
    assert found["/usr/lib/systemd/system/up.socket"] == (True, False, ["/x"])


def test_a_unit_that_is_masked_or_overridden_is_not_in_force(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/systemd/system/a.service": b"[Service]\nExecStart=/mine\n",
            "usr/lib/systemd/system/a.service": UNIT,
            "usr/lib/systemd/system/b.service": UNIT,
            "etc/systemd/system/x.target.wants/a.service": b"",
            "etc/systemd/system/x.target.wants/b.service": b"",
        },
    )
    link(tmp_path / "etc/systemd/system/b.service", "/dev/null")
    assert starts(tmp_path) == {
        "/etc/systemd/system/a.service": (True, False, ["/mine"]),
        "/usr/lib/systemd/system/a.service": (False, True, ["/usr/bin/pre", "/usr/bin/main"]),
        "/etc/systemd/system/b.service": (False, False, []),
        "/usr/lib/systemd/system/b.service": (False, True, ["/usr/bin/pre", "/usr/bin/main"]),
    }


def test_what_was_added_to_a_unit_and_units_of_people_are_told(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/systemd/system/a.service.d/x.conf": b"[Service]\nExecStartPost=/added\n",
            "etc/systemd/system/a.service.d/notes": b"",
            "home/eve/.config/systemd/user/e.service": UNIT,
            "home/eve/.config/systemd/user/default.target.wants/e.service": b"",
            "usr/lib/systemd/system-generators/gen": b"",
        },
    )
    (tmp_path / "usr/lib/systemd/system-generators/gen").chmod(0o755)
    assert starts(tmp_path) == {
        "/etc/systemd/system/a.service.d/x.conf": (False, False, ["/added"]),
        "/home/eve/.config/systemd/user/e.service": (True, False, ["/usr/bin/pre", "/usr/bin/main"]),
        "/usr/lib/systemd/system-generators/gen": (True, False, ["/usr/lib/systemd/system-generators/gen"]),
    }


def test_one_directory_under_two_names_is_read_once(tmp_path: Path) -> None:
    grow(tmp_path, {"usr/lib/systemd/system/a.service": UNIT})
    link(tmp_path / "lib", "usr/lib")
    assert list(starts(tmp_path)) == ["/usr/lib/systemd/system/a.service"]


def test_hostile_units_do_no_harm(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/systemd/system/\x1b[2J@.service": b"[\x00\nExecStart=\\\n[Service]\nExecStart='\xff"
            + b"\\" * 99
        },
    )
    link(tmp_path / "etc/systemd/system/loop.service", "loop.service")
    files = Rooted(str(tmp_path))
    assert len(list(read_systemd(files))) == 2
