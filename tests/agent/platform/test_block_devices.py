"""Tests of what the kernel says of block devices: of recorded trees of /sys, and of a real loop device."""

import os
from pathlib import Path

import pytest

from agent.platform.block_devices import list_devices, read_uses
from tests.support.loops import loop_device, make_image


def grow(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return str(root)


@pytest.fixture
def sys_tree(tmp_path: Path) -> str:
    disk = "devices/pci/block/sda"
    grow(
        tmp_path,
        {
            f"{disk}/dev": "8:0",
            f"{disk}/size": "2048",
            f"{disk}/ro": "0",
            f"{disk}/removable": "1",
            f"{disk}/queue/logical_block_size": "4096",
            f"{disk}/device/model": "Evil \x1b[2JDisk ",
            f"{disk}/device/serial": "S1",
            f"{disk}/sda1/dev": "8:1",
            f"{disk}/sda1/size": "1024",
            f"{disk}/sda1/start": "64",
            f"{disk}/sda1/partition": "1",
            f"{disk}/sda1/ro": "1",
            f"{disk}/sda1/holders/dm-0/x": "",
            "devices/virtual/dm-0/dev": "254:0",
            "devices/virtual/dm-0/size": "1000",
            "devices/virtual/dm-0/dm/name": "root_crypt",
            "devices/virtual/dm-0/slaves/sda1/x": "",
            "devices/virtual/loop0/dev": "7:0",
            "devices/virtual/loop0/size": "8",
            "devices/virtual/loop0/loop/backing_file": "/srv/image",
            "devices/virtual/loop1/dev": "7:1",
            "devices/virtual/loop1/size": "0",
            "devices/virtual/cciss!c0d0/dev": "104:0",
            "devices/virtual/cciss!c0d0/size": "8",
            "devices/virtual/ram0/dev": "1:0",
            "devices/virtual/ram0/size": "8",
            "devices/virtual/odd/dev": "nonsense",
        },
    )
    listed = tmp_path / "class/block"
    listed.mkdir(parents=True)
    for name in ("dm-0", "loop0", "loop1", "cciss!c0d0", "ram0", "odd"):
        (listed / name).symlink_to(f"../../devices/virtual/{name}")
    (listed / "sda").symlink_to("../../devices/pci/block/sda")
    (listed / "sda1").symlink_to("../../devices/pci/block/sda/sda1")
    (listed / "gone").symlink_to("../../devices/gone")
    return str(tmp_path)


def test_devices_with_a_size_are_listed_with_what_the_kernel_says(sys_tree: str) -> None:
    found = {one.name: one for one in list_devices(sys_tree)}
    assert list(found) == ["cciss/c0d0", "dm-0", "loop0", "sda", "sda1"]
    sda, part = found["sda"], found["sda1"]
    assert (sda.kind, sda.size_bytes, sda.sector_bytes, sda.number) == (
        "disk",
        1 << 20,
        4096,
        os.makedev(8, 0),
    )
    assert (sda.model, sda.serial, sda.is_removable, sda.is_read_only) == (
        "Evil \x1b[2JDisk",
        "S1",
        True,
        False,
    )
    assert (part.kind, part.parent, part.partition, part.start_bytes) == ("partition", "sda", 1, 32768)
    assert (part.sector_bytes, part.is_read_only, part.holders) == (4096, True, ("dm-0",))
    assert (found["dm-0"].kind, found["dm-0"].mapped_name) == ("mapped", "root_crypt")
    assert found["dm-0"].members == ("sda1",)
    assert (found["loop0"].kind, found["loop0"].backing_path) == ("loop", "/srv/image")


def test_without_a_tree_there_are_no_devices(tmp_path: Path) -> None:
    assert list(list_devices(str(tmp_path))) == []
    assert read_uses(str(tmp_path)) == ({}, ())


def test_mounts_and_swaps_are_read_by_number_or_by_the_device_that_was_named(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
            "23 22 8:1 /x /a\\040b rw shared:1 - ext4 /dev/sda1 rw\n"
            "24 22 0:50 / /data rw - btrfs /dev/null rw\n"
            "25 22 0:51 / /proc rw - proc proc rw\n"
            "broken\n",
            "swaps": "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n",
        },
    )
    uses = read_uses(str(tmp_path))
    assert uses.mounts[os.makedev(8, 1)] == [b"/", b"/a b"]
    # A character device stands in for one of several devices of a btrfs.
    assert uses.mounts[Path("/dev/null").stat().st_rdev] == [b"/data"]
    assert uses.swaps == (b"/dev/sda2",)


@pytest.mark.system
def test_a_loop_device_is_listed_while_it_is_there(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 1 << 20)
    with loop_device(image, "--read-only") as device:
        [found] = [one for one in list_devices() if f"/dev/{one.name}" == device]
        assert (found.kind, found.size_bytes, found.is_read_only) == ("loop", 1 << 20, True)
        assert found.backing_path == str(image)
        assert found.number == Path(device).stat().st_rdev
    assert device not in [f"/dev/{one.name}" for one in list_devices()]
