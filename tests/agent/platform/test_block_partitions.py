"""Tests of parsing partition tables, against sfdisk's word, and with hostile ones."""

import json
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.block_partitions import Partition, Read, Table, differences, read_table
from tests.support.loops import make_image

MIB = 1 << 20
SIZE = 64 * MIB
GPT = 'label: gpt\nsize=10M,name=one\nsize=20M,name="zw\u00f6lf\x1b"\nsize=4M,type=swap\n'
MBR = (
    "label: dos\nsize=10M,bootable\nsize=40M,type=5\nsize=2M\nsize=2M,type=82\n"
    "size=8M\nsize=5M,type=82\nsize=4M\n"
)
NESTED = "label: dos\nsize=10M\nsize=40M,type=f\nsize=2M,type=83\n"


def image_of(table: str, directory: Path) -> bytes:
    image = make_image(directory / "image", SIZE)
    subprocess.run(["sfdisk", "-q", str(image)], input=table.encode(), check=True, capture_output=True)
    return image.read_bytes()


def reader(data: bytes) -> Read:
    return lambda offset, size: data[offset : offset + size] if offset >= 0 else b""


def table_of(data: bytes) -> Table:
    table = read_table(reader(data), len(data), 512)
    assert table is not None
    return table


def told_by_sfdisk(image: Path) -> list[dict[str, object]]:
    shown = subprocess.run(["sfdisk", "-J", str(image)], check=True, capture_output=True).stdout
    listed: list[dict[str, object]] = json.loads(shown)["partitiontable"]["partitions"]
    return listed


@pytest.mark.system
@pytest.mark.parametrize(("written", "kind"), [(GPT, "gpt"), (MBR, "mbr"), (NESTED, "mbr")])
def test_a_table_is_read_as_sfdisk_does(written: str, kind: str, tmp_path: Path) -> None:
    table = table_of(image_of(written, tmp_path))
    assert (table.kind, table.problems) == (kind, ())
    told = told_by_sfdisk(tmp_path / "image")
    assert [(one.start_bytes // 512, one.size_bytes // 512) for one in table.partitions] == [
        (one["start"], one["size"]) for one in told
    ]
    for mine, theirs in zip(table.partitions, told, strict=True):
        assert str(theirs["node"]).endswith(str(mine.number))
        assert mine.name == theirs.get("name")
        assert mine.is_bootable == theirs.get("bootable", False)
        if kind == "gpt":
            assert (mine.uuid, mine.type) == (str(theirs["uuid"]).lower(), str(theirs["type"]).lower())
        else:
            assert mine.type == f"0x{int(str(theirs['type']), 16):02x}"


@pytest.mark.system
def test_a_damaged_table_is_read_from_its_copy_and_said(tmp_path: Path) -> None:
    data = bytearray(image_of(GPT, tmp_path))
    whole = table_of(bytes(data))
    for at, said in (
        (600, "the check sum of its header does not hold"),
        (1030, "of its entries does not hold"),
    ):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        table = table_of(bytes(broken))
        assert table.partitions == whole.partitions
        assert said in table.problems[0]
    data[512:520] = b"\0" * 8
    assert table_of(bytes(data)).problems == ("the table is not there",)
    data[-512:] = b"\0" * 512
    # The protective MBR alone is left.
    assert [one.type for one in table_of(bytes(data)).partitions] == ["0xee"]


@pytest.mark.system
def test_a_partition_beyond_the_device_is_a_problem(tmp_path: Path) -> None:
    data = image_of(MBR, tmp_path)[: 45 * MIB]
    table = table_of(data)
    assert "partition 2 does not lie on the device" in table.problems


@pytest.mark.system
def test_a_chain_that_leads_back_ends(tmp_path: Path) -> None:
    data = bytearray(image_of(MBR, tmp_path))
    extended = next(one for one in table_of(bytes(data)).partitions if one.type == "0x05")
    # The first link leads to itself.
    data[extended.start_bytes + 470 : extended.start_bytes + 474] = b"\0" * 4
    table = table_of(bytes(data))
    assert [one.number for one in table.partitions] == [1, 2, 3, 4, 5]
    assert table.problems == ("the chain of logical partitions does not end",)
    data[extended.start_bytes + 510] = 0
    assert table_of(bytes(data)).problems == ("the chain of logical partitions is broken",)


@pytest.mark.system
def test_the_boot_sector_of_a_file_system_is_no_table(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 8 * MIB)
    subprocess.run(["mkfs.vfat", str(image)], check=True, capture_output=True)
    assert read_table(reader(image.read_bytes()), 8 * MIB, 512) is None
    assert read_table(reader(b""), 0, 512) is None


def test_where_the_kernel_knows_otherwise_it_is_said() -> None:
    table = Table(
        "mbr",
        "x",
        (
            Partition(1, 512, 1024, "0x83"),
            Partition(2, 4096, 8192, "0x05"),
            Partition(3, 512, 512, "0x83"),
            Partition(4, 512, 512, "0x83"),
        ),
    )
    kernel = {1: (512, 1024), 2: (4096, 1024), 3: (1024, 512), 9: (0, 1)}
    assert differences(table, kernel) == [
        "partition 3 lies elsewhere in the table than for the kernel",
        "partition 4 is in the table and not known to the kernel",
        "partition 9 is known to the kernel and not in the table",
    ]


@given(st.binary(min_size=66, max_size=66), st.binary(max_size=600))
def test_any_bytes_are_a_table_or_none(entries: bytes, more: bytes) -> None:
    first = (
        b"\0" * 446 + b"".join(b"\0" + entries[at * 16 + 1 : at * 16 + 16] for at in range(4)) + b"\x55\xaa"
    )
    data = (first + (more or b"\0") * 20_000)[:20_480]
    table = read_table(reader(data), len(data), 512)
    if table is not None:
        assert len(table.partitions) <= 4 + 128


@given(st.binary(min_size=80, max_size=80), st.integers(0, 3000), st.integers(0, 10_000))
def test_any_gpt_is_a_table_or_none(header: bytes, count: int, entry_bytes: int) -> None:
    protective = b"\0" * 446 + b"\0\0\0\0\xee" + b"\xff" * 11 + b"\0" * 48 + b"\x55\xaa"
    made = bytearray(b"EFI PART" + header[:80].ljust(84, b"\0"))
    made[12:16] = (92).to_bytes(4, "little")
    made[72:80] = (2).to_bytes(8, "little")
    made[80:84], made[84:88] = count.to_bytes(4, "little"), entry_bytes.to_bytes(4, "little")
    made[16:20] = b"\0" * 4
    made[16:20] = zlib.crc32(bytes(made)).to_bytes(4, "little")
    data = protective + bytes(made).ljust(512, b"\0") + header * 400
    table = read_table(reader(data), len(data), 512)
    assert table is None or len(table.partitions) <= 1024
