"""Whether the files of a package are what its manifest says: what differs, by the names of what was compared.

The manifest lies on the same disk as the files: whoever changed the one may have changed the other. A file
that differs is a fact; one that does not is as good as the database.
"""

import hashlib
import os
import stat
from typing import Callable, List, Optional, Tuple

from agent.platform.packages import Expected
from agent.platform.rooted import Rooted
from agent.scan.accounts import Accounts
from agent.scan.roots import join

_TYPES = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "link": stat.S_IFLNK}
_PIECE = 1 << 20


class Verifier:
    """Compares files of one system with what they should be.

    Args:
        files: of that system.
        check: called between pieces of files; may raise.

    """

    def __init__(self, files: Rooted, check: Callable[[], None]) -> None:
        self._files = files
        self._check = check
        # Names are that system's own.
        passwd, group = (os.fsdecode(join(files.root, name)) for name in (b"etc/passwd", b"etc/group"))
        self._accounts = Accounts(passwd, group)
        self.bytes_read = 0
        self.unread = 0

    def differences(self, expected: Expected) -> Tuple[str, ...]:
        """Return what differs: missing, type, size, digest, mode, owner, group, target, mtime."""
        before = self._files.not_seen()
        status = self._files.status(expected.path)
        if status is None:
            if self._files.not_seen() > before:
                self.unread += 1
                return ()
            return () if expected.may_miss else ("missing",)
        kind = expected.kind
        if kind is not None and stat.S_IFMT(status.st_mode) != _TYPES[kind]:
            if not (kind == "file" and expected.digest and stat.S_ISLNK(status.st_mode)):
                return ("type",)
            # apk keeps the digest of what a link says in the place of a file's.
            return self._link_digest(expected)
        return tuple(self._compare(expected, status))

    def _compare(self, expected: Expected, status: os.stat_result) -> List[str]:
        found: List[str] = []
        if expected.size_bytes is not None and expected.size_bytes != status.st_size:
            found.append("size")
        if expected.digest is not None and ("size" in found or self._is_other(expected)):
            found.append("digest")
        if expected.mode is not None and expected.mode != stat.S_IMODE(status.st_mode):
            found.append("mode")
        for name, kind, text, number in (
            ("owner", "owner", expected.user, status.st_uid),
            ("group", "group", expected.group, status.st_gid),
        ):
            wanted = self._accounts.number(kind, text) if text is not None else None
            if wanted is not None and wanted != number:
                found.append(name)
        if expected.target is not None and self._files.link(expected.path) != expected.target:
            found.append("target")
        if expected.mtime_s is not None and expected.mtime_s != int(status.st_mtime):
            found.append("mtime")
        return found

    def _link_digest(self, expected: Expected) -> Tuple[str, ...]:
        target = self._files.link(expected.path)
        if target is not None and expected.algorithm == "sha1":
            is_same = hashlib.sha1(target, usedforsecurity=False).hexdigest() == expected.digest
            return () if is_same else ("target",)
        return ("type",)

    def _is_other(self, expected: Expected) -> bool:
        digest = self.digest(expected.path, expected.algorithm)
        if digest is None:
            self.unread += 1
            return False
        return digest != expected.digest

    def digest(self, path: bytes, algorithm: str) -> Optional[str]:
        """Return a file's digest in hexadecimal; None where it cannot be read, which the files count."""
        descriptor = self._files.open(path)
        if descriptor is None:
            return None
        state = hashlib.new(algorithm, usedforsecurity=False)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            while True:
                self._check()
                try:
                    piece = file.read(_PIECE)
                except OSError as error:
                    self._files.lose(path, error.strerror or str(error))
                    return None
                if not piece:
                    return state.hexdigest()
                self.bytes_read += len(piece)
                state.update(piece)
