"""Tests of reading which snaps and flatpaks are installed."""

import json
from pathlib import Path

import pytest

from agent.platform.packages_images import read_flatpaks, read_snaps
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import grow

YAML = b"name: lxd\nversion: '5.0.3'\nsummary: |\n  version: 9\n"


def test_snaps_are_those_that_snapd_keeps_in_its_state(tmp_path: Path) -> None:
    state = {
        "data": {"snaps": {"lxd": {"active": True, "current": "27037"}, "core22": {"current": "1"}, "bad": 3}}
    }
    grow(
        tmp_path,
        {"var/lib/snapd/state.json": json.dumps(state).encode(), "snap/lxd/27037/meta/snap.yaml": YAML},
    )
    lxd, core = read_snaps(Rooted(str(tmp_path)))
    assert (lxd.name, lxd.version, lxd.revision, lxd.state) == ("lxd", "5.0.3", "27037", None)
    assert (core.name, core.version, core.revision, core.state) == ("core22", "", "1", "disabled")


def test_without_a_state_those_that_are_mounted_are_told(tmp_path: Path) -> None:
    grow(tmp_path, {"snap/lxd/7/meta/snap.yaml": YAML, "snap/bin/lxc": b""})
    (tmp_path / "snap/lxd/current").symlink_to("7")
    (snap,) = read_snaps(Rooted(str(tmp_path)))
    assert (snap.name, snap.version, snap.revision) == ("lxd", "5.0.3", "7")


@pytest.mark.parametrize("state", [b"", b"{}", b"[1]", b'{"data": {"snaps": []}}', b"[" * 100_000])
def test_a_state_that_is_none_is_an_error(tmp_path: Path, state: bytes) -> None:
    files = Rooted(str(grow(tmp_path, {"var/lib/snapd/state.json": state})))
    assert list(read_snaps(files)) == []
    assert files.errors == 1


def test_a_snap_s_name_leads_to_no_other_file(tmp_path: Path) -> None:
    state = {"data": {"snaps": {"../../etc": {"active": True, "current": ".."}}}}
    grow(tmp_path, {"var/lib/snapd/state.json": json.dumps(state).encode(), "etc/meta/snap.yaml": YAML})
    (snap,) = read_snaps(Rooted(str(tmp_path)))
    assert snap.version == ""


def test_flatpaks_of_the_system_and_of_people_are_told_with_their_release(tmp_path: Path) -> None:
    place = "var/lib/flatpak/app/org.gimp.GIMP/x86_64/stable"
    info = b'<component><releases><release date="2024-05-05" version="2.10.38"/><release version="2.10.36"/>'
    grow(
        tmp_path,
        {
            f"{place}/0123456789abcdef/files/share/metainfo/org.gimp.GIMP.metainfo.xml": info,
            "home/eve/.local/share/flatpak/runtime/org.gnome.Platform/x86_64/46/feed/metadata": b"",
            "var/lib/flatpak/app/not.Active/x86_64/stable/x/metadata": b"",
        },
    )
    (tmp_path / place / "active").symlink_to("0123456789abcdef")
    (tmp_path / "home/eve/.local/share/flatpak/runtime/org.gnome.Platform/x86_64/46/active").symlink_to(
        "feed"
    )
    gimp, gnome = read_flatpaks(Rooted(str(tmp_path)))
    assert (gimp.name, gimp.version, gimp.arch) == ("org.gimp.GIMP", "2.10.38", "x86_64")
    assert gimp.revision == "0123456789ab"
    assert (gnome.name, gnome.version, gnome.revision) == ("org.gnome.Platform", "46", "feed")


@pytest.mark.slow
def test_a_hostile_description_ends_soon(tmp_path: Path) -> None:
    place = "var/lib/flatpak/app/a/x/b"
    grow(tmp_path, {f"{place}/c/files/share/metainfo/a.metainfo.xml": b"<release " * 200_000})
    (tmp_path / place / "active").symlink_to("c")
    (package,) = read_flatpaks(Rooted(str(tmp_path)))
    assert package.version == "b"
