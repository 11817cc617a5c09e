"""The alerts of one agent: composed, numbered, signed and kept here until the broker has confirmed them.

Rules:
1. What a watcher says is hostile bytes: bounded by its frame, decoded strictly, taken by its shape alone.
2. At most so many alerts a minute are made. What is beyond is counted, and the next alert says how many;
   where none comes, the agent says so in one of its own.
3. They have a spool of their own, so that they never take the room of an answer. It is bounded: the oldest
   make room, and the next alert says how many had to.
4. The number of the last alert is on the disk before that alert goes anywhere: no two alerts share one.

Standard library only: the resident agent imports this module.
"""

import json
import logging
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from agent.runtime.loop import Loop
from agent.runtime.spool import Spool
from agent.runtime.state import environment_failure, write_atomically
from agent.watch_config import SEVERITIES, AlertsConfig
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.strictjson import decode_json, encode_json

_LOG = logging.getLogger("mig.agent.alerts")
ALERTS_DIRECTORY = "alerts"
_COUNTS_FILE = "alerts.json"
_KIND = re.compile(r"[a-z][a-z0-9-]{0,63}\Z")
_MEMBERS = frozenset({"kind", "severity", "count", "first", "last", "record"})
_MAX_BYTES = 64 << 20
_MAX_COUNT = 1 << 62
_OWN_AFTER_S = 60.0
_RETRY_S = 15.0
OWN = "agent"  # the module of what the agent says by itself


def format_time(time: datetime) -> str:
    """Format an aware time as RFC 3339 in UTC."""
    return time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


