r"""Look at block devices: partitions, file systems, UUIDs, sizes, mounts; hash a range; search raw blocks.

Without anything to search for or to hash, there is a record for each device and partition that satisfies all
filters given; several values of one filter are alternatives. What lies on a device is told by its superblock,
and its partition table is parsed from its own bytes and compared with what the kernel knows of it.

With `contents` or `bytes` the raw blocks of `devices` are searched, whatever file system is on them: deleted
files, slack and unused space too. Offsets count from the device's beginning. Then `found` means that at least
one pattern was found in at least one device, and only such devices have a record. Expressions (RE2) are
matched on raw bytes; a match of more than 64 KiB may be told shorter. What is encrypted, compressed or lies
in pieces is found only as it lies there. With `returnhashes` the range is hashed.

Devices are opened for reading only and never mounted; what was read does not stay in the page cache. A file
system that is mounted may be changed while it is read, and what was not written back yet is not on the
device. An endpoint whose access rules limit paths searches and hashes no devices: that would get around them.

Statistics: `devices_seen`, `bytes_read`, `unreadable_bytes`, `skipped` by reason, `errors`.
"""

from collections import Counter
from contextlib import closing
from typing import Annotated, Dict, Iterator, List, Literal, Optional, Sequence, Tuple

import msgspec
from msgspec import Meta

from agent.module import Context, ModuleRecord
from agent.platform.block_devices import BlockDevice, Uses, list_devices, read_uses
from agent.platform.block_reader import DeviceGone, RawDevice
from agent.scan.block_facts import Facts, know, path_of
from agent.scan.block_look import Look, Range, Wanted, look_at_range
from agent.scan.budget import BudgetParams
from agent.scan.digests import require_digests
from agent.scan.globs import NameGlob
from agent.scan.log_question import LineFilter
from agent.scan.patterns import require_pattern, split_inverse
from agent.scan.raw_patterns import Places, compile_expression, compile_string, require_expression
from agent.scan.search import HashKind, Regex
from agent.scan.texts import path_text
from agent.scan.throttle import Throttle
from protocol.errors import InvalidInput

PATHS = ()
PLATFORMS = ("linux",)
EXAMPLES = (
    "mig block   which devices there are, and what is on them",
    "mig block --type crypto_LUKS --type swap   by what lies on them",
    "mig block --mounted no --type ext4   file systems that nobody mounted",
    "mig block --device /dev/sda --content 'BEGIN OPENSSH PRIVATE KEY'   also in deleted files",
    "mig block --device sdb1 --byte 4d5a90000300 --matchlimit 10   where a program begins",
    "mig block --device sda --length-bytes 446 --returnhash sha256   has the boot code changed",
)

DeviceName = Annotated[str, Meta(pattern=r"^(/dev/)?[^/\x00][^\x00]*\Z", max_length=255)]
Hex = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}){1,1024}\Z")]
Place = Annotated[int, Meta(ge=0, le=2**62)]
ShortText = Annotated[str, Meta(min_length=1, max_length=255)]


