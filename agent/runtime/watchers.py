"""Keeps persistent modules running: for each that is on one process, started again while the agent lives.

Rules:
1. The resident holds no module: a watcher is a child like any other (`agent.runtime.launch`), with its own
   process group, limits and lowest priority, and it dies with the resident.
2. What it says is bounded frames: alerts, which are numbered, signed and kept (`agent.runtime.alerts`), how
   it is, and why it cannot go on. Anything else ends it. An alert is answered once it is on the disk: a
   watcher forgets no change that nobody was told of.
3. One that ends is started again after a pause that doubles, drawn at random from its upper half; one that
   has lived for long begins with the shortest again. What this machine cannot do is tried once an hour.
4. That one has ended is in the status, in the machine's own log, and is an alert: who stops a watcher is
   seen.

Standard library only: the resident agent imports this module.
"""

import logging
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

from agent.runtime import frames
from agent.runtime.alerts import Alerts
from agent.runtime.frames import Frame
from agent.runtime.launch import ChildProcess
from agent.runtime.loop import Loop
from agent.runtime.state import open_state_directory
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.strictjson import decode_json, encode_json

_LOG = logging.getLogger("mig.agent.watchers")
WATCH_DIRECTORY = "watch"
_FROM_WATCHER = frozenset({frames.ALERT, frames.STATE, frames.ENDED})
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 300.0
_UNSUPPORTED_RETRY_S = 3600.0
_LONG_LIFE_S = 600.0
_KEEP_RETRY_S = 15.0
_MAX_REASON = 500
MOST_UNKEPT = 32  # alerts that a watcher may have under way
_MOST_OVER = 100  # that come after one another above the rate, of which a watcher is told its share