class _Counts:
    """The number of the last alert, and what has not been told yet, on the disk."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _COUNTS_FILE
        self.seq = self.suppressed = self.dropped = 0
        try:
            kept = json.loads(self._path.read_text(encoding="ascii"))
            self.seq, self.suppressed, self.dropped = (
                int(kept[name]) for name in ("seq", "suppressed", "dropped")
            )
        except FileNotFoundError:
            return
        except OSError as error:
            raise environment_failure(error, self._path) from None
        except (ValueError, KeyError, TypeError):
            # A number that was given once must not be given again.
            raise EnvironmentFailure("state-failed", f"{self._path} is damaged") from None

    def save(self) -> None:
        told = {"seq": self.seq, "suppressed": self.suppressed, "dropped": self.dropped}
        write_atomically(self._path, json.dumps(told).encode("ascii"))


class Alerts:
    """Takes what watchers see, and publishes it.

    Args:
        directory: the state directory.
        config: how many.
        agent_id: this agent's id.
        loop: the process's event loop.
        clock: now, aware UTC.
        monotonic: seconds, for the rate.
        sign: makes the signed envelope of a payload.
        publish: publishes one envelope and calls back whether the broker has confirmed it.
        is_ready: tells whether anything can be published now.

    Raises:
        EnvironmentFailure: `state-failed` or `disk-full`.

    """

    def __init__(
        self,
        directory: Path,
        config: AlertsConfig,
        *,
        agent_id: str,
        loop: Loop,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        sign: Callable[[bytes], bytes],
        publish: Callable[[bytes, Callable[[bool], None]], None],
        is_ready: Callable[[], bool],
    ) -> None:
        self._config = config
        self._agent_id = agent_id
        self._loop = loop
        self._clock = clock
        self._monotonic = monotonic
        self._sign = sign
        self._publish = publish
        self._is_ready = is_ready
        self._spool = Spool(directory / ALERTS_DIRECTORY, max_bytes=_MAX_BYTES)
        self._waiting = self._spool.names()
        self._counts = _Counts(directory)
        if self._waiting:
            self._counts.seq = max(self._counts.seq, _number(self._waiting[-1]))
        self._tokens = float(config.per_minute)
        self._refilled = monotonic()
        self._own_timer: Any = None
        self._publishing: Optional[str] = None

    @property
    def waiting(self) -> int:
        """How many alerts the broker has not confirmed."""
        return len(self._waiting)

    def take(self, module: str, body: bytes) -> bool:
        """Take what a watcher saw: it is on the disk when this returns; False where it was only counted.

        Raises:
            InvalidInput: `bad-document`, where it has not the shape of a report.
            EnvironmentFailure: `state-failed` or `disk-full`: it is neither, and is to be given again.

        """
        report = decode_report(body)
        if not self._may_make_one():
            # Not written each time: whoever floods us must not make us write as much.
            self._counts.suppressed += report["count"]
            self._tell_soon()
            return False
        self._make(module, report)
        return True

    def tell(self, kind: str, severity: str, record: Dict[str, Any]) -> None:
        """Make an alert of the agent's own; where it cannot be kept, that is logged."""
        now = format_time(self._clock())
        report = {
            "kind": kind,
            "severity": severity,
            "count": 1,
            "first": now,
            "last": now,
            "record": record,
        }
        try:
            self._make(OWN, report)
        except EnvironmentFailure as error:
            _LOG.error("an alert cannot be kept: %s", error)

    def _may_make_one(self) -> bool:
        now = self._monotonic()
        gained = max(0.0, now - self._refilled) * self._config.per_minute / 60
        self._tokens = min(float(self._config.per_minute), self._tokens + gained)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _make(self, module: str, report: Dict[str, Any]) -> None:
        counts = self._counts
        self._make_room()
        payload = encode_json(
            {
                "agent": self._agent_id,
                "seq": counts.seq + 1,
                "time": format_time(self._clock()),
                "module": module,
                **report,
                **({"suppressed": counts.suppressed} if counts.suppressed else {}),
                **({"dropped": counts.dropped} if counts.dropped else {}),
            }
        )
        name = self._spool.put(f"{counts.seq + 1:032x}", self._sign(payload), is_refusal=False)
        self._waiting.append(name)
        counts.seq += 1
        counts.suppressed = counts.dropped = 0
        counts.save()
        self.publish_next()

    def _make_room(self) -> None:
        while len(self._waiting) >= self._config.max_kept:
            # What is under way may be with the broker already.
            oldest = self._waiting[1 if self._waiting[0] == self._publishing else 0]
            self._spool.remove(oldest)
            self._waiting.remove(oldest)
            self._counts.dropped += 1

    def _tell_soon(self) -> None:
        if self._own_timer is None:
            self._own_timer = self._loop.call_later(_OWN_AFTER_S, self._tell_suppressed)

    def _tell_suppressed(self) -> None:
        self._own_timer = None
        if self._counts.suppressed:
            self.tell("suppressed", "high", {"per_minute": self._config.per_minute})

    # -- on their way -------------------------------------------------------------------------------------

    def publish_next(self) -> None:
        """Publish the oldest alert; the next follows when this one is confirmed."""
        if self._publishing is not None or not self._waiting or not self._is_ready():
            return
        self._publishing = self._waiting[0]
        self._publish(self._spool.get(self._publishing).body, self._on_published)

    def _on_published(self, confirmed: bool) -> None:  # noqa: FBT001  (the link's callback)
        name, self._publishing = self._publishing, None
        if confirmed and name is not None:
            self._spool.remove(name)
            self._waiting.remove(name)
            self.publish_next()
        elif self._is_ready():  # returned or refused: the broker has no room now
            self._loop.call_later(_RETRY_S, self.publish_next)


def decode_report(body: bytes) -> Dict[str, Any]:
    """Return what a watcher says that it saw.

    Raises:
        InvalidInput: `bad-json` or `bad-document`.

    """
    told = decode_json(body)
    if not isinstance(told, dict) or set(told) != _MEMBERS:
        raise InvalidInput("bad-document", "a report has other members than it should")
    kind, count = told["kind"], told["count"]
    if not isinstance(kind, str) or not _KIND.match(kind) or told["severity"] not in SEVERITIES:
        raise InvalidInput("bad-document", "a report has no kind or severity of ours")
    if type(count) is not int or not 0 < count < _MAX_COUNT or not isinstance(told["record"], dict):
        raise InvalidInput("bad-document", "a report has no count or no record")
    for name in ("first", "last"):
        told[name] = _read_time(told[name])
    return told


def _read_time(value: Any) -> str:
    try:
        time = datetime.fromisoformat(value.replace("Z", "+00:00"))
        return format_time(time if time.tzinfo else time.replace(tzinfo=timezone.utc))
    except (AttributeError, ValueError, OverflowError):
        raise InvalidInput("bad-document", "a report has a time that is none") from None


def _number(name: str) -> int:
    return int(name.partition("-")[2].partition(".")[0], 16)
