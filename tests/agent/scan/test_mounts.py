"""Tests of telling made-up file systems."""

import os
from pathlib import Path

from agent.scan.mounts import Mounts

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