class Params(BudgetParams, frozen=True, kw_only=True):
    """Which devices, and what to look for on them."""

    devices: Annotated[
        Tuple[DeviceName, ...],
        Meta(description="names, such as /dev/sda1 or nvme0n1; may hold * ? [...]", max_length=256),
    ] = ()
    types: Annotated[
        Tuple[ShortText, ...],
        Meta(
            description="what lies on it, as blkid names it: ext4, xfs, swap, crypto_LUKS, ...", max_length=64
        ),
    ] = ()
    uuids: Annotated[
        Tuple[ShortText, ...],
        Meta(description="UUIDs of file systems, partitions or disks, in any case", max_length=256),
    ] = ()
    labels: Annotated[
        Tuple[Regex, ...],
        Meta(description="regular expressions (RE2) on the file system's label; ! leaves out", max_length=64),
    ] = ()
    mounted: Annotated[
        Optional[Literal["yes", "no"]],
        Meta(description="yes: only what is mounted or swapped to; no: only what is not"),
    ] = None
    contents: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) to look for in the raw bytes of `devices`", max_length=64
        ),
    ] = ()
    bytes: Annotated[
        Tuple[Hex, ...],
        Meta(
            description="byte strings in hexadecimal to look for in the raw bytes of `devices`", max_length=64
        ),
    ] = ()
    returnhashes: Annotated[
        Tuple[HashKind, ...],
        Meta(description="digests to give of the range of each of `devices`", max_length=10),
    ] = ()
    offset_bytes: Annotated[Place, Meta(description="where the range begins, in bytes")] = 0
    length_bytes: Annotated[
        Place, Meta(description="length of the range in bytes; 0 is up to the device's end")
    ] = 0
    matchlimit: Annotated[
        int, Meta(description="tell at most so many places of each pattern and device", ge=1, le=100_000)
    ] = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; msgspec turns the ValueError into its own error."""
        if self.reads_blocks() and not self.devices:
            raise ValueError("name the devices to search or to hash")
        if (self.offset_bytes or self.length_bytes) and not self.reads_blocks():
            raise ValueError("a range is for contents, bytes or returnhashes")
        for value in self.labels:
            require_pattern(split_inverse(value)[0], "labels")
        for value in self.contents:
            require_expression(value)

    def reads_blocks(self) -> bool:
        """Tell whether more than superblocks is read."""
        return bool(self.contents or self.bytes or self.returnhashes)


class PartitionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A partition as the device's own table has it."""

    number: Annotated[int, Meta(description="number in the table")]
    start_bytes: Annotated[int, Meta(description="offset of its beginning in bytes")]
    size_bytes: Annotated[int, Meta(description="size in bytes")]
    type: Annotated[str, Meta(description="GUID of its type, or 0x and the type of an MBR")]
    uuid: Annotated[Optional[str], Meta(description="its own id in the table")] = None
    name: Annotated[Optional[str], Meta(description="its name in a GPT")] = None
    bootable: Annotated[bool, Meta(description="marked as active in an MBR")] = False


class MatchRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pattern that was found."""

    pattern: Annotated[str, Meta(description="the expression or byte string, as it was asked for")]
    count: Annotated[int, Meta(description="number of places told")]
    offsets_bytes: Annotated[
        Tuple[int, ...], Meta(description="offsets from the device's beginning in bytes")
    ]
    cut: Annotated[bool, Meta(description="looked for no further after matchlimit places")] = False


class Record(ModuleRecord, frozen=True, kw_only=True):
    """One device or partition."""

    device: Annotated[str, Meta(description="path, such as /dev/sda1")]
    kind: Annotated[str, Meta(description="disk, partition, loop, mapped (device mapper) or raid")]
    size_bytes: Annotated[int, Meta(description="size in bytes")]
    sector_bytes: Annotated[int, Meta(description="size of a logical sector in bytes")]
    read_only: Annotated[bool, Meta(description="the kernel lets nobody write to it")] = False
    removable: Annotated[bool, Meta(description="its medium can be changed")] = False
    parent: Annotated[Optional[str], Meta(description="path of the device that a partition is of")] = None
    start_bytes: Annotated[
        Optional[int], Meta(description="offset of a partition on its device in bytes, as the kernel has it")
    ] = None
    model: Annotated[Optional[str], Meta(description="what the device calls itself")] = None
    serial: Annotated[Optional[str], Meta(description="the device's serial number")] = None
    type: Annotated[Optional[str], Meta(description="what lies on it, such as ext4, swap or crypto_LUKS")] = (
        None
    )
    uuid: Annotated[Optional[str], Meta(description="UUID or serial number of what lies on it")] = None
    label: Annotated[Optional[str], Meta(description="label of what lies on it")] = None
    version: Annotated[Optional[str], Meta(description="version of its format, where it has several")] = None
    content_bytes: Annotated[
        Optional[int], Meta(description="size in bytes of what lies on it, by its own word")
    ] = None
    mountpoints: Annotated[
        Tuple[str, ...], Meta(description="where it is mounted, as the agent sees it")
    ] = ()
    swap: Annotated[bool, Meta(description="it is swapped to")] = False
    holders: Annotated[Tuple[str, ...], Meta(description="names of devices that lie on it")] = ()
    members: Annotated[Tuple[str, ...], Meta(description="names of devices that it lies on")] = ()
    backing_path: Annotated[Optional[str], Meta(description="file that a loop device shows")] = None
    mapped_name: Annotated[Optional[str], Meta(description="name that the device mapper gives it")] = None
    table: Annotated[Optional[str], Meta(description="kind of its partition table: gpt or mbr")] = None
    table_id: Annotated[Optional[str], Meta(description="id of the disk in its partition table")] = None
    partitions: Annotated[Tuple[PartitionRecord, ...], Meta(description="partitions by its own table")] = ()
    table_problems: Annotated[
        Tuple[str, ...],
        Meta(description="what is wrong with its table, and where the kernel knows otherwise"),
    ] = ()
    hashes: Annotated[
        Optional[Dict[str, str]], Meta(description="digests of the range in hexadecimal, by algorithm")
    ] = None
    matches: Annotated[Tuple[MatchRecord, ...], Meta(description="patterns that were found, and where")] = ()


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield the records of the devices that satisfy all filters and, where it is searched, hold a pattern.

    Raises:
        InvalidInput: `acl-refused`, where path rules forbid to read blocks; `unsupported`, without RE2.

    """
    if params.reads_blocks() and not context.paths.is_open:
        raise InvalidInput("acl-refused", "a device holds all files on it, and access rules limit paths")
    require_digests(params.returnhashes, "returnhashes")
    look = _Looker(params, context)
    uses = read_uses()
    devices = list(list_devices())
    for device in devices:
        context.check()
        look.counts["devices_seen"] += 1
        look.tell()
        record = look.at(device, devices, uses) if look.is_named(device) else None
        if record is not None:
            yield record
    for name in look.unused_names():
        context.note(f"there is no block device {name}")


