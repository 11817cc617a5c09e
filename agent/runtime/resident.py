"""The resident agent: one small process that waits for commands, and holds no module.

It owns identity, journal, spool and the link to the broker; each command is verified and run by a child that
the supervisor keeps. It treats a child's answer as bounded bytes, signs it, keeps it in the spool until the
broker has confirmed it, and only then forgets it.
"""

import json
import logging
import random
import signal
import time
from collections import deque
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Deque, Dict, Optional

from agent.config import Baked
from agent.facts import collect_facts
from agent.platform.memory import give_back_free_memory
from agent.registry import module_names
from agent.runtime.amqp import IOLoop, PikaLoop
from agent.runtime.audit import AuditLog
from agent.runtime.canceller import Canceller
from agent.runtime.digest_cache import open_digest_cache
from agent.runtime.heartbeat import encode_heartbeat, format_time
from agent.runtime.identity import Identity
from agent.runtime.journal import Journal, Tombstone
from agent.runtime.link import Link, Relay
from agent.runtime.removal import Removal
from agent.runtime.spool import Spool
from agent.runtime.state import write_atomically
from agent.runtime.supervisor import Answer, Supervisor
from agent.runtime.trust_intake import TrustIntake
from agent.runtime.trust_state import EXPIRED, TrustState, read_expiry, state_of_trust
from agent.runtime.trust_store import TrustStore
from agent.runtime.watch import Watch
from protocol.enrolment import EnrolmentToken
from protocol.envelope import (
    ACTION,
    ALERT,
    CANCEL,
    HEARTBEAT,
    NOTICE,
    RESULT,
    TRUST,
    encode_envelope,
    peek_type,
)
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.identity import sign_envelope
from protocol.names import heartbeat_key, result_key
from protocol.notice import open_notice

Handler = Callable[[bytes, Callable[[], None]], None]
_LOG = logging.getLogger("mig.agent")
_SPOOL_RETRY_S = 15.0
_PROGRESS_S = 5.0  # at most so often is told how far a command is
_ANNOUNCE_AFTER_S = 2.0  # a command that runs longer is told to the server at once
_SETTLED_S = 2.0  # by then the broker has answered and the warm child is up
_CHECK_IN_QUIET_S = 5.0
_CHECK_IN_LONGEST_S = 600.0
_LEAVE_S = 10.0  # for the server to hear that this agent removes itself


def utc_now() -> datetime:
    """Return the agent's clock."""
    return datetime.now(timezone.utc)


