"""The block devices of a Linux endpoint, as the kernel lists them: nothing is opened but /sys and tables.

Sources: https://docs.kernel.org/admin-guide/abi-stable.html (stable/sysfs-block), proc(5) for mountinfo and
swaps. Sizes in /sys are in units of 512 bytes, whatever the device's sectors are.
"""

import os
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from agent.scan.mounts import unescape

_UNIT_BYTES = 512
# Major numbers of RAM disks and floppies (Documentation/admin-guide/devices.txt): reading one makes it exist.
_RAM_MAJOR, _FLOPPY_MAJOR = 1, 2
_LEAST_FIELDS = 5


class BlockDevice(NamedTuple):
    """One device or partition: what the kernel says of it.

    `name` is as below /dev; `number` is what stat gives as `st_rdev`. `holders` lie on it, `members` are what
    it lies on. Texts of the device's own, such as `model`, are what it says.
    """

    name: str
    number: int
    kind: str
    size_bytes: int
    sector_bytes: int
    is_read_only: bool
    is_removable: bool
    parent: Optional[str] = None
    partition: int = 0
    start_bytes: int = 0
    model: Optional[str] = None
    serial: Optional[str] = None
    holders: Tuple[str, ...] = ()
    members: Tuple[str, ...] = ()
    backing_path: Optional[str] = None
    mapped_name: Optional[str] = None


class Uses(NamedTuple):
    """What devices are used for, by their number: mount points, and which swap."""

    mounts: Dict[int, List[bytes]]
    swaps: Tuple[bytes, ...]


def list_devices(sys: str = "/sys") -> Iterator[BlockDevice]:
    """Yield the devices that have a size, by name; one that vanishes meanwhile is left out."""
    base = Path(sys) / "class/block"
    for entry in sorted(base.iterdir()) if base.is_dir() else ():
        try:
            device = _read_device(entry)
        except (OSError, ValueError):
            continue
        if device.size_bytes and os.major(device.number) not in (_RAM_MAJOR, _FLOPPY_MAJOR):
            yield device


def _read_device(entry: Path) -> BlockDevice:
    major, _, minor = _text(entry / "dev").partition(":")
    partition = _number(entry / "partition")
    # /sys/class/block/sda1 is a link to .../sda/sda1.
    whole = entry.resolve().parent if partition else entry
    name = _plain(entry.name)
    return BlockDevice(
        name=name,
        number=os.makedev(int(major), int(minor)),
        kind="partition" if partition else _kind(entry),
        size_bytes=int(_text(entry / "size")) * _UNIT_BYTES,
        sector_bytes=_number(whole / "queue/logical_block_size") or _UNIT_BYTES,
        is_read_only=_number(entry / "ro") != 0,
        is_removable=_number(whole / "removable") != 0,
        parent=_plain(whole.name) if partition else None,
        partition=partition,
        start_bytes=_number(entry / "start") * _UNIT_BYTES,
        model=_optional(whole / "device/model"),
        serial=_optional(whole / "device/serial"),
        holders=_names(entry / "holders"),
        members=_names(entry / "slaves"),
        backing_path=_optional(entry / "loop/backing_file"),
        mapped_name=_optional(entry / "dm/name"),
    )


def _kind(entry: Path) -> str:
    for part, kind in (("loop", "loop"), ("dm", "mapped"), ("md", "raid")):
        if (entry / part).is_dir():
            return kind
    # A loop device without a file has no such directory, and no size.
    return "disk"


def _plain(name: str) -> str:
    """Return the name below /dev: /sys writes a slash of it as an exclamation mark."""
    return os.fsencode(name.replace("!", "/")).decode("utf-8", "replace")


def _text(path: Path) -> str:
    return path.read_bytes()[:4096].decode("utf-8", "replace").strip()


def _optional(path: Path) -> Optional[str]:
    try:
        return _text(path) or None
    except OSError:
        return None


def _number(path: Path) -> int:
    try:
        return int(_text(path))
    except (OSError, ValueError):
        return 0


def _names(path: Path) -> Tuple[str, ...]:
    try:
        return tuple(sorted(_plain(one.name) for one in path.iterdir()))
    except OSError:
        return ()


def read_uses(proc: str = "/proc", dev: str = "/dev") -> Uses:
    """Return where devices are mounted for us, and which are swapped to.

    A file system of several devices (btrfs) has a number of its own: it is known by the device that was named
    when it was mounted.
    """
    mounts: Dict[int, List[bytes]] = {}
    for line in _lines(f"{proc}/self/mountinfo"):
        before, _, after = line.partition(b" - ")
        fields, source = before.split(), after.split()[1:2]
        if len(fields) < _LEAST_FIELDS:
            continue
        major, _, minor = fields[2].partition(b":")
        number = os.makedev(int(major), int(minor))
        if not os.major(number) and source and source[0].startswith(b"/"):
            number = _number_of(unescape(source[0]), dev) or number
        mounts.setdefault(number, []).append(unescape(fields[4]))
    swaps = [unescape(line.split()[0]) for line in _lines(f"{proc}/swaps")[1:] if line.split()]
    return Uses(mounts, tuple(swaps))


def _number_of(path: bytes, dev: str) -> Optional[int]:
    if not path.startswith(os.fsencode(dev) + b"/"):
        return None
    try:
        return os.stat(path).st_rdev  # noqa: PTH116  (a path of bytes)
    except OSError:
        return None


def _lines(path: str) -> List[bytes]:
    try:
        return Path(path).read_bytes().splitlines()
    except OSError:
        return []
