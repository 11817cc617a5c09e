"""Takes cancels: has each judged by a child, keeps it as a tombstone, and has what runs stopped.

Rules:
1. A cancel never waits for a command: it is judged by a child of its own, while one may be running.
2. It is acknowledged when it is refused, or when its tombstone is on the disk; where neither can be done now,
   it stays with the broker and is tried again.
3. What nobody trusted signed is counted, leaves no trace, and costs no process each: the child judges what
   waits, and ends when nothing does.

Standard library only: the resident agent imports this module.
"""

import logging
from collections import deque
from datetime import datetime
from typing import Any, Callable, Deque, NamedTuple, Optional, Set

from agent.runtime import frames
from agent.runtime.frames import Frame
from agent.runtime.journal import Journal, Tombstone
from agent.runtime.launch import ChildProcess
from agent.runtime.loop import Loop
from agent.runtime.verdict import CancelVerdict, decode_cancel_verdict
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.strictjson import encode_json

_LOG = logging.getLogger("mig.agent.canceller")
_JUDGE_S = 60.0
_RETRY_S = 5.0
_MOST_JUDGED = 64  # by one child


class _Waiting(NamedTuple):
    body: bytes
    acknowledge: Callable[[], None]


class Canceller:
    """Serves the cancels of one agent.

    Args:
        loop: the process's event loop.
        journal: keeps the tombstones.
        trust_frame: whom to obey now, as the supervisor tells its children.
        clock: now, aware UTC.
        on_cancelled: called with each tombstone once it is kept.
        count_silently: told the code of each cancel that was refused.

    """

    def __init__(
        self,
        *,
        loop: Loop,
        journal: Journal,
        trust_frame: Callable[[], bytes],
        clock: Callable[[], datetime],
        on_cancelled: Callable[[Tombstone], None],
        count_silently: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._trust_frame = trust_frame
        self._clock = clock
        self._on_cancelled = on_cancelled
        self._count_silently = count_silently
        self._queue: Deque[_Waiting] = deque()
        self._child: Optional[ChildProcess] = None
        self._ending: Set[ChildProcess] = set()
        self._judged = 0
        self._is_asking = False
        self._timer: Any = None
        self._is_closed = False

    @property
    def is_idle(self) -> bool:
        """Whether no cancel waits."""
        return not self._queue

    def submit(self, body: bytes, acknowledge: Callable[[], None]) -> None:
        """Take one delivery; `acknowledge` is called once, when it is refused or kept."""
        self._queue.append(_Waiting(body, acknowledge))
        self._next()

    def renew_trust(self) -> None:
        """Obey the bundle of now: what is being judged is judged anew."""
        self._release()
        self._next()

    def close(self) -> None:
        """Kill the child and take nothing more; what was not acknowledged comes again."""
        self._is_closed = True
        self._queue.clear()
        self._release()
        for child in list(self._ending):
            child.end()

    def _next(self) -> None:
        if not self._queue:
            self._release()
        elif not self._is_asking and self._timer is None and not self._is_closed:
            self._ask()

    def _ask(self) -> None:
        if self._judged >= _MOST_JUDGED:
            self._release()
        if self._child is None and not self._start_child():
            return
        self._is_asking = True
        self._judged += 1
        self._timer = self._loop.call_later(_JUDGE_S, self._drop)
        told = encode_json({"now": self._clock().isoformat(), "facts": {}})
        self._send(frames.FACTS, told)
        self._send(frames.CANCEL, self._queue[0].body)

    def _send(self, kind: bytes, body: bytes) -> None:
        if self._child is not None:
            self._child.send(kind, body)

    def _start_child(self) -> bool:
        try:
            child = ChildProcess(
                loop=self._loop,
                expect=frozenset({frames.READY, frames.VERDICT}),
                on_frame=self._on_frame,
                on_end=lambda _status: self._on_end(child),
            )
        except EnvironmentFailure as error:
            self._try_later(str(error))
            return False
        self._child = child
        self._judged = 0
        self._send(frames.TRUST, self._trust_frame())
        return True

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind != frames.VERDICT:
            return
        if not self._is_asking:
            self._release()
            return
        try:
            verdict = decode_cancel_verdict(frame.body)
        except InvalidInput as error:
            _LOG.error("a child's verdict cannot be read: %s", error)
            self._drop()
            return
        self._take(verdict)

    def _take(self, verdict: CancelVerdict) -> None:
        if verdict.problem:
            self._done(verdict.problem)
            return
        stone = Tombstone(
            digest=verdict.digest,
            action_id=verdict.action_id,
            signers=verdict.signers,
            expireafter=verdict.expireafter,
            manages=verdict.manages,
        )
        try:
            is_kept = self._journal.insert_tombstone(stone)
        except EnvironmentFailure as error:
            self._try_later(str(error))
            return
        said = {"action": stone.action_id, "signers": ",".join(stone.signers)}
        if not is_kept:
            _LOG.error("no room for a cancel", extra=said)
            self._done("over-limit")
            return
        _LOG.info("cancelled", extra=said)
        self._on_cancelled(stone)
        self._done("")

    def _done(self, problem: str) -> None:
        """Be done with the first that waits."""
        self._settle()
        if problem:
            self._count_silently(problem)
        self._queue.popleft().acknowledge()
        self._next()

    def _drop(self) -> None:
        """Give up one whose judging ends or holds up the child: it must not come for ever."""
        self._release()
        self._done("child-failed")

    def _on_end(self, child: ChildProcess) -> None:
        self._ending.discard(child)
        if child is self._child:
            self._child = None
            _LOG.warning("a child ended by itself: %s", child.complaint or "no complaint")
            if self._is_asking:
                self._drop()

    def _settle(self) -> None:
        self._is_asking = False
        if self._timer is not None:
            self._loop.cancel(self._timer)
        self._timer = None

    def _try_later(self, why: str) -> None:
        _LOG.warning("a cancel waits for %g s: %s", _RETRY_S, why)
        self._release()
        self._timer = self._loop.call_later(_RETRY_S, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._next()

    def _release(self) -> None:
        self._settle()
        child, self._child = self._child, None
        if child is not None:
            self._ending.add(child)
            child.kill()
