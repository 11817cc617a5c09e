"""Packages that Alpine's apk installed, and what their files should be.

Source: apk-tools, the format of the installed database as the Alpine wiki's page "Apk spec" tells it: one
letter and a colon on each line, an empty line behind each package; `F:` a directory, `M:` its owner and mode,
`R:` a file in it, `a:` its owner and mode, `Z:` `Q1` and the SHA-1 in base64 (of a link: of what it says).
"""

import base64
import binascii
from typing import Dict, Iterator, List, Optional, Tuple

from agent.platform.packages import Expected, Package, field_text, number
from agent.platform.rooted import Rooted

DATABASES = (b"/usr/lib/apk/db/installed", b"/lib/apk/db/installed")
_DIGESTS = {b"Q1": "sha1", b"Q2": "sha256"}


class ApkDatabase:
    """The installed packages of one system; read when first asked for."""

    def __init__(self, files: Rooted) -> None:
        self._files = files
        self._read: Optional[Dict[bytes, List[bytes]]] = None

    def packages(self) -> Iterator[Package]:
        """Yield the packages."""
        for name, lines in self._blocks().items():
            fields = _fields(lines)
            if fields.get(b"V"):
                yield Package(
                    type="apk",
                    name=field_text(name),
                    version=field_text(fields[b"V"]),
                    arch=field_text(fields[b"A"]) if b"A" in fields else None,
                    source=field_text(fields[b"o"]) if fields.get(b"o") else None,
                    size_bytes=number(fields.get(b"I")),
                    key=name,
                )

    def owned(self) -> Iterator[Tuple[str, bytes]]:
        """Yield each file and directory with the name of its package."""
        for name, lines in self._blocks().items():
            package = field_text(name)
            for entry in _expected(lines):
                yield package, entry.path

    def expected(self, package: Package) -> Optional[Iterator[Expected]]:
        """Return what should be there of a package; None where it is not known."""
        lines = self._blocks().get(package.key)
        return _expected(lines) if lines is not None else None

    def _blocks(self) -> Dict[bytes, List[bytes]]:
        if self._read is None:
            self._read = {}
            # The newer place first; on a merged system both are one file.
            for database in DATABASES:
                for block in (self._files.read(database) or b"").split(b"\n\n"):
                    lines = block.split(b"\n")
                    name = _fields(lines).get(b"P")
                    if name:
                        self._read.setdefault(name, lines)
        return self._read


def _fields(lines: List[bytes]) -> Dict[bytes, bytes]:
    """Return what is said of the package itself: the lines before its first directory."""
    fields: Dict[bytes, bytes] = {}
    for line in lines:
        if line.startswith(b"F:"):
            break
        name, colon, value = line.partition(b":")
        if colon:
            fields.setdefault(name, value)
    return fields


def _expected(lines: List[bytes]) -> Iterator[Expected]:
    directory = b""
    entry: Optional[Expected] = None
    for line in lines:
        letter, _, value = line.partition(b":")
        if letter in (b"F", b"R") and entry is not None:
            yield entry
            entry = None
        if letter == b"F":
            directory = value
            if directory:
                entry = Expected(b"/" + directory, "directory", mode=0o755, user="0", group="0")
        elif letter == b"R":
            path = b"/" + (directory + b"/" if directory else b"") + value
            entry = Expected(path, "file", mode=0o644, user="0", group="0")
        elif letter in (b"M", b"a") and entry is not None:
            entry = _with_owner(entry, value)
        elif letter == b"Z" and entry is not None:
            entry = _with_digest(entry, value)
    if entry is not None:
        yield entry


def _with_owner(entry: Expected, value: bytes) -> Expected:
    # "uid:gid:mode", and behind it perhaps a digest of extended attributes.
    words = value.split(b":")
    try:
        uid, gid, mode = int(words[0]), int(words[1]), int(words[2], 8)
    except (ValueError, IndexError):
        return entry
    return entry._replace(user=str(uid), group=str(gid), mode=mode & 0o7777)


def _with_digest(entry: Expected, value: bytes) -> Expected:
    algorithm = _DIGESTS.get(value[:2])
    try:
        digest = base64.b64decode(value[2:], validate=True).hex()
    except (binascii.Error, ValueError):
        return entry
    return entry._replace(algorithm=algorithm, digest=digest) if algorithm else entry
