r"""How facts of a file are written: paths, modes and times as text that any tool can take.

Sources: mode letters as Go's `FileMode.String()` writes them, since investigators know those; RFC 3339 times.
"""

import base64
import stat
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Optional, Tuple

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SECONDS = tuple(f"{number:02}" for number in range(60))
_MINUTES = tuple(f"{hour:02}:{minute}:" for hour in range(24) for minute in _SECONDS)
_TYPE_LETTERS = (
    (stat.S_ISDIR, "d"),
    (stat.S_ISLNK, "L"),
    (stat.S_ISBLK, "D"),
    (stat.S_ISFIFO, "p"),
    (stat.S_ISSOCK, "S"),
)
_PERMISSIONS = tuple(
    "".join(letter if bits >> (8 - at) & 1 else "-" for at, letter in enumerate("rwxrwxrwx"))
    for bits in range(512)
)


def path_text(path: bytes) -> str:
    r"""Return a path as text: itself where it is UTF-8, else escaped so that no two paths look alike.

    In an escaped text a byte that is not UTF-8 is `\xff` and a backslash of the name is doubled;
    `path_base64` tells that a text is escaped and gives the bytes.
    """
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def path_texts(path: bytes) -> Tuple[str, Optional[str]]:
    """Return a path as text, and what `path_base64` says of it; a hundred thousand are asked for."""
    try:
        return path.decode("utf-8"), None
    except UnicodeDecodeError:
        return path_text(path), path_base64(path)


def path_base64(path: bytes) -> Optional[str]:
    """Return the bytes of a path that is not UTF-8, in base64; None where the text says it all."""
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(path).decode("ascii")
    return None


@lru_cache(maxsize=1024)
def mode_text(mode: int) -> str:
    """Return a mode in letters: type and special bits, or one `-`, then the permissions (`urwxr-xr-x`)."""
    letters = "".join(letter for is_type, letter in _TYPE_LETTERS if is_type(mode))
    if stat.S_ISCHR(mode):
        letters += "D"
    if mode & stat.S_ISUID:
        letters += "u"
    if mode & stat.S_ISGID:
        letters += "g"
    if stat.S_ISCHR(mode):
        letters += "c"
    if mode & stat.S_ISVTX:
        letters += "t"
    return (letters or "-") + _PERMISSIONS[mode & 0o777]


def time_text(time_ns: int) -> str:
    """Return nanoseconds since 1970 as an RFC 3339 time in UTC, to the microsecond.

    A file system can hold times that RFC 3339 cannot (before year 1, after 9999): those are given as `@` and
    the seconds since 1970, as date(1) reads them.
    """
    seconds, fraction_ns = divmod(time_ns, 1_000_000_000)
    days, second = divmod(seconds, 86400)
    day = _day_text(days)
    if day is None:
        return f"@{seconds}"
    microseconds = fraction_ns // 1000
    if not microseconds:
        return f"{day}{_MINUTES[second // 60]}{_SECONDS[second % 60]}Z"
    # Its digits with the zeros in front, which a format takes three times as long for.
    return f"{day}{_MINUTES[second // 60]}{_SECONDS[second % 60]}.{str(1_000_000 + microseconds)[1:]}Z"


@lru_cache(maxsize=4096)
def _day_text(days: int) -> Optional[str]:
    """Return a day, with the `T` behind; None where there is no such year.

    A datetime for each file takes longer than all else that is said of it.
    """
    try:
        return f"{(_EPOCH + timedelta(days=days)).date().isoformat()}T"
    except OverflowError:
        return None
