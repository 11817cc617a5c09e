"""In which files sshd looks for the keys that let people in, and how many keys stand there.

Only what holds for everybody in sshd_config is followed: what `Match` narrows is not. Where the configuration
says nothing, sshd's own default holds.

Source: sshd_config(5), AuthorizedKeysFile and Include; sshd(8), AUTHORIZED_KEYS FILE FORMAT.
"""

import socket
from typing import Iterator, List, Optional, Tuple

from agent.platform.accounts_local import Account
from agent.platform.rooted import Rooted
from agent.scan.roots import join

CONFIGURATION = b"/etc/ssh/sshd_config"
_DEFAULT = (b".ssh/authorized_keys", b".ssh/authorized_keys2")
_MOST_BYTES = 4 << 20
_MOST_DEPTH = 16
_MOST_FILES = 256


class AuthorizedKeys:
    """The files of keys of one system's accounts."""

    def __init__(self, files: Rooted) -> None:
        self._files = files
        self._read = 0
        configured = self._configured(CONFIGURATION, 0)
        self.patterns = _DEFAULT if configured is None else configured

    def paths(self, account: Account) -> List[bytes]:
        """Return the files in which keys of an account may stand."""
        found = []
        for pattern in self.patterns:
            path = _expand(pattern, account)
            found.append(path if path.startswith(b"/") else join(account.home or b"/", path))
        return [path for path in dict.fromkeys(found) if path.startswith(b"/")]

    def count(self, account: Account) -> Optional[int]:
        """Return how many keys let an account in; None where none of its files could be read."""
        total, trouble = 0, self._files.not_seen()
        for path in self.paths(account):
            lines = (self._files.read(path, _MOST_BYTES) or b"").split(b"\n")
            total += sum(1 for line in lines if line.strip() and not line.lstrip().startswith(b"#"))
        return total if total or self._files.not_seen() == trouble else None

    def _configured(self, path: bytes, depth: int) -> Optional[Tuple[bytes, ...]]:
        """Return the first AuthorizedKeysFile that holds for everybody: sshd takes the first of a keyword."""
        self._read += 1
        if self._read > _MOST_FILES:
            self._files.lose(path, "not read: includes are too many")
            return None
        for keyword, words in _keywords(self._files.read(path, _MOST_BYTES) or b""):
            if keyword == b"match":
                return None
            if keyword == b"authorizedkeysfile" and words:
                return () if words == [b"none"] else tuple(words)
            if keyword == b"include" and depth < _MOST_DEPTH:
                for pattern in words:
                    whole = pattern if pattern.startswith(b"/") else b"/etc/ssh/" + pattern
                    for included in self._files.expand(whole):
                        found = self._configured(included, depth + 1)
                        if found is not None:
                            return found
        return None


def _keywords(data: bytes) -> Iterator[Tuple[bytes, List[bytes]]]:
    for line in data.split(b"\n"):
        words = line.split(b"#")[0].replace(b"=", b" ", 1).split()
        if words:
            yield words[0].lower(), [word.strip(b'"') for word in words[1:]]


def _expand(pattern: bytes, account: Account) -> bytes:
    """Put in what sshd puts in the place of %h, %u, %U and %%."""
    parts = pattern.split(b"%%")
    for token, value in ((b"%h", account.home), (b"%u", account.name), (b"%U", b"%d" % account.uid)):
        parts = [part.replace(token, value) for part in parts]
    return b"%".join(parts)


def hostname_of(files: Rooted) -> str:
    """Return what a system is called: this one by its kernel, another one by its /etc/hostname."""
    if files.root == b"/":
        return socket.gethostname()
    return (files.read(b"/etc/hostname", 4096) or b"").strip().decode("utf-8", "replace")
