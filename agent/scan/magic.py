r"""What a file says it is by its first bytes, whatever its name.

A table of signatures at fixed places, and a few that need a look of their own. A file may be of several
types, or of none. The bytes are what the file claims: they are no proof that the rest is of that format.

Sources: the format's own document where there is one (named in the table), else the magic files of file(1),
https://github.com/file/file/tree/master/magic/Magdir.
"""

from typing import Callable, Dict, FrozenSet, Set, Tuple

# As far as any type looks: ECMA-119 has its first volume descriptor at sector 16.
HEAD_BYTES = 0x8000 + 8
# PDF 1.7, annex H, implementation note 13: readers find the header anywhere in the first 1024 bytes.
_PDF_BYTES = 1024
# RFC 7468, section 2: text may come before.
_PEM_BYTES = 4096

# Type -> signatures that stand at the given place; any of them is enough.
_SIGNATURES: Dict[str, Tuple[Tuple[int, bytes], ...]] = {
    "elf": ((0, b"\x7fELF"),),  # System V ABI, ELF header
    "macho": (
        *((0, magic) for magic in (b"\xfe\xed\xfa\xce", b"\xce\xfa\xed\xfe")),  # mach-o/loader.h
        *((0, magic) for magic in (b"\xfe\xed\xfa\xcf", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbf")),
    ),
    "wasm": ((0, b"\0asm"),),  # WebAssembly core specification, 5.5.16
    "dex": ((0, b"dex\n"),),  # Dalvik executable format
    "script": ((0, b"#!"),),  # execve(2)
    "gzip": ((0, b"\x1f\x8b"),),  # RFC 1952, 2.3.1
    "compress": ((0, b"\x1f\x9d"),),  # Magdir/compress
    "bzip2": tuple((0, b"BZh%d" % level) for level in range(1, 10)),  # Magdir/compress
    "xz": ((0, b"\xfd7zXZ\0"),),  # The .xz file format, 2.1.1.1
    "zstd": ((0, b"\x28\xb5\x2f\xfd"),),  # RFC 8878, 3.1.1
    "lz4": ((0, b"\x04\x22\x4d\x18"),),  # LZ4 frame format
    "zip": ((0, b"PK\3\4"), (0, b"PK\5\6"), (0, b"PK\7\x08")),  # APPNOTE 4.3: also jar, apk, docx, odt
    "7z": ((0, b"7z\xbc\xaf\x27\x1c"),),  # 7zFormat.txt
    "rar": ((0, b"Rar!\x1a\7"),),  # RAR 5.0 archive format
    "tar": ((257, b"ustar"),),  # POSIX pax, ustar interchange format
    "cpio": ((0, b"070701"), (0, b"070702"), (0, b"070707"), (0, b"\xc7\x71")),  # cpio(5)
    "ar": ((0, b"!<arch>\n"),),  # ar(5); also .deb and .a
    "rpm": ((0, b"\xed\xab\xee\xdb"),),  # RPM file format, lead
    "squashfs": ((0, b"hsqs"),),  # squashfs_fs.h
    "iso9660": ((0x8001, b"CD001"),),  # ECMA-119, 8.1.2
    "qcow2": ((0, b"QFI\xfb"),),  # QEMU, docs/interop/qcow2
    "luks": ((0, b"LUKS\xba\xbe"),),  # LUKS on-disk format
    "png": ((0, b"\x89PNG\r\n\x1a\n"),),  # PNG specification, 5.2
    "jpeg": ((0, b"\xff\xd8\xff"),),  # Magdir/jpeg
    "gif": ((0, b"GIF87a"), (0, b"GIF89a")),  # GIF89a specification, 17
    "rtf": ((0, b"{\\rtf"),),  # Magdir/rtf
    "ole2": ((0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),),  # MS-CFB 2.2; Office before 2007, msi
    "lnk": ((0, b"L\0\0\0\x01\x14\x02\0"),),  # MS-SHLLINK 2.1
    "regf": ((0, b"regf"),),  # Magdir/windows: registry hive
    "evtx": ((0, b"ElfFile\0"),),  # Magdir/windows: event log
    "journal": ((0, b"LPKSHHRH"),),  # systemd, JOURNAL_FILE_FORMAT
    "sqlite": ((0, b"SQLite format 3\0"),),  # SQLite database file format, 1.3
    "pcap": (  # pcap-savefile(5)
        *((0, magic) for magic in (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1")),
        *((0, magic) for magic in (b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1")),
    ),
    "pcapng": ((0, b"\n\r\r\n"),),  # IETF draft, section header block
}  # fmt: skip


# The MS-DOS stub's field e_lfanew tells where the PE signature is (PE format, 'Signature').
_PE_FIELD = slice(0x3C, 0x40)
# The number after 0xcafebabe is that of architectures in a universal binary, and a version in a Java class,
# whose first was 45: file(1) tells them apart by that (Magdir/cafebabe).
_CAFEBABE = b"\xca\xfe\xba\xbe"
_FIRST_JAVA = 45
_ARMOR = b"-----BEGIN"


def _is_pe(head: bytes) -> bool:
    place = int.from_bytes(head[_PE_FIELD], "little")
    return head.startswith(b"MZ") and len(head) >= _PE_FIELD.stop and head.startswith(b"PE\0\0", place)


def _is_universal(head: bytes) -> bool:
    return head.startswith(_CAFEBABE) and 0 < int.from_bytes(head[4:8], "big") < _FIRST_JAVA


def _is_java(head: bytes) -> bool:
    # Minor version, then major: of a universal binary the same two bytes are the number of architectures.
    return head.startswith(_CAFEBABE) and int.from_bytes(head[6:8], "big") >= _FIRST_JAVA


def _armors(head: bytes) -> Set[str]:
    """Return what lines begin with five dashes and BEGIN: of OpenPGP (RFC 9580, 6.2.1), or of RFC 7468."""
    head = head[:_PEM_BYTES]
    if _ARMOR not in head:
        return set()
    labels = [part[:4] for part in (b"\n" + head).split(b"\n" + _ARMOR + b" ")[1:]]
    return {"pgp" if label == b"PGP " else "pem" for label in labels}


_LOOKS: Dict[str, Callable[[bytes], bool]] = {
    "pe": _is_pe,
    "macho": _is_universal,
    "java": _is_java,
    "pdf": lambda head: b"%PDF-" in head[:_PDF_BYTES],
}

MAGIC_NAMES = tuple(sorted({*_SIGNATURES, *_LOOKS, "pem", "pgp"}))

_ALL = tuple((place, magic, name) for name, pairs in _SIGNATURES.items() for place, magic in pairs)
# Most signatures stand at the beginning, and most files begin otherwise.
_AT_START = {
    first: tuple((magic, name) for place, magic, name in _ALL if not place and magic[0] == first)
    for first in {magic[0] for _, magic, _ in _ALL}
}
_FURTHER_ON = tuple(one for one in _ALL if one[0])


def magic_of(head: bytes) -> FrozenSet[str]:
    """Return the types that a file's first bytes say, `HEAD_BYTES` of them or the whole file."""
    found = [name for magic, name in _AT_START.get(head[0] if head else -1, ()) if head.startswith(magic)]
    found += [name for place, magic, name in _FURTHER_ON if head.startswith(magic, place)]
    found += [name for name, is_it in _LOOKS.items() if is_it(head)]
    return frozenset(found) | _armors(head)
