"""What lies on a block device, told by its superblock: kind of file system or container, UUID, label, size.

Only what stands at fixed places is read, and each number is bounded by the bytes that were read. Of several
signatures the first that holds is told; what an older file system left behind may hold as well, as for any
other tool. Labels are the text of whoever made the file system.

Sources: the formats as documented: docs.kernel.org/filesystems/ext4, XFS Algorithms & Data Structures,
btrfs.readthedocs.io On-disk format, Microsoft's FAT specification, LUKS1 and LUKS2 On-Disk Format, md(4),
ECMA-119, docs.kernel.org/filesystems/squashfs; swap, LVM, f2fs and erofs: the headers of their own tools.
"""

import struct
import uuid
from typing import Callable, NamedTuple, Optional, Tuple

Read = Callable[[int, int], bytes]
_EXT, _BTRFS, _ISO = 1024, 64 << 10, 32 << 10
_PAGES = (4096, 8192, 16384, 65536)
_MD_MAGIC = struct.pack("<I", 0xA92B4EFC)


class Content(NamedTuple):
    """What a device holds: its kind as blkid(8) names it."""

    kind: str
    uuid: Optional[str] = None
    label: Optional[str] = None
    size_bytes: Optional[int] = None
    version: Optional[str] = None


def read_content(read: Read, size_bytes: int) -> Optional[Content]:
    """Return what a device holds; None where nothing that is known.

    `read` gives bytes at an offset, fewer where there are not as many.
    """
    head = read(0, 4096).ljust(4096, b"\0")
    for tell in (_luks, _lvm, _raid_first, _xfs, _squashfs, _ntfs, _exfat):
        found = tell(head)
        if found is not None:
            return found
    superblock = read(_EXT, 1024).ljust(1024, b"\0")
    for tell in (_ext, _f2fs, _erofs):
        found = tell(superblock)
        if found is not None:
            return found
    found = _vfat(head) or _btrfs(read(_BTRFS, 4096).ljust(4096, b"\0")) or _swap(read)
    return found or _iso(read(_ISO, 2048).ljust(2048, b"\0")) or _raid_last(read, size_bytes)


def _text(data: bytes, encoding: str = "utf-8") -> Optional[str]:
    text = data.decode(encoding, "replace").partition("\0")[0].rstrip(" ")
    return text or None


def _uuid(data: bytes) -> Optional[str]:
    return str(uuid.UUID(bytes=data)) if any(data) else None


def _ext(block: bytes) -> Optional[Content]:
    if block[56:58] != b"\x53\xef":
        return None
    blocks, size_log = struct.unpack_from("<I", block, 4)[0], struct.unpack_from("<I", block, 24)[0]
    compatible, incompatible, read_only = struct.unpack_from("<III", block, 92)
    if incompatible & 0x8:
        kind = "jbd"
    elif incompatible & ~0x16 or read_only & ~0x7:
        # Extents, 64 bits, flexible groups and what else ext3 does not know.
        kind = "ext4"
    else:
        kind = "ext3" if compatible & 0x4 else "ext2"
    if incompatible & 0x80:
        blocks |= struct.unpack_from("<I", block, 0x150)[0] << 32
    size = blocks << (10 + size_log) if size_log <= 6 else None  # noqa: PLR2004  (64 KiB at most)
    return Content(kind, _uuid(block[104:120]), _text(block[120:136]), size)


def _xfs(block: bytes) -> Optional[Content]:
    if not block.startswith(b"XFSB"):
        return None
    block_bytes, blocks = struct.unpack_from(">IQ", block, 4)
    return Content("xfs", _uuid(block[32:48]), _text(block[108:120]), block_bytes * blocks)


def _btrfs(block: bytes) -> Optional[Content]:
    if block[64:72] != b"_BHRfS_M":
        return None
    size = struct.unpack_from("<Q", block, 0x70)[0]
    return Content("btrfs", _uuid(block[32:48]), _text(block[0x12B:0x22B]), size)


def _vfat(block: bytes) -> Optional[Content]:
    if block[510:512] != b"\x55\xaa":
        return None
    for at, version in ((82, "FAT32"), (54, "FAT16"), (54, "FAT12")):
        if block[at : at + 8] == version.ljust(8).encode():
            serial = struct.unpack_from("<I", block, at - 15)[0]
            label = _text(block[at - 11 : at], "cp850")
            sector = struct.unpack_from("<H", block, 11)[0]
            sectors = struct.unpack_from("<H", block, 19)[0] or struct.unpack_from("<I", block, 32)[0]
            named = None if label == "NO NAME" else label
            return Content(
                "vfat", f"{serial >> 16:04X}-{serial & 0xFFFF:04X}", named, sector * sectors, version
            )
    return None


