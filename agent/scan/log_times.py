r"""When a line of a log was written, told by the time stamp that it begins with, or holds.

Rules:

* What is known: ISO 8601 and RFC 3339 (also with `/`, a comma before the fraction, and after the priority of
  RFC 5424), RFC 3164 (syslog), the C library's (`Wed Oct 11 14:32:52 2000`), the common log format of Apache
  and nginx, seconds or milliseconds since 1970 at the line's beginning, the kernel's audit, and JSON lines
  with a member `time`, `timestamp`, `@timestamp`, `ts` or `date`.
* A time without a zone is one of this endpoint's zone.
* RFC 3164 has no year. Lines come in order, so that one more than two months earlier than what stood before
  is of the next year; the last one was written no later than the file was changed.
* What a line says of its time is what its writer says: nothing here is proven.

The expressions here are fixed, anchored where they can be, and match each byte once: lines are hostile text.
"""

import calendar
import re
import time
from typing import Callable, Dict, Match, NamedTuple, Optional, Tuple, Union

_SECOND_NS = 1_000_000_000
_DAY_S = 86_400
# A stamp so much earlier than the one before it is of the next year; one so much later, of the year before.
_NEXT_YEAR_S, _LAST_YEAR_S = 60 * _DAY_S, 360 * _DAY_S
_MONTHS = {name: at for at, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
# So much of a line is looked at for its time.
_HEAD_BYTES = 1024
_CLOCK = rb"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9]|60)"
_PRIORITY = rb"(?:<[0-9]{1,3}>)?"
_ISO = re.compile(
    rb"[\[(\"']?(?:<[0-9]{1,3}>1 )?([0-9]{4})[-/]([0-9]{2})[-/]([0-9]{2})[T _]"
    + _CLOCK
    + rb"(?:[.,]([0-9]{1,9}))?[0-9]{0,9} ?(Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2})?"
)
_SYSLOG = re.compile(_PRIORITY + rb"([A-Z][a-z]{2}) {1,2}([0-9]{1,2}) (?:([0-9]{4}) )?" + _CLOCK)
_CTIME = re.compile(
    rb"\[?[A-Z][a-z]{2} ([A-Z][a-z]{2}) {1,2}([0-9]{1,2}) " + _CLOCK + rb"(?:\.([0-9]{1,9}))? ([0-9]{4})"
)
_COMMON = re.compile(
    rb"\[([0-9]{1,2})/([A-Z][a-z]{2})/([0-9]{4}):" + _CLOCK + rb"(?:[.,]([0-9]{1,9}))? ([+-][0-9]{4})\]"
)
_EPOCH = re.compile(rb"\[?([0-9]{10})(?:\.([0-9]{1,9})|([0-9]{3}))?(?![0-9A-Za-z])")
_AUDIT = re.compile(rb"(?:node=[^ ]{1,255} )?type=[^ ]{1,64} msg=audit\(([0-9]{10})\.([0-9]{3}):")
_JSON = re.compile(rb"\"(?:@timestamp|timestamp|time|ts|date)\" ?: ?\"?")


class Yearless(NamedTuple):
    """A time of RFC 3164: month and so on, and in which year of the file, counted from its first."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int

    def in_year_s(self) -> int:
        """Return about how many seconds of its year have passed."""
        days = self.month * 31 + self.day
        return ((days * 24 + self.hour) * 60 + self.minute) * 60 + self.second


Stamp = Union[int, Yearless]
_Reader = Callable[[bytes], Optional[Stamp]]


class LineDater:
    """Dates the lines of one file; a stamp is nanoseconds since 1970, or what `resolve` makes that of.

    Args:
        mtime_ns: when the file was last changed, nanoseconds since 1970.

    """

    def __init__(self, mtime_ns: int) -> None:
        self._mtime_s = mtime_ns // _SECOND_NS
        self._year = 0
        self._in_year_s: Optional[int] = None
        self._readers: Dict[str, _Reader] = {
            "iso": _read_iso,
            "rfc3164": _read_syslog,
            "common": _read_common,
            "epoch": _read_epoch,
            "ctime": _read_ctime,
            "audit": _read_audit,
            "json": _read_json,
        }
        self._last: Tuple[str, _Reader] = ("iso", _read_iso)
        self._latest: Optional[Yearless] = None
        # How the time of the line dated last was written; empty before there was one.
        self.form = ""

    def date(self, line: bytes) -> Optional[Stamp]:
        """Return when a line was written; None where it does not say.

        For years to be counted, lines are to be dated in their order, less than two months apart.
        """
        stamp = self._read(line[:_HEAD_BYTES])
        if not isinstance(stamp, Yearless):
            return stamp
        in_year_s = stamp.in_year_s()
        known_s = in_year_s if self._in_year_s is None else self._in_year_s
        if in_year_s > known_s + _LAST_YEAR_S:
            return stamp._replace(year=self._year - 1)
        self._year += in_year_s < known_s - _NEXT_YEAR_S
        self._in_year_s = in_year_s
        self._latest = stamp._replace(year=self._year)
        return self._latest

    def _read(self, head: bytes) -> Optional[Stamp]:
        name, read = self._last
        stamp = read(head)
        if stamp is not None:
            self.form = name
            return stamp
        for name, read in self._readers.items():
            stamp = read(head)
            if stamp is not None:
                self._last, self.form = (name, read), name
                return stamp
        return None

    def resolve(self, stamp: Stamp) -> Optional[int]:
        """Return a stamp as nanoseconds since 1970, by all lines dated until now."""
        if not isinstance(stamp, Yearless):
            return stamp
        last = self._latest or stamp
        year = time.localtime(self._mtime_s).tm_year
        latest = _local_ns(year, *last[1:])
        if latest is not None and latest // _SECOND_NS > self._mtime_s + _DAY_S:
            year -= 1
        return _local_ns(year - last.year + stamp.year, *stamp[1:])


def _local_ns(  # noqa: PLR0917  (as they are said)
    year: int, month: int, day: int, hour: int, minute: int, second: int
) -> Optional[int]:
    try:
        return int(time.mktime((year, month, day, hour, minute, second, 0, 0, -1))) * _SECOND_NS
    except (ValueError, OverflowError):
        return None


def _make_ns(
    date: Tuple[int, int, int], clock: Tuple[bytes, ...], fraction: Optional[bytes], zone: Optional[bytes]
) -> Optional[int]:
    year, month, day = date
    if not (1 <= month <= 12 and 1 <= day <= 31 and year >= 1):  # noqa: PLR2004  (months and days)
        return None
    hour, minute, second = map(int, clock)
    part = int((fraction or b"0").ljust(9, b"0"))
    if zone is None:
        whole = _local_ns(year, month, day, hour, minute, second)
        return None if whole is None else whole + part
    try:
        seconds = calendar.timegm((year, month, day, hour, minute, second))
    except (ValueError, OverflowError):
        return None
    if zone[:1] in (b"+", b"-"):
        digits = zone[1:].replace(b":", b"")
        behind = int(digits[:2]) * 3600 + int(digits[2:]) * 60
        seconds += behind if zone.startswith(b"-") else -behind
    return seconds * _SECOND_NS + part


def _iso_of(found: Optional[Match[bytes]]) -> Optional[int]:
    if found is None:
        return None
    date = (int(found[1]), int(found[2]), int(found[3]))
    return _make_ns(date, (found[4], found[5], found[6]), found[7], found[8])


def _epoch_of(found: Optional[Match[bytes]]) -> Optional[int]:
    if found is None:
        return None
    return int(found[1]) * _SECOND_NS + int((found[2] or found[3] or b"0").ljust(9, b"0"))


def _read_iso(head: bytes) -> Optional[Stamp]:
    return _iso_of(_ISO.match(head))


def _read_syslog(head: bytes) -> Optional[Stamp]:
    found = _SYSLOG.match(head)
    month = _MONTHS.get(found[1]) if found is not None else None
    if found is None or month is None:
        return None
    day, clock = int(found[2]), (found[4], found[5], found[6])
    if found[3] is not None:
        return _make_ns((int(found[3]), month, day), clock, None, None)
    if not 1 <= day <= 31:  # noqa: PLR2004  (days)
        return None
    hour, minute, second = map(int, clock)
    return Yearless(0, month, day, hour, minute, second)


def _read_ctime(head: bytes) -> Optional[Stamp]:
    found = _CTIME.match(head)
    month = _MONTHS.get(found[1]) if found is not None else None
    if found is None or month is None:
        return None
    return _make_ns((int(found[7]), month, int(found[2])), (found[3], found[4], found[5]), found[6], None)


def _read_common(head: bytes) -> Optional[Stamp]:
    found = _COMMON.search(head)
    month = _MONTHS.get(found[2]) if found is not None else None
    if found is None or month is None:
        return None
    return _make_ns((int(found[3]), month, int(found[1])), (found[4], found[5], found[6]), found[7], found[8])


def _read_epoch(head: bytes) -> Optional[Stamp]:
    return _epoch_of(_EPOCH.match(head))


def _read_audit(head: bytes) -> Optional[Stamp]:
    found = _AUDIT.match(head)
    return None if found is None else int(found[1]) * _SECOND_NS + int(found[2]) * 1_000_000


def _read_json(head: bytes) -> Optional[Stamp]:
    if not head.lstrip().startswith(b"{"):
        return None
    found = _JSON.search(head)
    if found is None:
        return None
    stamp = _iso_of(_ISO.match(head, found.end()))
    return stamp if stamp is not None else _epoch_of(_EPOCH.match(head, found.end()))
