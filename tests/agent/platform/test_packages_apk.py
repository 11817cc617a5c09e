"""Tests of reading apk's database and its manifests."""

import base64
import hashlib
from pathlib import Path

from agent.platform.package_owners import PackageOwners
from agent.platform.packages_apk import ApkDatabase
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import grow


def coded(data: bytes) -> bytes:
    """Return a digest as apk writes it."""
    return b"Q1" + base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest())


INSTALLED = (
    b"C:Q1abc=\nP:busybox\nV:1.36.1-r5\nA:x86_64\nI:946176\no:busybox-src\nT:tools\n"
    b"F:\nF:bin\nM:0:0:1777\nR:busybox\na:0:0:755\nZ:"
    + coded(b"elf")
    + b"\nR:sh\nZ:"
    + coded(b"/bin/busybox")
    + b"\n"
    b"F:etc\nR:motd\nZ:broken\n\n"
    b"P:musl\nV:1.2.4-r2\n\n\nV:no name\n\n"
)


def test_packages_and_their_files_are_read(tmp_path: Path) -> None:
    root = str(grow(tmp_path, {"lib/apk/db/installed": INSTALLED}))
    database = ApkDatabase(Rooted(root))
    busybox, musl = database.packages()
    assert (busybox.name, busybox.version, busybox.arch) == ("busybox", "1.36.1-r5", "x86_64")
    assert (busybox.source, busybox.size_bytes) == ("busybox-src", 946176)
    assert musl.arch is None
    expected = {entry.path: entry for entry in database.expected(busybox) or ()}
    assert list(expected) == [b"/bin", b"/bin/busybox", b"/bin/sh", b"/etc", b"/etc/motd"]
    assert (expected[b"/bin"].kind, expected[b"/bin"].mode) == ("directory", 0o1777)
    assert expected[b"/bin/busybox"].mode == 0o755
    assert expected[b"/bin/busybox"].digest == hashlib.sha1(b"elf", usedforsecurity=False).hexdigest()
    assert expected[b"/etc/motd"].digest is None
    assert list(database.expected(musl) or ()) == []
    owners = PackageOwners(root)
    assert owners.owner("/usr/bin/busybox") == "busybox"
    assert owners.owner("/etc/passwd") is None


def test_one_database_under_two_names_is_read_once(tmp_path: Path) -> None:
    grow(tmp_path, {"usr/lib/apk/db/installed": INSTALLED})
    (tmp_path / "lib").symlink_to("usr/lib")
    assert len(list(ApkDatabase(Rooted(str(tmp_path))).packages())) == 2


def test_hostile_lines_do_no_harm(tmp_path: Path) -> None:
    lines = b"P:\x07\xff\nV:1\nR:\x00\nM:::\na:1:x:9\nF:..\nR:../x\na:0:0:99999999999\nZ:Q1!!\nZ:\n:\n"
    database = ApkDatabase(Rooted(str(grow(tmp_path, {"lib/apk/db/installed": lines}))))
    (package,) = database.packages()
    assert package.name == "\x07\\xff"
    assert [entry.path for entry in database.expected(package) or ()] == [b"/\x00", b"/..", b"/../../x"]
