"""What a persistent module is, and what it is given: the contract beside that of `agent.module`.

A persistent module is a module that also defines, at its top level,

* `watch(config, context)`: yields a `Report` for each thing that it saw, for as long as it runs. `config` are
  the members of its table in the agent's configuration (`agent.watch_config`). It waits with `context.wait`
  alone, keeps what must survive a restart with `context.save`, and takes something as told only once
  `context.settle` has said so.

Its `run` answers signed questions about how the watcher is, from `context.watchers`.

Reports are paced here: so many pass as they are, what is beyond is counted by kind and told together once a
minute, with a few examples. So whoever touches a million files makes a few alerts that say a million.
"""

import select
import time
from datetime import datetime, timezone
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from agent.module import Context
from protocol.strictjson import encode_json

MAX_REPORT_BYTES = 8192  # of agent.runtime.frames, which modules do not know
TOGETHER_S = 60.0
_EXAMPLES = 5
_MAX_SUBJECT = 200
_RANK = {"low": 0, "medium": 1, "high": 2, "critical": 3}


class Report(NamedTuple):
    """What was seen: a kind of a few words, how bad it is, to what, and the facts.

    `subject` is what stands for it where several are told together, such as a path.
    """

    kind: str
    severity: str
    subject: str
    record: Dict[str, Any]


class _Together(NamedTuple):
    """Reports of one kind that are told together."""

    severity: str
    number: int
    first: datetime
    last: datetime
    examples: Tuple[str, ...]

    def more(self, report: Report, now: datetime) -> "_Together":
        worse = report.severity if _RANK[report.severity] > _RANK[self.severity] else self.severity
        examples = self.examples
        if len(examples) < _EXAMPLES:
            examples = (*examples, report.subject[:_MAX_SUBJECT])
        return _Together(worse, self.number + 1, self.first, now, examples)


class Pacer:
    """Lets reports pass at a rate, and tells together what is beyond it.

    Args:
        per_minute: how many pass in a minute; so many may come at once.
        send: sends one encoded report.
        clock: now, aware UTC.
        monotonic: seconds.

    """

    def __init__(
        self,
        per_minute: int,
        send: Callable[[bytes], None],
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._per_minute = per_minute
        self._send = send
        self._clock = clock
        self._monotonic = monotonic
        # What is told together once a minute needs its share, too.
        self._tokens = float(max(1, per_minute // 2))
        self._burst = self._tokens
        self._refilled = monotonic()
        self._together: Dict[str, _Together] = {}
        self._due = 0.0
        self.counts: Dict[str, int] = {}

    @property
    def due_s(self) -> Optional[float]:
        """In how many seconds something is to be told together; None where there is nothing."""
        return max(0.0, self._due - self._monotonic()) if self._together else None

    def offer(self, report: Report) -> None:
        """Send a report, or count it."""
        self.counts[report.kind] = self.counts.get(report.kind, 0) + 1
        now = self._monotonic()
        gained = max(0.0, now - self._refilled) * self._burst / 60
        self._tokens = min(self._burst, self._tokens + gained)
        self._refilled = now
        time_now = self._clock()
        if self._tokens >= 1 and report.kind not in self._together:
            self._tokens -= 1
            once = _Together(report.severity, 1, time_now, time_now, ())
            self._send(_encode(report.kind, once, report.record))
            return
        if not self._together:
            self._due = now + TOGETHER_S
        known = self._together.get(report.kind) or _Together(report.severity, 0, time_now, time_now, ())
        self._together[report.kind] = known.more(report, time_now)

    def tell_together(self) -> None:
        """Tell what was counted, if it is time."""
        if not self._together or self._monotonic() < self._due:
            return
        together, self._together = self._together, {}
        for kind, said in together.items():
            record = {"together": True, "examples": list(said.examples)}
            self._send(_encode(kind, said, record))


def _encode(kind: str, said: _Together, record: Mapping[str, Any]) -> bytes:
    told = {
        "kind": kind,
        "severity": said.severity,
        "count": said.number,
        "first": said.first.isoformat(),
        "last": said.last.isoformat(),
        "record": dict(record),
    }
    body = encode_json(told)
    if len(body) > MAX_REPORT_BYTES:
        # A path of 4 KiB that is escaped to its sixfold: said as far as it fits.
        told["record"] = {"cut": True, **_cut(record)}
        body = encode_json(told)
    return body


def _cut(record: Mapping[str, Any]) -> Dict[str, Any]:
    return {
        name: value[:_MAX_SUBJECT] if isinstance(value, str) else value
        for name, value in record.items()
        if isinstance(value, (str, int, float, bool)) or value is None
    }


class WatchContext:
    """What a running `watch` is given.

    Args:
        save: keeps bytes under a name until they are replaced, whatever happens.
        load: returns what was kept under a name; None where nothing was.
        pacer: sends its reports.
        channel: a descriptor that tells that alerts are kept; readable at its end, too.
        take_kept: reads from it, and returns how many more alerts are kept now; raises EOFError at its end.
        send_state: sends how it is.
        monotonic: seconds.

    """

    def __init__(
        self,
        *,
        save: Callable[[str, bytes], None],
        load: Callable[[str], Optional[bytes]],
        pacer: Pacer,
        channel: int,
        take_kept: Callable[[], int],
        send_state: Callable[[bytes], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.save = save
        self.load = load
        self._pacer = pacer
        self._channel = channel
        self._take_kept = take_kept
        self._send_state = send_state
        self._monotonic = monotonic
        self._unkept = 0

    def note_sent(self) -> None:
        """One more alert is under way."""
        self._unkept += 1

    def wait(self, descriptors: Sequence[int], timeout_s: Optional[float] = None) -> List[int]:
        """Wait until one of some descriptors can be read, and return those; none after `timeout_s`.

        Raises:
            EOFError: the agent is gone.

        """
        end = None if timeout_s is None else self._monotonic() + timeout_s
        while True:
            self._pacer.tell_together()
            left = [self._pacer.due_s, None if end is None else max(0.0, end - self._monotonic())]
            waits = [one for one in left if one is not None]
            ready, _, _ = select.select([self._channel, *descriptors], [], [], min(waits) if waits else None)
            if self._channel in ready:
                self._unkept -= self._take_kept()
            found = [one for one in ready if one != self._channel]
            if found or (end is not None and self._monotonic() >= end):
                return found

    def settle(self, most: int = 0) -> bool:
        """Tell whether all that was yielded is on the disk of the agent; waits for what is under way.

        False where something waits to be told together: ask again later.

        Raises:
            EOFError: the agent is gone.

        """
        while self._unkept > most:
            select.select([self._channel], [], [])
            self._unkept -= self._take_kept()
        return self._pacer.due_s is None

    def tell(self, state: Mapping[str, Any]) -> None:
        """Say how the watcher is, in a few numbers and texts; how many reports of each kind is added."""
        self._send_state(encode_json({**state, "reports": dict(self._pacer.counts)}))


def watcher_state(context: Context, module: str) -> Optional[Dict[str, Any]]:
    """Return how a module's watcher is, for its `run`; None, with a note, where there is none."""
    context.check()
    state = (context.watchers or {}).get(module)
    context.statistics["watchers_seen"] = int(state is not None)
    if context.watchers is None:
        context.note("asked without an agent: only a running agent knows of its watchers")
    elif state is None:
        context.note(f"the agent's configuration has no table [agent.{module}]")
    return state


def utc_now() -> datetime:
    """Return the endpoint's clock."""
    return datetime.now(timezone.utc)
