"""Recurring actions: when the occurrences of a schedule are, the same for agent, server and client.

Rules:
1. A schedule stands inside the signed action: who signed it once signed all its occurrences, and no key need
   be where the clock is. Whoever triggers an occurrence decides nothing: the agent computes by itself whether
   one is due.
2. Occurrences are whole seconds, UTC, later than `validfrom` and earlier than `expireafter`, at most the
   first `max_runs` of them. That bound needs no counter, so nothing that is lost can raise it.
3. An occurrence is due from its time on for `grace_s`, and only as long as no later one is.
4. An occurrence's id is its time: `2026-11-20T03:00:00Z`. Ids sort as their times do.
5. A cron expression is five fields of numbers, names, `*`, `,`, `-` and `/` in the sense of Debian's cron
   (man 5 crontab): where day of month or day of week begins with `*` both must match, else one of them.
   What cronsim knows beyond that (`L`, `W`, `#`) is refused: few people read it the same way.

No clock: whoever calls says what time it is.
"""

import math
import re
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, Iterator, Optional

import msgspec
from msgspec import Meta

from protocol.names import is_occurrence

MAX_RUNS = 10_000
MAX_GRACE_S = 86400
MAX_INTERVAL_S = 90 * 86400
_VALUE = r"(?:[0-9]{1,2}|[A-Za-z]{3})"
_TERM = rf"(?:\*|{_VALUE}(?:-{_VALUE})?)(?:/[0-9]{{1,2}})?"
_FIELD = rf"{_TERM}(?:,{_TERM})*"
_CRON = re.compile(rf"{_FIELD}(?: {_FIELD}){{4}}\Z")
_MINUTE = timedelta(minutes=1)


class Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When an action recurs: `cron` (UTC) or `every_s`, at most `max_runs` times; late by `grace_s` at most.

    It ends with the action's `expireafter`.
    """

    grace_s: Annotated[int, Meta(ge=1, le=MAX_GRACE_S)]
    cron: Optional[Annotated[str, Meta(max_length=200)]] = None
    every_s: Optional[Annotated[int, Meta(ge=1, le=MAX_INTERVAL_S)]] = None
    max_runs: Optional[Annotated[int, Meta(ge=1, le=MAX_RUNS)]] = None

    def __post_init__(self) -> None:
        """Refuse a schedule that is neither or both, and an expression that cannot be."""
        if (self.cron is None) == (self.every_s is None):
            raise ValueError("a schedule has either cron or every_s")
        if self.cron is not None:
            _start_cron(self.cron, datetime(2000, 1, 1, tzinfo=timezone.utc))


class Calendar:
    """The occurrences of one schedule.

    Args:
        schedule: as it was signed.
        validfrom: every occurrence is later.
        expireafter: every occurrence is earlier.

    """

    def __init__(self, schedule: Schedule, validfrom: datetime, expireafter: datetime) -> None:
        self.schedule = schedule
        self._first_second = math.floor(validfrom.timestamp()) + 1
        self._last_second = math.ceil(expireafter.timestamp()) - 1
        if schedule.every_s is not None and schedule.max_runs is not None:
            end = self._base() + schedule.every_s * schedule.max_runs
            self._last_second = min(self._last_second, end)
        elif schedule.max_runs is not None:
            self._last_second = self._nth_second(schedule.max_runs)

    @property
    def grace(self) -> timedelta:
        """For how long an occurrence stays due."""
        return timedelta(seconds=self.schedule.grace_s)

    def latest(self, moment: datetime) -> Optional[datetime]:
        """Return the last occurrence at or before a moment, or None."""
        second = min(math.floor(moment.timestamp()), self._last_second)
        if self.schedule.every_s is not None:
            steps = (second - self._base()) // self.schedule.every_s
            return _time(self._base() + steps * self.schedule.every_s) if steps > 0 else None
        if second < self._first_second:
            return None
        return self._within(_step(str(self.schedule.cron), _time(second) + _MINUTE, reverse=True))

    def following(self, moment: datetime) -> Optional[datetime]:
        """Return the first occurrence after a moment, or None."""
        second = max(math.floor(moment.timestamp()), self._first_second - 1)
        if self.schedule.every_s is not None:
            steps = max((second - self._base()) // self.schedule.every_s, 0) + 1
            return self._within(_time(self._base() + steps * self.schedule.every_s))
        return self._within(_step(str(self.schedule.cron), _time(second)))

    def due(self, now: datetime) -> Optional[datetime]:
        """Return the occurrence that may be started now, or None."""
        latest = self.latest(now)
        return latest if latest is not None and now < latest + self.grace else None

    def upcoming(self, moment: datetime) -> Iterator[datetime]:
        """Yield the occurrences after a moment, in order."""
        following = self.following(moment)
        while following is not None:
            yield following
            following = self.following(following)

    def __contains__(self, moment: datetime) -> bool:
        """Tell whether a time is an occurrence."""
        return self.latest(moment) == moment

    def _base(self) -> int:
        """Where an interval is counted from: `validfrom`, in whole seconds."""
        return self._first_second - 1

    def _within(self, found: Optional[datetime]) -> Optional[datetime]:
        if found is None or not self._first_second <= found.timestamp() <= self._last_second:
            return None
        return found

    def _nth_second(self, number: int) -> int:
        for count, found in enumerate(self.upcoming(_time(self._base())), start=1):
            if count == number:
                return math.floor(found.timestamp())
        return self._last_second


def format_occurrence(time: datetime) -> str:
    """Return the id of an occurrence."""
    return time.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def parse_occurrence(text: str) -> Optional[datetime]:
    """Return the time of an occurrence's id, or None where it is none."""
    if not is_occurrence(text):
        return None
    try:
        return datetime.fromisoformat(text[:-1]).replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def _time(second: int) -> datetime:
    return datetime.fromtimestamp(second, timezone.utc)


def _start_cron(expression: str, moment: datetime, *, reverse: bool = False) -> Any:
    """Return cronsim's iterator; the import is here because few actions recur.

    Raises:
        ValueError: not an expression of ours.

    """
    from cronsim import CronSim, CronSimError  # noqa: PLC0415

    if _CRON.match(expression) is None:
        raise ValueError("cron is not five fields of numbers, names, '*', ',', '-' and '/'")
    try:
        return CronSim(expression, moment, reverse=reverse)
    except CronSimError as error:
        raise ValueError(f"cron: {error}") from None


def _step(expression: str, moment: datetime, *, reverse: bool = False) -> Optional[datetime]:
    """Return the next time of an expression; cronsim gives up after 50 years, so this is bounded."""
    found: Optional[datetime] = next(_start_cron(expression, moment, reverse=reverse), None)
    return found
