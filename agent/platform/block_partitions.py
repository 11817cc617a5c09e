"""The partition table of a device, parsed from its own bytes: GPT, else MBR with its chain of extended ones.

Rules: what it says is hostile. Places beyond the device are problems and not followed, a chain ends where it
comes to a place for the second time, and numbers are bounded. A GPT whose check sums do not hold is read from
its copy at the device's end; where that does not hold either, it is shown as it stands, with its problems.

Sources: UEFI specification, chapter 5 (GUID Partition Table Disk Layout); of the MBR there is none, see
https://wiki.osdev.org/MBR_(x86) and https://wiki.osdev.org/Partition_Table.
"""

import struct
import uuid
import zlib
from typing import Callable, List, Mapping, NamedTuple, Optional, Set, Tuple

Read = Callable[[int, int], bytes]
_GPT = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_SIGNATURE = b"EFI PART"
_MBR_ENTRY = struct.Struct("<B3xB3xII")
_PROTECTIVE = 0xEE
_EXTENDED = (0x05, 0x0F, 0x85)
_FIRST_LOGICAL = 5
_MOST_ENTRIES, _MOST_ENTRY_BYTES, _MOST_LOGICAL = 1024, 4096, 128


class Partition(NamedTuple):
    """A partition as the table has it; `type` is a GUID, or a byte such as `0x83`."""

    number: int
    start_bytes: int
    size_bytes: int
    type: str
    uuid: Optional[str] = None
    name: Optional[str] = None
    is_bootable: bool = False


class Table(NamedTuple):
    """A partition table: `gpt` or `mbr`, the disk's id in it, its partitions, and what is wrong with it."""

    kind: str
    id: str
    partitions: Tuple[Partition, ...]
    problems: Tuple[str, ...] = ()


def read_table(read: Read, size_bytes: int, sector_bytes: int) -> Optional[Table]:
    """Return the partition table of a device; None where it has none.

    `read` gives bytes at an offset, fewer where there are not as many.
    """
    first = read(0, 512)
    if len(first) < 512 or first[510:] != b"\x55\xaa":  # noqa: PLR2004  (where its signature stands)
        return None
    entries = [_MBR_ENTRY.unpack_from(first, 446 + 16 * at) for at in range(4)]
    # The boot sector of a file system has the same signature.
    if any(status not in (0, 0x80) for status, _, _, _ in entries):
        return None
    if any(kind == _PROTECTIVE for _, kind, _, _ in entries):
        table = _read_gpt(read, size_bytes, sector_bytes)
        if table is not None:
            return table
    entries = [entry for entry in entries if entry[1] or entry[3]]
    return _Mbr(read, size_bytes, sector_bytes, first).table() if entries else None


def _read_gpt(read: Read, size_bytes: int, sector_bytes: int) -> Optional[Table]:
    problems: List[str] = []
    shown: Optional[Table] = None
    last = size_bytes // sector_bytes - 1
    for what, block in (("table", 1), ("copy of the table", last)):
        header = read(block * sector_bytes, sector_bytes)
        if len(header) < _GPT.size or not header.startswith(_SIGNATURE):
            problems.append(f"the {what} is not there")
            continue
        table, problem = _parse_gpt(read, header, sector_bytes, size_bytes)
        if problem:
            problems.append(f"the {what}: {problem}")
        if table is not None and (shown is None or not problem):
            shown = table
        if not problem:
            break
    return None if shown is None else shown._replace(problems=(*problems, *shown.problems))


def _parse_gpt(
    read: Read, header: bytes, sector_bytes: int, size_bytes: int
) -> Tuple[Optional[Table], Optional[str]]:
    fields = _GPT.unpack_from(header)
    header_bytes, check = fields[2], fields[3]
    disk, start, count, entry_bytes, entries_check = fields[9:14]
    if not _GPT.size <= header_bytes <= len(header):
        return None, "its header has an impossible size"
    if count > _MOST_ENTRIES or not _GPT_ENTRY.size <= entry_bytes <= _MOST_ENTRY_BYTES:
        return None, "its entries have an impossible number or size"
    problem = None
    blank = header[:16] + b"\0\0\0\0" + header[20:header_bytes]
    if zlib.crc32(blank) != check:
        problem = "the check sum of its header does not hold"
    entries = read(min(start * sector_bytes, size_bytes), count * entry_bytes)
    if len(entries) < count * entry_bytes:
        return None, "its entries lie beyond the device"
    if zlib.crc32(entries) != entries_check:
        problem = problem or "the check sum of its entries does not hold"
    found = []
    problems = []
    for number in range(1, count + 1):
        kind, own, first, last, _, name = _GPT_ENTRY.unpack_from(entries, (number - 1) * entry_bytes)
        if not any(kind):
            continue
        size = (last - first + 1) * sector_bytes
        found.append(
            Partition(number, first * sector_bytes, max(size, 0), _guid(kind), _guid(own), _name(name))
        )
        if last < first or (last + 1) * sector_bytes > size_bytes:
            problems.append(f"partition {number} does not lie on the device")
    return Table("gpt", _guid(disk), tuple(found), tuple(problems)), problem