class Watchers:
    """The watchers of one agent.

    Args:
        loop: the process's event loop.
        alerts: takes what they see.
        watched: the configuration of each module that is on, by its name.
        directory: the state directory.
        memory_bytes: what each may use.
        per_minute: how many alerts they make together at most.
        record: writes an entry of the machine's own log.
        random: from 0 to 1.
        monotonic: seconds.

    """

    def __init__(
        self,
        *,
        loop: Loop,
        alerts: Alerts,
        watched: Mapping[str, Mapping[str, Any]],
        directory: Path,
        memory_bytes: int,
        per_minute: int,
        record: Callable[[str, str, str], None],
        random: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        share = max(1, per_minute // max(1, len(watched)))
        self._watchers = [
            Watcher(
                module,
                loop=loop,
                alerts=alerts,
                told={
                    "module": module,
                    "config": dict(config),
                    "directory": str(directory / WATCH_DIRECTORY / module),
                    "memory_bytes": memory_bytes,
                    "per_minute": share,
                },
                record=record,
                random=random,
                monotonic=monotonic,
            )
            for module, config in sorted(watched.items())
        ]
        self._directory = directory

    def start(self) -> None:
        """Start all of them."""
        for watcher in self._watchers:
            open_state_directory(self._directory / WATCH_DIRECTORY)
            watcher.start()

    def close(self) -> None:
        """End all of them, for good."""
        for watcher in self._watchers:
            watcher.close()

    def states(self) -> Dict[str, Dict[str, Any]]:
        """Return how each is, by the module's name."""
        return {watcher.module: watcher.state() for watcher in self._watchers}

    def describe(self) -> str:
        """Return how they are, in one line."""
        said = [f"{watcher.module} {watcher.describe()}" for watcher in self._watchers]
        return "; ".join(said) or "none"


class Watcher:
    """One persistent module and its process."""

    def __init__(
        self,
        module: str,
        *,
        loop: Loop,
        alerts: Alerts,
        told: Mapping[str, Any],
        record: Callable[[str, str, str], None],
        random: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.module = module
        self._loop = loop
        self._alerts = alerts
        self._told = encode_json(dict(told))
        self._record = record
        self._random = random
        self._monotonic = monotonic
        self._child: Optional[ChildProcess] = None
        self._started = 0.0
        self._retry_s = _FIRST_RETRY_S
        self._timer: Any = None
        self._unkept: List[bytes] = []
        self._keeping: Any = None
        self._state: Dict[str, Any] = {}
        self._reason = ""  # why it ended last
        self._code = ""
        self._ends = self._over = 0
        self._is_closed = False

    @property
    def pid(self) -> Optional[int]:
        """Its process, where one runs."""
        return None if self._child is None else self._child.pid

    def state(self) -> Dict[str, Any]:
        """Return how it is: whether it runs, how often it has ended and why, and what it says itself."""
        return {
            "running": self._child is not None,
            "ended": self._ends,
            "reason": self._reason,
            "unsupported": self._code == "unsupported" and self._child is None,
            "told": self._state,
        }

    def describe(self) -> str:
        """Return how it is, in a few words."""
        if self._child is not None:
            return "running" if not self._ends else f"running, ended {self._ends} times: {self._reason}"
        return f"not running: {self._reason or 'starting'}"

    def start(self) -> None:
        """Start its process, and see to it that one runs from now on."""
        self._timer = None
        if self._is_closed:
            return
        self._code = ""
        try:
            child = ChildProcess(
                loop=self._loop,
                expect=_FROM_WATCHER,
                on_frame=self._on_frame,
                on_end=lambda status: self._on_end(child, status),
            )
        except EnvironmentFailure as error:
            self._try_later(str(error))
            return
        self._child = child
        self._started = self._monotonic()
        child.send(frames.WATCH, self._told)
        _LOG.info("watching", extra={"watcher": self.module, "pid": child.pid})

    def close(self) -> None:
        """End it for good."""
        if self._is_closed:
            return
        self._is_closed = True
        for handle in (self._timer, self._keeping):
            if handle is not None:
                self._loop.cancel(handle)
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind == frames.ALERT:
            self._unkept.append(frame.body)
            if len(self._unkept) > MOST_UNKEPT:
                raise InvalidInput("over-limit", "it does not wait until its alerts are kept")
            self._keep()
        elif frame.kind == frames.STATE:
            self._state = _read_object(frame.body)
        else:
            ended = _read_object(frame.body)
            self._code = str(ended.get("code", ""))[:64]
            self._reason = str(ended.get("detail", ""))[:_MAX_REASON]

    def _keep(self) -> None:
        """Hand on what it saw, and tell it so; where the disk is full it waits, and so do we."""
        self._keeping = None
        while self._unkept and self._child is not None:
            try:
                is_made = self._alerts.take(self.module, self._unkept[0])
            except EnvironmentFailure as error:
                said = {"watcher": self.module, "reason": error, "again_in_s": _KEEP_RETRY_S}
                _LOG.error("an alert cannot be kept", extra=said)
                self._keeping = self._loop.call_later(_KEEP_RETRY_S, self._keep)
                return
            except InvalidInput as error:
                self._give_up(str(error))
                return
            self._over = 0 if is_made else self._over + 1
            if self._over > _MOST_OVER:
                self._give_up("it makes more alerts than it was told to")
                return
            del self._unkept[0]
            self._child.send(frames.KEPT)

    def _give_up(self, reason: str) -> None:
        """End a process that is out of its mind; its end is dealt with as any other."""
        self._code, self._reason = "child-failed", reason
        if self._child is not None:
            self._child.kill()

    def _on_end(self, child: ChildProcess, status: Optional[int]) -> None:
        if child is not self._child:
            return
        self._child = None
        self._over = 0
        self._unkept.clear()  # it was not told that these are kept, and will see them again
        if not self._code:
            complaint = f": {child.complaint}" if child.complaint else ""
            ending = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
            self._reason = f"its process ended with {ending}{complaint}"[:_MAX_REASON]
        if self._monotonic() - self._started >= _LONG_LIFE_S:
            self._retry_s = _FIRST_RETRY_S
        self._try_later(self._reason)

    def _try_later(self, reason: str) -> None:
        if self._is_closed:
            return
        self._ends += 1
        self._reason = reason
        if self._code == "unsupported":
            delay_s = _UNSUPPORTED_RETRY_S
        else:
            delay_s = self._retry_s * (0.5 + self._random() / 2)
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
        said = {"watcher": self.module, "reason": reason, "again_in_s": round(delay_s, 1)}
        _LOG.error("a watcher has ended", extra=said)
        self._record(self.module, self._code or "child-failed", reason)
        severity = "medium" if self._code == "unsupported" else "high"
        self._alerts.tell("watcher-ended", severity, {"module": self.module, "reason": reason})
        self._timer = self._loop.call_later(delay_s, self.start)


def _read_object(body: bytes) -> Dict[str, Any]:
    """Return what a watcher says of itself.

    Raises:
        InvalidInput: where it is no object; that ends it.

    """
    told = decode_json(body)
    if not isinstance(told, dict):
        raise InvalidInput("bad-document", "a watcher says something else than an object")
    return told
