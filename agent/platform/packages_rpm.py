"""Packages that rpm installed, and what their files should be, from its database in any of its three formats.

Source: rpm's documentation, "RPM v4 package file format" (headers) and lib/rpmtag.h (numbers of tags).
"""

import struct
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union

from agent.platform.packages import Expected, Package, field_text
from agent.platform.rooted import Rooted
from agent.platform.rpm_stores import read_headers

_COUNTS = struct.Struct(">II")
_INDEX = struct.Struct(">IIiI")
_MOST_ENTRIES = 1 << 16
_NUMBERS = {2: ("B", 1), 3: ("H", 2), 4: ("I", 4), 5: ("Q", 8)}
_STRING, _BINARY, _STRINGS, _INTERNATIONAL = 6, 7, 8, 9

NAME, VERSION, RELEASE, EPOCH, SIZE = 1000, 1001, 1002, 1003, 1009
INSTALLED, ARCH, SOURCE = 1008, 1022, 1044
_FILE_SIZES, _FILE_STATES, _FILE_MODES, _FILE_MTIMES = 1028, 1029, 1030, 1034
_FILE_DIGESTS, _FILE_LINKS, _FILE_FLAGS, _FILE_USERS, _FILE_GROUPS = 1035, 1036, 1037, 1039, 1040
_FILE_VERIFY, _DIRECTORY_OF, _BASE_NAMES, _DIRECTORIES = 1045, 1116, 1117, 1118
_LONG_SIZES, _LONG_SIZE, _DIGEST_ALGORITHM = 5008, 5009, 5011
_WANTED = frozenset(
    (
        NAME, VERSION, RELEASE, EPOCH, SIZE, INSTALLED, ARCH, SOURCE, _FILE_SIZES, _FILE_STATES, _FILE_MODES,
        _FILE_MTIMES, _FILE_DIGESTS, _FILE_LINKS, _FILE_FLAGS, _FILE_USERS, _FILE_GROUPS, _FILE_VERIFY,
        _DIRECTORY_OF, _BASE_NAMES, _DIRECTORIES, _LONG_SIZES, _LONG_SIZE, _DIGEST_ALGORITHM,
    )
)  # fmt: skip
_BRIEF = frozenset((NAME, VERSION, RELEASE, EPOCH, SIZE, _LONG_SIZE, INSTALLED, ARCH, SOURCE))
# Those of OpenPGP, RFC 9580, 9.5; a database without one has MD5.
_ALGORITHMS = {1: "md5", 2: "sha1", 8: "sha256", 9: "sha384", 10: "sha512", 11: "sha224"}
# lib/rpmfi.h and rpmvf.h: what a file is, and what of it is to be verified.
_IS_CONFIG, _MAY_MISS, _IS_GHOST = 1 << 0, 1 << 3, 1 << 6
_OF_DIGEST, _OF_SIZE, _OF_LINK, _OF_USER, _OF_GROUP, _OF_MTIME, _OF_MODE = (1 << bit for bit in range(7))
_ALL = (1 << 32) - 1
_TYPE_BITS, _DIRECTORY, _LINK, _FILE = 0o170000, 0o040000, 0o120000, 0o100000
_KINDS = {_DIRECTORY: "directory", _LINK: "link", _FILE: "file"}

Header = Dict[int, List[Any]]


def parse_header(blob: bytes, wanted: "frozenset[int]" = _WANTED) -> Header:
    """Return the wanted tags of a header as the database holds it, each a list of numbers or bytes.

    Raises:
        ValueError: it is none.

    """
    if len(blob) < _COUNTS.size:
        raise ValueError("a header is too short")
    entries, size = _COUNTS.unpack_from(blob)
    start = _COUNTS.size + entries * _INDEX.size
    if entries > _MOST_ENTRIES or start + size > len(blob):
        raise ValueError("a header says more than it holds")
    header: Header = {}
    for at in range(_COUNTS.size, start, _INDEX.size):
        tag, kind, offset, count = _INDEX.unpack_from(blob, at)
        if tag in wanted and 0 <= offset < size and count <= size:
            header[tag] = _values(blob, kind, start + offset, start + size, count)
    return header


def _values(blob: bytes, kind: int, at: int, end: int, count: int) -> List[Any]:
    if kind in _NUMBERS:
        code, width = _NUMBERS[kind]
        if at + count * width > end:
            raise ValueError("a header's numbers leave it")
        return list(struct.unpack_from(f">{count}{code}", blob, at))
    if kind == _STRING:
        count = 1
    elif kind not in (_STRINGS, _INTERNATIONAL):
        return []
    # As many texts, each ended by a NUL; the rest of the header is not split.
    texts = blob[at:end].split(b"\0", count)[:count]
    if len(texts) < count:
        raise ValueError("a header's texts leave it")
    return texts