def _guid(data: bytes) -> str:
    return str(uuid.UUID(bytes_le=data))


def _name(data: bytes) -> Optional[str]:
    return data.decode("utf-16-le", "replace").partition("\0")[0] or None


class _Mbr:
    """Reads an MBR and what is chained to it."""

    def __init__(self, read: Read, size_bytes: int, sector_bytes: int, first: bytes) -> None:
        self._read = read
        self._size_bytes = size_bytes
        self._sector_bytes = sector_bytes
        self._disk = f"{int.from_bytes(first[440:444], 'little'):08x}"
        self._found: List[Partition] = []
        self._problems: List[str] = []
        self._first = first

    def table(self) -> Table:
        extended = 0
        for number in range(1, 5):
            status, kind, start, sectors = _MBR_ENTRY.unpack_from(self._first, 446 + 16 * (number - 1))
            if not (kind and sectors):
                continue
            lies_inside = self._add(number, start, sectors, kind, status)
            if lies_inside and kind in _EXTENDED and not extended:
                extended = start
        if extended:
            self._follow(extended)
        return Table("mbr", self._disk, tuple(self._found), tuple(self._problems))

    def _add(self, number: int, start: int, sectors: int, kind: int, status: int) -> bool:
        """Take a partition of the table; tell whether it lies on the device."""
        one = Partition(
            number,
            start * self._sector_bytes,
            sectors * self._sector_bytes,
            f"0x{kind:02x}",
            uuid=f"{self._disk}-{number:02x}",
            is_bootable=status == 0x80,  # noqa: PLR2004  (what makes a partition active)
        )
        self._found.append(one)
        if one.start_bytes + one.size_bytes > self._size_bytes:
            self._problems.append(f"partition {number} does not lie on the device")
            return False
        return True

    def _follow(self, extended: int) -> None:
        """Follow the chain of logical partitions."""
        seen: Set[int] = set()
        at, number = extended, _FIRST_LOGICAL
        while True:
            if at in seen or len(seen) >= _MOST_LOGICAL:
                self._problems.append("the chain of logical partitions does not end")
                return
            seen.add(at)
            place = at * self._sector_bytes
            block = self._read(place, 512) if place < self._size_bytes else b""
            if block[510:512] != b"\x55\xaa":
                self._problems.append("the chain of logical partitions is broken")
                return
            status, kind, start, sectors = _MBR_ENTRY.unpack_from(block, 446)
            if kind and sectors:
                self._add(number, at + start, sectors, kind, status)
                number += 1
            _, kind, start, _ = _MBR_ENTRY.unpack_from(block, 462)
            if kind not in _EXTENDED:
                return
            at = extended + start


def differences(table: Table, kernel: Mapping[int, Tuple[int, int]]) -> List[str]:
    """Return in words where the table and the kernel's partitions (number to start and size) disagree.

    Of an extended partition the kernel knows two sectors only.
    """
    told = []
    listed = {one.number: one for one in table.partitions}
    for number in sorted(set(listed) | set(kernel)):
        one, known = listed.get(number), kernel.get(number)
        if one is None:
            told.append(f"partition {number} is known to the kernel and not in the table")
        elif known is None:
            told.append(f"partition {number} is in the table and not known to the kernel")
        elif known[0] != one.start_bytes or (known[1] != one.size_bytes and not _is_extended(one)):
            told.append(f"partition {number} lies elsewhere in the table than for the kernel")
    return told


def _is_extended(partition: Partition) -> bool:
    return partition.type in {f"0x{kind:02x}" for kind in _EXTENDED}
