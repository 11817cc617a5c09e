"""Tests of reading dpkg's database and its manifests, and of this system's against dpkg-query itself."""

import hashlib
import subprocess
from pathlib import Path

from agent.platform.packages_dpkg import DpkgDatabase, is_removed
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import grow

CONTENT = b"#!/bin/sh\n"
SUM = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest().encode()
STATUS = b"""Package: tool
Status: install ok installed
Installed-Size: 12
Architecture: amd64
Multi-Arch: same
Source: tools (1.0)
Version: 1:1.0-2
Conffiles:
 /etc/tool.conf %(sum)s
 /etc/old.conf %(sum)s obsolete
Description: a tool
 with more to say
 Version: 9

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 2.0

Package: broken
Status: install reinstreq half-configured
Architecture: all
Version: 3.0

No package here
Package: nameless
""" % {b"sum": SUM}


def system(root: Path) -> Path:
    """Make a system with one package that is whole."""
    return grow(
        root,
        {
            "var/lib/dpkg/status": STATUS,
            "var/lib/dpkg/info/tool:amd64.list": b"/.\n/etc\n/etc/tool.conf\n"
            b"/usr/bin\n/usr/bin/tool\n/usr/bin/t\n",
            "var/lib/dpkg/info/tool:amd64.md5sums": SUM + b"  usr/bin/tool\n",
            "etc/tool.conf": CONTENT,
            "usr/bin/tool": CONTENT,
            "usr/bin/t": b"",
        },
    )


def test_packages_are_read_with_their_state(tmp_path: Path) -> None:
    packages = list(DpkgDatabase(Rooted(str(system(tmp_path)))).packages())
    tool, gone, broken = packages
    assert (tool.name, tool.version, tool.arch, tool.source) == ("tool", "1:1.0-2", "amd64", "tools")
    assert (tool.state, tool.size_bytes) == (None, 12 << 10)
    assert tool.installed_s is not None
    assert (gone.state, is_removed(gone)) == ("config-files", True)
    assert (broken.state, is_removed(broken)) == ("half-configured", False)


def test_a_manifest_has_digests_where_dpkg_kept_them(tmp_path: Path) -> None:
    database = DpkgDatabase(Rooted(str(system(tmp_path))))
    tool, _, broken = database.packages()
    expected = {entry.path: entry for entry in database.expected(tool) or ()}
    assert expected[b"/usr/bin/tool"].digest == SUM.decode()
    assert expected[b"/etc/tool.conf"].is_config
    assert expected[b"/usr/bin/t"].digest is None
    assert b"/etc/old.conf" not in expected
    assert database.expected(broken) is None


def test_what_dpkg_was_told_to_leave_out_is_not_expected(tmp_path: Path) -> None:
    system(tmp_path)
    grow(
        tmp_path,
        {
            "etc/dpkg/dpkg.cfg.d/slim": b"# slim\npath-exclude=/usr/*\n"
            b"path-include /usr/bin/t\nforce-unsafe-io\n"
        },
    )
    database = DpkgDatabase(Rooted(str(tmp_path)))
    tool = next(database.packages())
    assert {entry.path for entry in database.expected(tool) or ()} == {
        b"/.", b"/etc", b"/etc/tool.conf", b"/usr/bin/t",
    }  # fmt: skip


def test_a_diverted_file_is_expected_where_it_was_put(tmp_path: Path) -> None:
    system(tmp_path)
    grow(
        tmp_path,
        {"var/lib/dpkg/diversions": b"/usr/bin/tool\n/usr/bin/tool.real\n:\n/usr/bin/t\n/t2\ntool\n"},
    )
    database = DpkgDatabase(Rooted(str(tmp_path)))
    expected = {entry.path for entry in database.expected(next(database.packages())) or ()}
    assert b"/usr/bin/tool.real" in expected
    assert b"/usr/bin/tool" not in expected
    assert b"/usr/bin/t" in expected


def test_an_image_without_dpkg_has_a_file_for_each_package(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "var/lib/dpkg/status.d/base": b"Package: base-files\nVersion: 12.4\nArchitecture: amd64\n",
            "var/lib/dpkg/status.d/base.md5sums": SUM + b"  usr/bin/tool\n",
        },
    )
    database = DpkgDatabase(Rooted(str(tmp_path)))
    (package,) = database.packages()
    assert (package.name, package.version, package.state) == ("base-files", "12.4", None)
    assert [entry.path for entry in database.expected(package) or ()] == [b"/usr/bin/tool"]


def test_hostile_stanzas_do_no_harm(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "var/lib/dpkg/status": b"Package: ../../../etc/\x1b[31m\xff\nVersion: "
            + b"9" * 5000
            + b"\n\n \n:\n: x\nPackage:\n\nPackage: a\nVersion: 1\nInstalled-Size: -3\nConffiles:\n x\n"
        },
    )
    files = Rooted(str(tmp_path))
    first, second = DpkgDatabase(files).packages()
    assert first.name == "../../../etc/\x1b[31m\\xff"
    assert len(first.version) == 512
    assert (second.name, second.size_bytes) == ("a", None)
    assert files.errors == 0


def test_this_system_s_packages_are_those_that_dpkg_query_names() -> None:
    wanted = "${db:Status-Status} ${Package} ${Version} ${Architecture} ${source:Package}\n"
    said = subprocess.run(
        ["/usr/bin/dpkg-query", "-W", "-f", wanted], capture_output=True, text=True, check=True
    )
    found = [
        f"{package.state or 'installed'} {package.name} {package.version} {package.arch}"
        f" {package.source or package.name}"
        for package in DpkgDatabase(Rooted()).packages()
    ]
    assert sorted(found) == sorted(said.stdout.splitlines())