def _ntfs(block: bytes) -> Optional[Content]:
    if block[3:11] == b"-FVE-FS-":
        return Content("BitLocker")
    if block[3:11] != b"NTFS    ":
        return None
    sector, sectors = struct.unpack_from("<H", block, 11)[0], struct.unpack_from("<Q", block, 40)[0]
    serial = struct.unpack_from("<Q", block, 72)[0]
    return Content("ntfs", f"{serial:016X}", None, sector * sectors)


def _exfat(block: bytes) -> Optional[Content]:
    if block[3:11] != b"EXFAT   ":
        return None
    serial = struct.unpack_from("<I", block, 100)[0]
    sectors, shift = struct.unpack_from("<Q", block, 72)[0], block[108]
    size = sectors << shift if shift <= 12 else None  # noqa: PLR2004  (sectors of 4 KiB at most)
    return Content("exfat", f"{serial >> 16:04X}-{serial & 0xFFFF:04X}", None, size)


def _swap(read: Read) -> Optional[Content]:
    for page in _PAGES:
        if read(page - 10, 10) not in (b"SWAPSPACE2", b"SWAP-SPACE"):
            continue
        block = read(1024, 64).ljust(64, b"\0")
        last_page = struct.unpack_from("<I", block, 4)[0]
        return Content("swap", _uuid(block[12:28]), _text(block[28:44]), (last_page + 1) * page)
    return None


def _luks(block: bytes) -> Optional[Content]:
    if not block.startswith(b"LUKS\xba\xbe"):
        return None
    version = struct.unpack_from(">H", block, 6)[0]
    label = _text(block[24:72]) if version == 2 else None  # noqa: PLR2004  (LUKS2 has one)
    return Content("crypto_LUKS", _text(block[168:208]), label, version=str(version))


def _lvm(block: bytes) -> Optional[Content]:
    for at in range(0, 2048, 512):
        if block[at : at + 8] == b"LABELONE" and block[at + 24 : at + 32] == b"LVM2 001":
            start = at + struct.unpack_from("<I", block, at + 20)[0]
            plain = _text(block[start : start + 32], "latin-1") or ""
            cuts = (0, 6, 10, 14, 18, 22, 26, 32)
            own = "-".join(plain[cuts[part] : cuts[part + 1]] for part in range(7))
            size = int.from_bytes(block[start + 32 : start + 40], "little")
            return Content("LVM2_member", own, None, size)
    return None


def _raid(block: bytes) -> Optional[Content]:
    if not block.startswith(_MD_MAGIC) or len(block) < 256:  # noqa: PLR2004  (what such a block has)
        return None
    major = struct.unpack_from("<I", block, 4)[0]
    if major == 1:
        return Content("linux_raid_member", _uuid(block[16:32]), _text(block[32:64]), version="1")
    # The words of version 0.90 are the processor's own: little-endian on what we run on.
    parts = struct.unpack_from("<I", block, 20) + struct.unpack_from("<III", block, 52)
    return Content("linux_raid_member", _uuid(struct.pack("<4I", *parts)), version="0.90")


def _raid_first(block: bytes) -> Optional[Content]:
    return _raid(block)


def _raid_last(read: Read, size_bytes: int) -> Optional[Content]:
    old = (size_bytes & ~0xFFFF) - 0x10000
    new = (size_bytes - 8192) & ~4095
    for at in (4096, new, old):
        found = _raid(read(at, 256)) if at > 0 else None
        if found is not None:
            return found
    return None


def _squashfs(block: bytes) -> Optional[Content]:
    if not block.startswith(b"hsqs"):
        return None
    major, minor = struct.unpack_from("<HH", block, 28)
    return Content("squashfs", None, None, struct.unpack_from("<Q", block, 40)[0], f"{major}.{minor}")


def _f2fs(block: bytes) -> Optional[Content]:
    if block[:4] != b"\x10\x20\xf5\xf2":
        return None
    return Content("f2fs", _uuid(block[108:124]), _text(block[124:636], "utf-16-le"))


def _erofs(block: bytes) -> Optional[Content]:
    if block[:4] != b"\xe2\xe1\xf5\xe0":
        return None
    return Content("erofs", _uuid(block[48:64]), _text(block[64:80]))


def _iso(block: bytes) -> Optional[Content]:
    if block[1:6] != b"CD001":
        return None
    made = _text(block[813:829], "ascii") or ""
    own = _iso_uuid(made) if made.isdigit() and any(made.strip("0")) else None
    sectors, sector = struct.unpack_from("<I", block, 80)[0], struct.unpack_from("<H", block, 128)[0]
    return Content("iso9660", own, _text(block[40:72]), sectors * sector)


def _iso_uuid(made: str) -> str:
    cuts: Tuple[int, ...] = (0, 4, 6, 8, 10, 12, 14, 16)
    return "-".join(made[cuts[part] : cuts[part + 1]] for part in range(7))
