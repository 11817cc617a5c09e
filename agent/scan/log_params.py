"""How a window of time and the fields of a log are written in parameters."""

import re
from datetime import datetime, timedelta, timezone
from typing import Annotated, Optional

from msgspec import Meta

from agent.scan.log_question import Window

# An age, with the sign that its parameter has by its meaning, or a time with its zone.
Moment = Annotated[
    str,
    Meta(
        pattern=r"^([<>]?[0-9]{1,9}[smhd]|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}"
        r"(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2}))\Z"
    ),
]
# 0 is emerg, 7 is debug (syslog(3)).
Priority = Annotated[int, Meta(ge=0, le=7)]
# A group of RE2 or a field of a journal (systemd.journal-fields(7)).
JournalField = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}\Z")]

_AGE = re.compile(r"([<>]?)([0-9]+)([smhd])\Z")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIGNS = {"since": "<", "until": ">"}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SECOND_NS = 1_000_000_000


def require_moment(moment: Optional[str], name: str) -> None:
    """Refuse what is no time, or an age with the sign of the other end.

    Raises:
        ValueError: with what is wrong.

    """
    if moment is None:
        return
    age = _AGE.match(moment)
    if age is None:
        _absolute_ns(moment)
    elif age[1] not in ("", _SIGNS[name]):
        raise ValueError(f"{name}: an age here is written {_SIGNS[name]}{age[2]}{age[3]}")


def window_of(since: Optional[str], until: Optional[str], now_ns: int) -> Window:
    """Return the window of two moments; ages count back from now, in nanoseconds since 1970."""
    return Window(_moment_ns(since, now_ns), _moment_ns(until, now_ns))


def _moment_ns(moment: Optional[str], now_ns: int) -> Optional[int]:
    if moment is None:
        return None
    age = _AGE.match(moment)
    if age is None:
        return _absolute_ns(moment)
    return now_ns - int(age[2]) * _UNIT_S[age[3]] * _SECOND_NS


def _absolute_ns(moment: str) -> int:
    plain, _, fraction = moment[:-1].partition(".") if moment[-1] in "Zz" else (moment, "", "")
    zone = "+00:00"
    if moment[-1] not in "Zz":
        plain, zone = moment[:-6], moment[-6:]
        plain, _, fraction = plain.partition(".")
    try:
        at = datetime.fromisoformat(plain.replace("t", "T") + zone)
    except ValueError as error:
        raise ValueError(f"{moment!r} is no time: {error}") from None
    whole = (at - _EPOCH) // timedelta(seconds=1)
    return whole * _SECOND_NS + int((fraction or "0").ljust(9, "0"))