class RpmDatabase:
    """The installed packages of one system.

    A package's manifest is had while `packages` stands at it: it is in the same header.
    """

    def __init__(self, files: Rooted, check: Callable[[], None] = lambda: None) -> None:
        self._files = files
        self._check = check
        self._current: Tuple[bytes, bytes] = (b"", b"")

    def packages(self) -> Iterator[Package]:
        """Yield the packages; headers that are none are counted as errors."""
        for number, blob in enumerate(read_headers(self._files, self._check)):
            header = self._parse(blob, _BRIEF)
            if header is None or not header.get(NAME) or not header.get(VERSION):
                continue
            # Keys that people imported are kept as packages that have no files.
            key = b"%d" % number
            self._current = (key, blob)
            yield _package(header, key)

    def owned(self) -> Iterator[Tuple[str, bytes]]:
        """Yield each file and directory with the name of its package."""
        wanted = frozenset((NAME, _DIRECTORY_OF, _BASE_NAMES, _DIRECTORIES))
        for blob in read_headers(self._files, self._check):
            header = self._parse(blob, wanted)
            if header is not None and header.get(NAME):
                name = field_text(header[NAME][0])
                for path in _paths(header):
                    yield name, path

    def expected(self, package: Package) -> Optional[Iterator[Expected]]:
        """Return what should be there of the package at which `packages` stands."""
        key, blob = self._current
        header = self._parse(blob, _WANTED) if key == package.key else None
        return _expected(header) if header is not None else None

    def _parse(self, blob: bytes, wanted: "frozenset[int]") -> Optional[Header]:
        try:
            return parse_header(blob, wanted)
        except ValueError as error:
            self._files.lose(b"rpm's database", str(error))
            return None


def _package(header: Header, key: bytes) -> Package:
    version = field_text(header[VERSION][0])
    if header.get(RELEASE):
        version += "-" + field_text(header[RELEASE][0])
    if header.get(EPOCH):
        version = f"{header[EPOCH][0]}:{version}"
    size = header.get(_LONG_SIZE) or header.get(SIZE)
    return Package(
        type="rpm",
        name=field_text(header[NAME][0]),
        version=version,
        arch=field_text(header[ARCH][0]) if header.get(ARCH) else None,
        source=_source_name(header[SOURCE][0]) if header.get(SOURCE) else None,
        installed_s=header[INSTALLED][0] if header.get(INSTALLED) else None,
        size_bytes=size[0] if size else None,
        key=key,
    )


def _source_name(file: bytes) -> Optional[str]:
    """Return NAME of `NAME-VERSION-RELEASE.src.rpm`."""
    name = file.rsplit(b"-", 2)[0]
    return field_text(name) or None


def _paths(header: Header) -> Iterator[bytes]:
    directories = header.get(_DIRECTORIES, [])
    for name, number in zip(header.get(_BASE_NAMES, []), header.get(_DIRECTORY_OF, [])):
        if number < len(directories):
            yield directories[number] + name


def _expected(header: Header) -> Iterator[Expected]:
    algorithm = _ALGORITHMS.get((header.get(_DIGEST_ALGORITHM) or [1])[0], "")

    def of(tag: int, at: int, otherwise: Any = None) -> Any:
        values = header.get(tag) or ()
        return values[at] if at < len(values) else otherwise

    for at, path in enumerate(_paths(header)):
        if of(_FILE_STATES, at, 0) != 0:
            # Replaced by another package's, not installed, or of the other colour: not this one's to judge.
            continue
        flags, verify, mode = of(_FILE_FLAGS, at, 0), of(_FILE_VERIFY, at, _ALL), of(_FILE_MODES, at)
        kind = _KINDS.get(mode & _TYPE_BITS) if mode is not None else None
        if flags & _IS_GHOST:
            verify &= ~(_OF_DIGEST | _OF_SIZE | _OF_MTIME | _OF_LINK)
        is_file, is_link = kind == "file", kind == "link"
        user, group = of(_FILE_USERS, at), of(_FILE_GROUPS, at)
        digest = of(_FILE_DIGESTS, at, b"") if is_file and verify & _OF_DIGEST and algorithm else b""
        yield Expected(
            path=path,
            kind=kind,
            algorithm=algorithm,
            digest=_text(digest),
            size_bytes=of(_LONG_SIZES, at, of(_FILE_SIZES, at)) if is_file and verify & _OF_SIZE else None,
            mode=mode & 0o7777 if mode is not None and verify & _OF_MODE and not is_link else None,
            user=_text(user) if verify & _OF_USER else None,
            group=_text(group) if verify & _OF_GROUP else None,
            target=of(_FILE_LINKS, at) if is_link and verify & _OF_LINK else None,
            mtime_s=of(_FILE_MTIMES, at) if is_file and verify & _OF_MTIME else None,
            is_config=bool(flags & _IS_CONFIG),
            may_miss=bool(flags & (_MAY_MISS | _IS_GHOST)),
        )


def _text(value: Union[bytes, None]) -> Optional[str]:
    return field_text(value) if value else None
