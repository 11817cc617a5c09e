"""Tests of putting together what is known of a device."""

import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from agent.platform.block_devices import BlockDevice, Uses
from agent.platform.block_reader import RawDevice
from agent.scan.block_facts import know
from tests.support.loops import loop_device, make_image

MIB = 1 << 20


def device(name: str, number: int, *, kind: str = "disk", parent: str | None = None) -> BlockDevice:
    return BlockDevice(
        name=name,
        number=number,
        kind=kind,
        size_bytes=8 * MIB,
        sector_bytes=512,
        is_read_only=False,
        is_removable=False,
        parent=parent,
        partition=1 if parent else 0,
        start_bytes=MIB if parent else 0,
    )


def test_of_a_device_that_is_not_open_the_kernels_word_stands() -> None:
    number = os.makedev(8, 1)
    facts = know(device("sda1", number), None, [], Uses({number: [b"/x"]}, (b"/dev/sda2",)))
    assert (facts.content, facts.table, facts.mounts, facts.is_used) == (None, None, (b"/x",), True)
    assert not know(device("sda3", 7), None, [], Uses({}, (b"/dev/sda2",))).is_used
    assert know(device("sda2", 7), None, [], Uses({}, (b"/dev/sda2",))).is_swap


@pytest.mark.system
def test_the_table_is_compared_with_the_kernels_partitions(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", 8 * MIB)
    subprocess.run(["sfdisk", "-q", str(image)], input=b"label: gpt\nsize=2M\nsize=2M\n", check=True)
    with loop_device(image) as path:
        number = Path(path).stat().st_rdev
        with closing(RawDevice(path, number)) as raw:
            disk = device("sda", number)
            kernel = [disk, device("sda1", 9, kind="partition", parent="sda")]
            facts = know(disk, raw, kernel, Uses({}, ()))
            assert facts.problems == (
                "partition 1 lies elsewhere in the table than for the kernel",
                "partition 2 is in the table and not known to the kernel",
            )
            assert facts.table is not None
            assert facts.table.id in facts.ids
            # A loop device without partitions for the kernel is not compared.
            assert know(device("loop0", number, kind="loop"), raw, [], Uses({}, ())).problems == ()
