"""Tests of telling made-up file systems."""

import os
from pathlib import Path

import pytest

from agent.scan.mounts import Mounts, Remote

MOUNTINFO = b"""22 1 0:21 / /proc rw,nosuid - proc proc rw
23 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
24 1 0:45 / /mnt/with\\040space rw master:2 shared:3 - tracefs none rw
garbage
"""


def test_types_are_told_by_device(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_bytes(MOUNTINFO)
    mounts = Mounts(str(tmp_path / "mountinfo"))
    assert mounts.pseudo_type(os.makedev(0, 21)) == "proc"
    assert mounts.pseudo_type(os.makedev(0, 45)) == "tracefs"
    assert mounts.pseudo_type(os.makedev(254, 1)) is None
    assert mounts.pseudo_type(os.makedev(9, 9)) is None


def test_without_a_table_nothing_counts_as_made_up(tmp_path: Path) -> None:
    assert Mounts(str(tmp_path / "absent")).pseudo_type(os.makedev(0, 21)) is None


def test_the_kernels_own_table_is_understood() -> None:
    assert Mounts().pseudo_type(Path("/proc").stat().st_dev) == "proc"
    assert Mounts().pseudo_type(Path(__file__).stat().st_dev) is None


ELSEWHERE = b"""23 1 254:1 / / rw - ext4 /dev/vda1 rw
24 23 0:21 / /proc rw - proc proc rw
25 24 0:30 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw
26 23 0:40 / /mnt/nfs rw - nfs4 server:/ rw
27 23 0:41 / /home\\040x rw - autofs /etc/auto.home rw
28 23 0:42 / /srv/ssh rw - fuse.sshfs host: rw
29 23 0:43 / /srv/local rw - nfs server:/x rw
30 23 254:2 / /srv/local rw - ext4 /dev/vda2 rw
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Mounts:
    (tmp_path / "mountinfo").write_bytes(ELSEWHERE)
    return Mounts(str(tmp_path / "mountinfo"))


def test_what_is_elsewhere_is_told_by_its_mount_point_before_it_is_touched(elsewhere: Mounts) -> None:
    assert elsewhere.remote_at(b"/mnt", b"nfs") == Remote(b"/mnt/nfs", "nfs4")
    assert elsewhere.remote_at(b"/", b"home x") == Remote(b"/home x", "autofs")
    assert elsewhere.remote_at(b"/other", b"nfs") is None
    assert elsewhere.remote_on_way(b"/srv/ssh/deep/file") == Remote(b"/srv/ssh", "fuse.sshfs")
    assert elsewhere.remote_on_way(b"/mnt/./x/../nfs/y") == Remote(b"/mnt/nfs", "nfs4")
    assert elsewhere.remote_on_way(b"/srv") is None
    # What is mounted over it last is what is seen; what lies in /proc is judged there.
    assert elsewhere.remote_on_way(b"/srv/local/x") is None
    assert elsewhere.remote_on_way(b"/proc/sys/fs/binfmt_misc/status") is None


def test_types_over_a_network_are_told_by_device(elsewhere: Mounts) -> None:
    devices = [os.makedev(0, minor) for minor in (40, 42, 30, 21)]
    types = [elsewhere.remote_type(device) for device in devices]
    assert types == ["nfs4", "fuse.sshfs", "autofs", None]
    assert elsewhere.remote_type(os.makedev(254, 1)) is None


def test_the_file_system_of_the_root_is_the_machines_own_whatever_its_type(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_bytes(b"23 1 0:30 / / rw - nfs4 server:/ rw\n")
    mounts = Mounts(str(tmp_path / "mountinfo"))
    assert mounts.remote_type(os.makedev(0, 30)) is None
    assert (mounts.has_remote(), mounts.remote_on_way(b"/etc")) == (False, None)


def test_links_that_lead_elsewhere_are_told_and_loops_end(tmp_path: Path) -> None:
    target = tmp_path / "far"
    (tmp_path / "mountinfo").write_text(f"40 1 0:40 / {target} rw - nfs4 server:/ rw\n")
    mounts = Mounts(str(tmp_path / "mountinfo"))
    (tmp_path / "one").symlink_to("two/../far/x")
    (tmp_path / "two").mkdir()
    (tmp_path / "three").symlink_to(tmp_path / "one")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("one", "three", "three/below", "far"):
        assert mounts.remote_on_way(os.fsencode(tmp_path / name)) == Remote(os.fsencode(target), "nfs4")
    for name in ("loop", "loop/below", "two", "absent/x"):
        assert mounts.remote_on_way(os.fsencode(tmp_path / name)) is None
