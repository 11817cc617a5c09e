"""Tests of telling what lies on a device, against blkid's word, on what the usual tools make."""

import shlex
import struct
import subprocess
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.block_signatures import Content, Read, read_content
from tests.support.loops import loop_device, make_image

MIB = 1 << 20
OWN = "0d5c1f2e-7a3b-4c6d-8e9f-a0b1c2d3e4f5"
LUKS = f"-q --uuid {OWN} --pbkdf-force-iterations 1000 --key-file {{image}}.key {{image}}"
MADE = [
    pytest.param("ext2", f"mkfs.ext2 -q -F -L lab -U {OWN} {{image}}", 8, id="ext2"),
    pytest.param("ext3", f"mkfs.ext3 -q -F -L lab -U {OWN} {{image}}", 8, id="ext3"),
    pytest.param("ext4", f"mkfs.ext4 -q -F -L lab -U {OWN} {{image}}", 8, id="ext4"),
    pytest.param("xfs", f"mkfs.xfs -q -L lab -m uuid={OWN} {{image}}", 400, id="xfs"),
    pytest.param("btrfs", f"mkfs.btrfs -q -L lab -U {OWN} {{image}}", 128, id="btrfs"),
    pytest.param("vfat", "mkfs.vfat -F 16 -n LAB {image}", 16, id="vfat 16"),
    pytest.param("vfat", "mkfs.vfat -F 32 -n LAB {image}", 64, id="vfat 32"),
    pytest.param("vfat", "mkfs.vfat -F 12 {image}", 4, id="vfat 12 without a label"),
    pytest.param("ntfs", "mkntfs -q -F -f {image}", 8, id="ntfs"),
    pytest.param("swap", f"mkswap -q -L lab -U {OWN} {{image}}", 8, id="swap"),
    pytest.param("crypto_LUKS", f"cryptsetup luksFormat --type luks1 {LUKS}", 32, id="luks1"),
    pytest.param(
        "crypto_LUKS", f"cryptsetup luksFormat --type luks2 --label lab --pbkdf pbkdf2 {LUKS}", 32, id="luks2"
    ),
    pytest.param(
        "squashfs", "mksquashfs {image}.key {image} -quiet -noappend -no-progress", 1, id="squashfs"
    ),
    pytest.param("iso9660", "genisoimage -quiet -V lab -o {image} {image}.key", 1, id="iso9660"),
]


def reader(data: bytes) -> Read:
    return lambda offset, size: data[offset : offset + size] if offset >= 0 else b""


def told_by_blkid(image: str) -> dict[str, str]:
    shown = subprocess.run(["blkid", "-p", "-o", "export", image], check=True, capture_output=True, text=True)
    return dict(line.split("=", 1) for line in shown.stdout.splitlines())


@pytest.mark.system
@pytest.mark.parametrize(("kind", "command", "size_mib"), MADE)
def test_what_the_usual_tools_make_is_told_as_blkid_does(
    kind: str, command: str, size_mib: int, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image", size_mib * MIB)
    Path(f"{image}.key").write_bytes(b"a key of a test" * 100)
    subprocess.run(shlex.split(command.format(image=image)), check=True, capture_output=True)
    found = read_content(reader(image.read_bytes()), image.stat().st_size)
    told = told_by_blkid(str(image))
    assert found is not None
    assert (found.kind, found.uuid, found.label) == (kind, told.get("UUID"), told.get("LABEL"))
    assert told["TYPE"] == kind
    if found.size_bytes is not None:
        assert 0 < found.size_bytes <= image.stat().st_size


@pytest.mark.system
def test_a_physical_volume_of_lvm_is_told_as_blkid_does(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 8 * MIB)
    with loop_device(image) as device:
        subprocess.run(["pvcreate", "-q", "-y", device], check=True, capture_output=True, close_fds=True)
        found = read_content(reader(Path(device).read_bytes()), 8 * MIB)
        assert found == Content("LVM2_member", told_by_blkid(device)["UUID"], None, 8 * MIB)


@pytest.mark.parametrize("place", ["first", "at 4 KiB", "last"])
def test_a_member_of_a_raid_is_told_wherever_its_superblock_stands(place: str) -> None:
    size = 8 * MIB
    at = {"first": 0, "at 4 KiB": 4096, "last": size - 8192}[place]
    data = bytearray(size)
    block = struct.pack("<II8x16s32s", 0xA92B4EFC, 1, uuid.UUID(OWN).bytes, b"host:0")
    data[at : at + len(block)] = block
    assert read_content(reader(bytes(data)), size) == Content("linux_raid_member", OWN, "host:0", version="1")


def test_a_member_of_an_old_raid_is_told() -> None:
    size = 8 * MIB + 4096
    data = bytearray(size)
    struct.pack_into("<II", data, 8 * MIB - 65536, 0xA92B4EFC, 0)
    struct.pack_into("<I", data, 8 * MIB - 65536 + 20, 7)
    found = read_content(reader(bytes(data)), size)
    assert found is not None
    assert (found.kind, found.version) == ("linux_raid_member", "0.90")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4096, 70_000])
def test_nothing_known_is_none_whatever_the_size(size: int) -> None:
    assert read_content(reader(b"\0" * size), size) is None
    assert read_content(reader(b"\xff" * size), size) is None


SIGNATURES = [
    (0, b"XFSB"), (0, b"LUKS\xba\xbe\0\2"), (0, b"LABELONE"), (3, b"NTFS    "), (3, b"EXFAT   "),
    (0, b"hsqs"),
    (1080, b"\x53\xef"), (1024, b"\x10\x20\xf5\xf2"), (1024, b"\xe2\xe1\xf5\xe0"),
    (510, b"\x55\xaa"), (24, b"LVM2 001"),
    (54, b"FAT16   "), (65600, b"_BHRfS_M"), (32769, b"CD001"), (4086, b"SWAPSPACE2"),
    (0, b"\xfc\x4e\x2b\xa9"),
]  # fmt: skip


@given(st.binary(min_size=64, max_size=2048), st.lists(st.sampled_from(SIGNATURES), min_size=1, max_size=4))
def test_hostile_superblocks_give_bounded_facts(noise: bytes, planted: list[tuple[int, bytes]]) -> None:
    data = bytearray((noise * (70_000 // len(noise) + 1))[:70_000])
    for at, signature in planted:
        data[at : at + len(signature)] = signature
    found = read_content(reader(bytes(data)), len(data))
    if found is not None:
        assert len(found.label or "") <= 256
        assert len(found.uuid or "") <= 64
        assert (found.label or "x").encode("utf-8")
