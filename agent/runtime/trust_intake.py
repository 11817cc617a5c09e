"""Takes trust bundles from the broker: has each judged by a child of its own, stores it, and then uses it.

Rules:
1. What cannot be newer than what is held is dropped here, before a child is troubled with it. That looks at
   the payload before anybody has verified it, which can only drop what the platform could have withheld.
2. A child verifies a bundle (`agent.runtime.trust`). One that is good is on the disk before it is used.
3. Where there is no room on the disk the delivery stays unacknowledged and is tried again; meanwhile what was
   held is obeyed. Whatever else is refused is logged, acknowledged and forgotten: the server sends the newest
   bundle again as long as this agent reports an older one.
4. One bundle after the other, and a few waiting: a flood costs bounded memory and one child at a time, and
   holds up no action.

Standard library only: the resident agent imports this module.
"""

import logging
from collections import deque
from datetime import datetime
from typing import Any, Callable, Deque, NamedTuple, Optional, Set

from agent.config import Baked
from agent.runtime import frames
from agent.runtime.frames import Frame
from agent.runtime.launch import ChildProcess
from agent.runtime.loop import Loop
from agent.runtime.trust_store import TrustStore, encode_candidate
from agent.runtime.verdict import decode_bundle_verdict
from protocol.envelope import TRUST, decode_envelope
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.strictjson import decode_json

_LOG = logging.getLogger("mig.agent.trust")
_JUDGE_S = 60.0
_RETRY_S = 15.0
_MAX_WAITING = 8
_MAX_TRIES = 3


class _Delivery(NamedTuple):
    body: bytes
    acknowledge: Callable[[], None]
    tries: int


class TrustIntake:
    """The handler of deliveries of type `trust`.

    Args:
        loop: the process's event loop.
        baked: roots, threshold and limits.
        store: where an accepted bundle goes.
        clock: now, aware UTC.
        on_change: called when another bundle is in force.

    """

    def __init__(
        self,
        *,
        loop: Loop,
        baked: Baked,
        store: TrustStore,
        clock: Callable[[], datetime],
        on_change: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._baked = baked
        self._store = store
        self._clock = clock
        self._on_change = on_change
        self._waiting: Deque[_Delivery] = deque()
        self._current: Optional[_Delivery] = None
        self._child: Optional[ChildProcess] = None
        self._ending: Set[ChildProcess] = set()
        self._timer: Any = None
        self._is_closed = False
        self.refused = 0

    def submit(self, body: bytes, acknowledge: Callable[[], None]) -> None:
        """Take one delivery; `acknowledge` is called once: when it is refused, dropped, or on the disk."""
        delivery = _Delivery(body, acknowledge, 0)
        try:
            self._require_worth_judging(body)
        except InvalidInput as error:
            self._refuse(delivery, error.code, error.detail)
            return
        if len(self._waiting) >= _MAX_WAITING:
            self._refuse(self._waiting.popleft(), "over-limit", "newer ones wait")
        self._waiting.append(delivery)
        self._next()

    def close(self) -> None:
        """Kill the child and take nothing more; what waits stays unacknowledged and comes again."""
        self._is_closed = True
        self._waiting.clear()
        self._cancel_timer()
        self._release()
        for child in list(self._ending):
            child.end()

    def _require_worth_judging(self, body: bytes) -> None:
        if not self._baked.config.trust.roots:
            raise InvalidInput("unsigned", "this agent was built without roots: it accepts no trust bundle")
        envelope = decode_envelope(body, TRUST)
        payload = decode_json(envelope.payload)
        version = payload.get("version") if isinstance(payload, dict) else None
        if not isinstance(version, int):
            raise InvalidInput("bad-trust", "no version")
        mark = self._store.held.mark
        if mark is None:
            return
        is_held = (version, envelope.digest) == mark and self._store.held.bundle
        if is_held or version < mark.version:
            raise InvalidInput("stale-trust", f"version {version}; version {mark.version} is known")

    def _next(self) -> None:
        if self._current is not None or self._timer is not None or not self._waiting or self._is_closed:
            return
        self._current = delivery = self._waiting.popleft()
        try:
            self._child = child = ChildProcess(
                loop=self._loop,
                expect=frozenset({frames.VERDICT}),
                on_frame=self._on_verdict,
                on_end=lambda _status: self._on_end(child),
            )
        except EnvironmentFailure as error:
            self._try_later(str(error))
            return
        told = encode_candidate(self._baked, self._store.held, delivery.body, self._clock())
        child.send(frames.CANDIDATE, told)
        self._timer = self._loop.call_later(_JUDGE_S, self._on_slow)

    def _on_slow(self) -> None:
        self._timer = None
        if self._child is not None:
            self._child.kill()

    def _on_end(self, child: ChildProcess) -> None:
        """Deal with the end of a child; of one that has said nothing the bundle is tried again."""
        self._ending.discard(child)
        if child is self._child:
            self._try_later(child.complaint or "the child that judged a bundle ended")

    def _try_later(self, why: str) -> None:
        """Put the current bundle back and wait; one that keeps ending its child is dropped."""
        delivery = self._finish()
        if delivery is None:
            return
        if delivery.tries + 1 >= _MAX_TRIES:
            self._refuse(delivery, "child-failed", why)
        else:
            self._waiting.appendleft(delivery._replace(tries=delivery.tries + 1))
        _LOG.warning("a trust bundle waits: %s", why)
        self._timer = self._loop.call_later(_RETRY_S, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._next()

    def _finish(self) -> Optional[_Delivery]:
        """Be done with the current bundle and its child."""
        self._cancel_timer()
        delivery, self._current = self._current, None
        self._release()
        return delivery

    def _release(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            self._ending.add(child)
            child.kill()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._loop.cancel(self._timer)
            self._timer = None

    def _on_verdict(self, frame: Frame) -> None:
        delivery = self._finish()
        if delivery is None:
            return
        try:
            version, digest = decode_bundle_verdict(frame.body)
        except InvalidInput as error:
            self._refuse(delivery, error.code, error.detail)
            self._next()
            return
        try:
            self._store.keep(delivery.body, version, digest)
        except EnvironmentFailure as error:
            said = {"version": version, "reason": error, "again_in_s": _RETRY_S}
            _LOG.error("a trust bundle cannot be stored and is not used", extra=said)
            self._waiting.appendleft(delivery)
            self._timer = self._loop.call_later(_RETRY_S, self._resume)
            return
        _LOG.info("a trust bundle is in force", extra={"version": version, "sha256": digest})
        self._on_change()
        delivery.acknowledge()
        self._next()

    def _refuse(self, delivery: _Delivery, code: str, detail: str) -> None:
        self.refused += 1
        if code == "stale-trust":
            _LOG.info("a trust bundle changes nothing: %s", detail)
        else:
            _LOG.warning("a trust bundle was refused: %s: %s", code, detail)
        delivery.acknowledge()
