"""Tests of who owns a file: the databases of dpkg, rpm and apk, and the real one of this system."""

import os
import subprocess
from pathlib import Path

import pytest

from agent.platform.package_owners import PackageOwners
from tests.agent.scan.runs import grow

STATUS_FREE = {
    "var/lib/dpkg/info/base-files.list": b"/.\n/etc\n/etc/issue\n/lib/base/tool\n",
    "var/lib/dpkg/info/libc6:amd64.list": b"/.\n/usr\n/usr/lib/libc.so.6\n/etc/default/nss\n",
    "var/lib/dpkg/info/libc6:amd64.md5sums": b"",
}


def test_a_file_belongs_to_the_package_that_lists_it(tmp_path: Path) -> None:
    owners = PackageOwners(str(grow(tmp_path, STATUS_FREE)))
    assert owners.has_databases()
    assert owners.owner("/etc/issue") == "base-files"
    assert owners.owner(b"/usr/lib/libc.so.6") == "libc6"
    assert owners.owner("/etc/passwd") is None


def test_a_system_without_databases_says_so(tmp_path: Path) -> None:
    owners = PackageOwners(str(tmp_path))
    assert not owners.has_databases()
    assert owners.owner("/etc/issue") is None


def test_a_file_is_known_by_its_name_before_and_after_the_merge_of_usr(tmp_path: Path) -> None:
    owners = PackageOwners(str(grow(tmp_path, STATUS_FREE)))
    assert owners.owner("/usr/lib/base/tool") == "base-files"
    assert owners.owner("/lib/base/tool") == "base-files"
    assert owners.owner("/lib/libc.so.6") == "libc6"
    assert owners.owner("/usr/etc/issue") is None


def test_a_diverted_file_belongs_under_each_name_to_the_package_whose_file_it_is(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "var/lib/dpkg/info/dash.list": b"/bin/sh\n",
            "var/lib/dpkg/info/bash.list": b"/bin/sh\n/bin/bash\n",
            "var/lib/dpkg/diversions": b"/bin/sh\n/bin/sh.distrib\ndash\n",
        },
    )
    owners = PackageOwners(str(tmp_path))
    assert owners.owner("/bin/sh") == "dash"
    assert owners.owner("/bin/sh.distrib") == "bash"
    assert owners.owner("/bin/bash") == "bash"


def test_an_image_without_dpkg_lists_its_files_with_their_digests(tmp_path: Path) -> None:
    digest = b"d41d8cd98f00b204e9800998ecf8427e"
    grow(tmp_path, {"var/lib/dpkg/status.d/tzdata.md5sums": digest + b"  usr/share/zoneinfo/UTC\n"})
    assert PackageOwners(str(tmp_path)).owner("/usr/share/zoneinfo/UTC") == "tzdata"


def test_hostile_lists_of_files_do_no_harm(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "var/lib/dpkg/info/\x1b[31mred.list": b"/a\xff\x00b\n\n\n/c\x07",
            "var/lib/dpkg/info/plain.list": b"",
            "var/lib/dpkg/diversions": b"one\ntwo",
        },
    )
    (tmp_path / "var/lib/dpkg/info/loop.list").symlink_to("loop.list")
    os.mkfifo(tmp_path / "var/lib/dpkg/info/fifo.list")
    owners = PackageOwners(str(tmp_path))
    assert owners.owner(b"/a\xff\x00b") == "\x1b[31mred"
    assert owners.owner("/c\x07") == "\x1b[31mred"


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/usr/bin/dpkg", "/etc/debian_version", "/usr/bin/env"])
def test_this_system_s_own_files_have_the_owners_that_dpkg_names(path: str) -> None:
    said = subprocess.run(["/usr/bin/dpkg", "-S", path], capture_output=True, text=True, check=False).stdout
    if not said:
        said = subprocess.run(
            ["/usr/bin/dpkg", "-S", path.removeprefix("/usr")], capture_output=True, text=True, check=True
        ).stdout
    assert PackageOwners().owner(path) == said.partition(":")[0]