class _Looker:
    """Looks at one device after the other."""

    def __init__(self, params: Params, context: Context) -> None:
        self._params = params
        self._context = context
        self._globs = {name: NameGlob(name.encode()) for name in params.devices}
        self._used: Counter[str] = Counter()
        self._labels = LineFilter(params.labels)
        self._uuids = frozenset(one.lower() for one in params.uuids)
        strings = [compile_string(one) for one in params.bytes]
        patterns = [compile_expression(one) for one in params.contents]
        self._wanted = Wanted((*strings, *patterns), params.returnhashes, params.matchlimit)
        self.counts: Counter[str] = Counter(devices_seen=0, bytes_read=0, unreadable_bytes=0, errors=0)
        self._skipped: Counter[str] = Counter()
        self._throttle = Throttle(params.budget(context), 1, bytes_read=lambda: self.counts["bytes_read"])
        self.tell()

    def tell(self) -> None:
        """Put the counts into the statistics."""
        self._context.statistics.update({**self.counts, "skipped": dict(self._skipped)})

    def is_named(self, device: BlockDevice) -> bool:
        """Tell whether a device is one of those that were named, or none was."""
        found = [
            name
            for name, glob in self._globs.items()
            if glob.matches(device.name.encode()) or glob.matches(path_of(device).encode())
        ]
        self._used.update(found)
        return bool(found) or not self._globs

    def unused_names(self) -> List[str]:
        """Return the names that no device has."""
        return [name for name in self._globs if name not in self._used]

    def at(self, device: BlockDevice, devices: Sequence[BlockDevice], uses: Uses) -> Optional[Record]:
        """Return the record of a device; None where it is not wanted."""
        try:
            with closing(RawDevice(path_of(device), device.number)) as raw:
                facts = know(device, raw, devices, uses)
                if not self._is_wanted(facts):
                    return None
                if not self._params.reads_blocks():
                    return _record(facts)
                look = self._look(device, raw)
        except DeviceGone as gone:
            self._skipped["no-device-file"] += 1
            self._context.note(str(gone))
        except OSError as error:
            self.counts["errors"] += 1
            self._context.note(f"{path_of(device)}: {error.strerror}")
        else:
            has_answer = any(one.offsets for one in look.places) or look.digests
            return _record(facts, look) if has_answer else None
        # What the kernel says of it stands, where no more is asked for.
        facts = know(device, None, devices, uses)
        asks_more = self._params.reads_blocks() or self._params.types or self._params.uuids
        return None if asks_more or not self._is_wanted(facts) else _record(facts)

    def _is_wanted(self, facts: Facts) -> bool:
        params, content = self._params, facts.content
        if params.types and (content is None or content.kind not in params.types):
            return False
        if self._uuids and self._uuids.isdisjoint(facts.ids):
            return False
        label = content.label if content is not None else None
        if not self._labels.is_open and not self._labels.admits((label or "").encode()):
            return False
        return params.mounted is None or (params.mounted == "yes") == facts.is_used

    def _look(self, device: BlockDevice, raw: RawDevice) -> Look:
        params = self._params
        end = params.offset_bytes + params.length_bytes if params.length_bytes else raw.size_bytes
        over = Range(min(params.offset_bytes, raw.size_bytes), min(end, raw.size_bytes))
        if over.end < end or over.start < params.offset_bytes:
            self._context.note(f"{path_of(device)}: the range goes beyond its {raw.size_bytes} bytes")
        look = look_at_range(raw, over, self._wanted, self._pulse)
        if look.unreadable_bytes:
            self.counts["errors"] += 1
            self.counts["unreadable_bytes"] += look.unreadable_bytes
            self._context.note(f"{path_of(device)}: {look.unreadable_bytes} bytes could not be read")
        for one in look.places:
            if one.is_cut:
                text = f"{one.pattern.text[:200]!r}: stopped at matchlimit, {params.matchlimit} places"
                self._context.truncate(f"{path_of(device)}: {text}")
        self.tell()
        return look

    def _pulse(self, size: int) -> None:
        self.counts["bytes_read"] += size
        self._throttle.keep(self._context.check)
        if size:
            self.tell()
            self._context.progress()


def _record(facts: Facts, look: Optional[Look] = None) -> Record:
    device, content, table = facts.device, facts.content, facts.table
    return Record(
        device=path_of(device),
        kind=device.kind,
        size_bytes=device.size_bytes,
        sector_bytes=device.sector_bytes,
        read_only=device.is_read_only,
        removable=device.is_removable,
        parent=None if device.parent is None else f"/dev/{device.parent}",
        start_bytes=device.start_bytes if device.partition else None,
        model=device.model,
        serial=device.serial,
        type=None if content is None else content.kind,
        uuid=None if content is None else content.uuid,
        label=None if content is None else content.label,
        version=None if content is None else content.version,
        content_bytes=None if content is None else content.size_bytes,
        mountpoints=tuple(map(path_text, facts.mounts)),
        swap=facts.is_swap,
        holders=device.holders,
        members=device.members,
        backing_path=device.backing_path,
        mapped_name=device.mapped_name,
        table=None if table is None else table.kind,
        table_id=None if table is None else table.id,
        partitions=()
        if table is None
        else tuple(
            PartitionRecord(
                number=one.number,
                start_bytes=one.start_bytes,
                size_bytes=one.size_bytes,
                type=one.type,
                uuid=one.uuid,
                name=one.name,
                bootable=one.is_bootable,
            )
            for one in table.partitions
        ),
        table_problems=facts.problems,
        hashes=None if look is None else look.digests or None,
        matches=() if look is None else _matches(look.places),
    )


def _matches(places: Sequence[Places]) -> Tuple[MatchRecord, ...]:
    return tuple(
        MatchRecord(
            pattern=one.pattern.text, count=len(one.offsets), offsets_bytes=tuple(one.offsets), cut=one.is_cut
        )
        for one in places
        if one.offsets
    )
