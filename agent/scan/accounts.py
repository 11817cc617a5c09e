"""Numbers of owners and groups by the names that this endpoint's own files give them.

/etc/passwd and /etc/group are read as they are (passwd(5), group(5)). The name service (getpwnam(3)) is not
asked: it may ask a directory server over the network, which a machine under investigation should not do for
us, and which can hang. Accounts that only a directory service knows are asked for by number.
"""

from typing import Dict, Optional

# A file with a hundred thousand accounts takes some 8 MB.
_MAX_BYTES = 32 << 20


class Accounts:
    """The accounts of this endpoint; each file is read when a name is first asked for."""

    def __init__(self, passwd: str = "/etc/passwd", group: str = "/etc/group") -> None:  # noqa: S107  (no password)
        self._sources = {"owner": passwd, "group": group}
        self._numbers: Dict[str, Dict[str, int]] = {}

    def source(self, kind: str) -> str:
        """Return the file that names `owner` or `group`."""
        return self._sources[kind]

    def number(self, kind: str, name: str) -> Optional[int]:
        """Return the number of an `owner` or `group`, written by name or as a number; None where unknown."""
        if name.isascii() and name.isdigit():
            return int(name)
        if kind not in self._numbers:
            self._numbers[kind] = _read(self._sources[kind])
        return self._numbers[kind].get(name)


def _read(path: str) -> Dict[str, int]:
    numbers: Dict[str, int] = {}
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (one line of stdlib, no Path in the core)
            lines = file.read(_MAX_BYTES).split(b"\n")
    except OSError:
        # A system without the file knows no names, and each that is asked for is said to be unknown.
        return numbers
    for line in lines:
        name, _, rest = line.partition(b":")
        number = rest.partition(b":")[2].partition(b":")[0]
        if number.isdigit():
            # Of a name that stands twice the first counts, as for the C library.
            numbers.setdefault(name.decode("utf-8", "surrogateescape"), int(number))
    return numbers
