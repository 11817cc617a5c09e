"""Names of users by their numbers, as this endpoint's own /etc/passwd has them (passwd(5)).

No directory service is asked, as nowhere here (`agent.scan.accounts` says why).
"""

from typing import Dict, Optional

# A file with a hundred thousand accounts takes some 8 MB.
_MAX_BYTES = 32 << 20
_FIELDS = 3


class UserNames:
    """The names, read when the first is asked for."""

    def __init__(self, passwd: str = "/etc/passwd") -> None:  # noqa: S107  (no password)
        self._source = passwd
        self._names: Optional[Dict[int, str]] = None

    def name(self, uid: int) -> Optional[str]:
        """Return the name of a user; None where the file does not have it. Of several the first counts."""
        if self._names is None:
            self._names = _read(self._source)
        return self._names.get(uid)


def _read(path: str) -> Dict[int, str]:
    names: Dict[int, str] = {}
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (one line of stdlib)
            lines = file.read(_MAX_BYTES).split(b"\n")
    except OSError:
        # A system without the file knows no names.
        return names
    for line in lines:
        fields = line.split(b":", _FIELDS)
        if len(fields) > _FIELDS and fields[2].isdigit():
            names.setdefault(int(fields[2]), fields[0].decode("utf-8", "replace"))
    return names