class Resident:
    """Everything that the resident process does, on one loop."""

    def __init__(
        self,
        *,
        baked: Baked,
        directory: Path,
        identity: Identity,
        trust: TrustStore,
        token: Optional[EnrolmentToken],
        check_in: bool,
    ) -> None:
        self._baked = baked
        self._directory = directory
        self._identity = identity
        self._check_in = check_in
        self._started = utc_now()
        self._ioloop = IOLoop()
        self._spool = Spool(directory / "spool")
        self._journal = Journal(directory / "journal", clock=utc_now)
        self._audit = AuditLog(directory, clock=utc_now)
        self._removal = Removal(directory, baked.version)
        self._publishing: Optional[str] = None
        self._unspooled: Deque[Answer] = deque()
        self._is_first_spooled = False  # and only its record in the journal is missing
        self._spool_timer: Any = None
        self._heartbeat_timer: Any = None
        self._told_progress = time.monotonic()
        self._quiet_since = time.monotonic()
        self._facts: Dict[str, Any] = {}
        self._link = Link(
            ioloop=self._ioloop,
            relay=Relay(baked.config.relay, baked.config.broker, baked.config.relay_ca, token),
            identity=identity,
            clock=utc_now,
            on_delivery=self._take_delivery,
            on_ready=self._on_ready,
            on_trouble=self._write_status,
            random=random.random,
            facts=self._current_facts,
        )
        loop = PikaLoop(self._ioloop)
        self._watch = Watch(
            baked,
            directory,
            agent_id=identity.agent_id,
            loop=loop,
            link=self._link,
            sign=lambda payload: self._sign(ALERT, payload),
            record=self._audit.watcher_ended,
            watches=not check_in,
        )
        self._supervisor = Supervisor(
            loop=loop,
            journal=self._journal,
            baked=baked,
            agent_id=identity.agent_id,
            facts=self._current_facts,
            clock=utc_now,
            on_answer=self._keep_answer,
            audit=self._audit,
            sign_result=lambda payload: self._sign(RESULT, payload),
            held=lambda: trust.held,
            on_progress=self._tell_progress,
            digest_cache=open_digest_cache(baked, directory),
            watchers=self._watch.states,
        )
        self._trust = trust
        self._trust_expires = read_expiry(trust.held.bundle)
        self._expired: Optional[int] = None  # the bundle of which it was told that it has expired
        self._trust_intake = TrustIntake(
            loop=loop, baked=baked, store=trust, clock=utc_now, on_change=self._on_new_trust
        )
        self._canceller = Canceller(
            loop=loop,
            journal=self._journal,
            trust_frame=self._supervisor.trust_frame,
            clock=utc_now,
            on_cancelled=self._on_cancelled,
            count_silently=self._supervisor.count_silently,
        )
        self._handlers: Dict[str, Handler] = {
            ACTION: self._supervisor.submit,
            CANCEL: self._canceller.submit,
            TRUST: self._trust_intake.submit,
            NOTICE: self._take_notice,
        }

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or, when checking in, until there is nothing left to do."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._ioloop.add_callback_threadsafe(self._stop))
        self._audit.started(self._baked.version, self._baked.build)
        self._write_status()
        self._reconcile()
        if self._removal.is_confirmed:
            self._audit.close()
            return
        # The link first: the child may start while the broker answers.
        self._link.connect()
        self._supervisor.start()
        self._watch.start()
        if self._check_in:
            self._ioloop.call_later(1.0, self._end_check_in)
        self._ioloop.call_later(_SETTLED_S, give_back_free_memory)
        self._ioloop.start()

    def _reconcile(self) -> None:
        """Mark what is answered in the spool but not yet in the journal: a crash came between the two."""
        spooled = self._spool.answered_commands()
        for entry in self._journal.unanswered():
            if entry.command_id in spooled:
                self._journal.mark_answered(entry.digest, entry.occurrence)
        self._removal.recover(spooled, {entry.command_id for entry in self._journal.unanswered()})

    def _stop(self) -> None:
        _LOG.info("stopping")
        self._watch.close()
        self._supervisor.close()
        self._trust_intake.close()
        self._canceller.close()
        self._link.close()
        self._audit.close()
        self._write_status()
        # Leave the loop one turn to send the connection's close.
        self._ioloop.call_later(0.2, self._ioloop.stop)

    def _current_facts(self) -> Dict[str, Any]:
        if not self._facts:
            self._refresh_facts()
        return self._facts

    def _refresh_facts(self) -> None:
        self._facts = collect_facts(
            agent_id=self._identity.agent_id,
            version=self._baked.version,
            tags=self._baked.config.tags,
            modules=module_names(),
        )

    # -- commands and answers

    def _take_delivery(self, body: bytes, acknowledge: Callable[[], None]) -> None:
        if self._removal.is_confirmed:
            return  # nobody is obeyed any more
        self._quiet_since = time.monotonic()
        try:
            kind = peek_type(body)
        except InvalidInput:
            kind = ACTION
        # What is of no known type is counted, and acknowledged, by who expects actions.
        self._handlers.get(kind, self._supervisor.submit)(body, acknowledge)
        self._ioloop.call_later(_ANNOUNCE_AFTER_S, self._announce_running)

    def _take_notice(self, body: bytes, acknowledge: Callable[[], None]) -> None:
        """Remember what the server says of its log; the newest is chained at the next heartbeat."""
        try:
            notice = open_notice(body)
            self._audit.noticed(notice.head, server=notice.server, key_id=notice.key_id, time=notice.time)
        except InvalidInput as error:
            self._supervisor.count_silently(error.code)
        acknowledge()

    def _on_cancelled(self, stone: Tombstone) -> None:
        self._audit.cancelled(stone)
        self._supervisor.stop_cancelled(stone.digest)

    def _on_new_trust(self) -> None:
        mark, bundle = self._trust.held
        self._trust_expires = read_expiry(bundle)
        if mark is not None:
            self._audit.trusted(*mark)
        self._supervisor.renew_trust()
        self._canceller.renew_trust()
        # At once: a revocation is over when everyone is seen to have it.
        self._ioloop.call_later(0.0, self._send_heartbeat)

    def _trust_state(self) -> TrustState:
        """Return how it stands with trust; that a bundle has expired is logged once."""
        state = state_of_trust(
            self._baked, self._trust.held, self._trust_expires, self._supervisor.trust_refusal, utc_now()
        )
        if state.state == EXPIRED and state.version is not None and state.version != self._expired:
            self._expired = state.version
            _LOG.error("%s", state.describe())
            self._audit.trust_expired(state.version)
        return state

    def _announce_running(self) -> None:
        if self._journal.unanswered():
            self._send_heartbeat()

    def _sign(self, kind: str, payload: bytes) -> bytes:
        return encode_envelope(sign_envelope(self._identity.private_key, kind, payload))

    def _keep_answer(self, answer: Answer) -> None:
        """Sign an answer and spool it; where there is no room, keep it in memory and try again.

        Until then nothing else is run, so that memory does not fill in the disk's stead.
        """
        self._unspooled.append(answer)
        if self._spool_timer is None:
            self._spool_answers()

    def _spool_answers(self) -> None:
        self._spool_timer = None
        while self._unspooled:
            answer = self._unspooled[0]
            try:
                if not self._is_first_spooled:
                    self._removal.take(answer)
                    envelope = self._sign(answer.kind, answer.payload)
                    self._spool.put(answer.command_id, envelope, is_refusal=answer.is_refusal)
                    self._is_first_spooled = True
                if not answer.is_refusal:
                    self._journal.mark_answered(answer.digest, answer.occurrence)
            except EnvironmentFailure as error:
                said = {"command": answer.command_id, "reason": error, "again_in_s": _SPOOL_RETRY_S}
                _LOG.error("an answer cannot be kept", extra=said)
                self._spool_timer = self._ioloop.call_later(_SPOOL_RETRY_S, self._spool_answers)
                self._supervisor.pause()
                return
            self._unspooled.popleft()
            self._is_first_spooled = False
        self._supervisor.resume()
        self._publish_next()

    def _publish_next(self) -> None:
        """Publish the oldest answer in the spool; the next follows when this one is confirmed."""
        if self._publishing is not None or not self._link.is_ready:
            return
        names = self._spool.names()
        if not names:
            return
        self._publishing = names[0]
        body = self._spool.get(names[0]).body
        self._link.publish(result_key(self._identity.agent_id), body, self._on_published)

    def _on_published(self, confirmed: bool) -> None:  # noqa: FBT001  (the link's callback)
        name, self._publishing = self._publishing, None
        self._quiet_since = time.monotonic()
        if confirmed and name is not None:
            if self._removal.confirm(name):
                self._leave()
                return
            self._spool.remove(name)
            self._publish_next()
        elif self._link.is_ready:  # returned or refused: the broker has no room now
            self._ioloop.call_later(_SPOOL_RETRY_S, self._publish_next)

    def _leave(self) -> None:
        """Tell the server that this agent removes itself; then end, so that `run_resident` does it."""
        if self._removal.note is not None:
            self._audit.removing(self._removal.note.command)
        self._watch.close()
        self._supervisor.close()
        self._publish_heartbeat(lambda _confirmed: self._stop(), leaving=True)
        self._ioloop.call_later(_LEAVE_S, self._ioloop.stop)

    # -- heartbeats and status

    def _on_ready(self) -> None:
        # Again: on a busy machine the login, which takes the most, comes long after the start.
        self._ioloop.call_later(_SETTLED_S, give_back_free_memory)
        self._send_heartbeat()
        self._publish_next()
        self._watch.publish()

    def _schedule_heartbeat(self) -> None:
        if self._heartbeat_timer is not None:
            self._ioloop.remove_timeout(self._heartbeat_timer)
        # A tenth of jitter spreads a fleet that was started together.
        delay_s = self._baked.config.heartbeat_s * (0.95 + random.random() / 10)  # noqa: S311
        self._heartbeat_timer = self._ioloop.call_later(delay_s, self._send_heartbeat)

    def _send_heartbeat(self) -> None:
        self._schedule_heartbeat()
        self._write_status()
        if self._link.is_ready:
            self._refresh_facts()
            self._audit.settle(self._supervisor.refused_silently)
            self._publish_heartbeat()

    def _tell_progress(self) -> None:
        """Tell how far a command is: soon, and the more seldom the longer it takes already."""
        running = self._supervisor.running
        if running is None or not self._link.is_ready:
            return
        if time.monotonic() - self._told_progress >= max(_PROGRESS_S, running.elapsed_s / 5):
            self._publish_heartbeat()

    def _publish_heartbeat(
        self, done: Callable[[bool], None] = lambda _confirmed: None, *, leaving: bool = False
    ) -> None:
        self._told_progress = time.monotonic()
        payload = encode_heartbeat(
            self._current_facts(),
            now=utc_now(),
            started=self._started,
            commands=[entry.command_id for entry in self._journal.unanswered()],
            trust=self._trust_state(),
            server_heads=self._audit.server_heads,
            log_heads=self._audit.heads,
            running=self._supervisor.running,
            leaving=leaving,
        )
        envelope = self._sign(HEARTBEAT, payload)
        # The last one is not made anew: there is nobody left to make it.
        self._link.publish(heartbeat_key(self._identity.agent_id), envelope, done, lasting=leaving)

    def _write_status(self) -> None:
        status = {
            "agent": self._identity.agent_id,
            "version": self._baked.version,
            "build": self._baked.build,
            "started": format_time(self._started),
            "written": format_time(utc_now()),
            "broker": "connected" if self._link.is_ready else self._link.last_problem or "connecting",
            "trust": self._trust_state().describe(),
            "spooled_answers": len(self._spool.names()) + len(self._unspooled),
            **self._watch.status(),
        }
        try:
            write_atomically(self._directory / "status.json", json.dumps(status).encode())
        except EnvironmentFailure as error:
            _LOG.warning("the status cannot be written: %s", error)

    def _end_check_in(self) -> None:
        now = time.monotonic()
        is_quiet = now - self._quiet_since > _CHECK_IN_QUIET_S
        is_done = not (
            self._spool.names() or self._unspooled or self._journal.unanswered() or self._watch.waiting
        )
        if (self._link.is_ready and is_quiet and is_done) or now - self._quiet_since > _CHECK_IN_LONGEST_S:
            self._stop()
        else:
            self._ioloop.call_later(0.5, self._end_check_in)
