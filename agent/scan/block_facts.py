"""What is known of one block device: by the kernel, by its superblock and by its own partition table."""

from typing import NamedTuple, Optional, Sequence, Tuple

from agent.platform.block_devices import BlockDevice, Uses
from agent.platform.block_partitions import Table, differences, read_table
from agent.platform.block_reader import RawDevice
from agent.platform.block_signatures import Content, read_content

_DEV = "/dev/"


class Facts(NamedTuple):
    """Facts of a device; `problems` are those of its partition table."""

    device: BlockDevice
    content: Optional[Content]
    table: Optional[Table]
    problems: Tuple[str, ...]
    mounts: Tuple[bytes, ...]
    is_swap: bool

    @property
    def is_used(self) -> bool:
        """Whether it is mounted for us or swapped to."""
        return bool(self.mounts) or self.is_swap

    @property
    def ids(self) -> Tuple[str, ...]:
        """All ids that it has, in lower case."""
        known = [self.content.uuid if self.content is not None else None]
        if self.table is not None:
            known += [self.table.id, *(one.uuid for one in self.table.partitions)]
        return tuple(one.lower() for one in known if one is not None)


def path_of(device: BlockDevice) -> str:
    """Return where a device's file is."""
    return _DEV + device.name


def know(device: BlockDevice, raw: Optional[RawDevice], devices: Sequence[BlockDevice], uses: Uses) -> Facts:
    """Return what is known of a device; of its bytes only where it is open."""
    content = table = None
    problems: Tuple[str, ...] = ()
    if raw is not None:
        content = read_content(raw.read, raw.size_bytes)
        if device.kind != "partition":
            table = read_table(raw.read, raw.size_bytes, device.sector_bytes)
    if table is not None:
        kernel = {
            one.partition: (one.start_bytes, one.size_bytes) for one in devices if one.parent == device.name
        }
        # A loop device without the flag for partitions, or what is mapped, has none for the kernel.
        is_scanned = bool(kernel) or device.kind == "disk"
        problems = (*table.problems, *(differences(table, kernel) if is_scanned else ()))
    return Facts(
        device,
        content,
        table,
        problems,
        tuple(uses.mounts.get(device.number, ())),
        any(path.decode("utf-8", "replace") == path_of(device) for path in uses.swaps),
    )
