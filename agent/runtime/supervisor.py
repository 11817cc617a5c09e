"""Takes deliveries, has each judged and run by a child of its own, and answers; one at a time, in order.

Rules:
1. Size and type are checked here before anything else; what is left is judged by a child
   (`agent.runtime.gate`), and what follows from its verdict is decided beside the journal
   (`agent.runtime.judging`). What is permitted runs (`agent.runtime.running`).
2. Where the journal cannot be written or no child can be started, the delivery stays unacknowledged and is
   tried again: nothing is lost and nothing runs.
3. What a signer has cancelled is not run: one that runs is told to end; one that waits is refused when its
   turn comes.
4. A child that refused has run nothing and judges the next delivery, `_MOST_REFUSALS` at most.
5. At start, what the journal holds as `accepted` goes through the gate again; what was `started` is answered
   `interrupted` and never runs again.

Standard library only: the resident agent imports this module.
"""

import logging
from collections import deque
from datetime import datetime
from typing import Any, Callable, Deque, Dict, Optional, Set

from agent.config import Baked
from agent.progress import RunningCommand
from agent.runtime import frames
from agent.runtime.answers import NO_OCCURRENCE, Answer, Answers
from agent.runtime.audit import AuditLog
from agent.runtime.delivery import Command
from agent.runtime.frames import Frame
from agent.runtime.journal import ACCEPTED, ANSWERED, STARTED, Journal
from agent.runtime.judging import Judge, Judged
from agent.runtime.launch import ChildProcess
from agent.runtime.loop import Loop
from agent.runtime.running import Running
from agent.runtime.trust_store import NOTHING_HELD, Held, encode_trust
from protocol.envelope import ACTION, decode_envelope
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.strictjson import decode_json, encode_json

__all__ = ["Answer", "Supervisor"]

_LOG = logging.getLogger("mig.agent.supervisor")
JUDGE_S = 60.0  # importing, reading keys and judging take a fraction of a second on an idle machine
_MOST_REFUSALS = 64
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0
_JUDGEMENTS = 2
_FROM_CHILD = frozenset({frames.READY, frames.VERDICT, frames.PROGRESS, frames.ANSWER, frames.SEALED})


class Supervisor:
    """Runs the commands of one agent.

    Args:
        loop: the process's event loop.
        journal: open for writing; nobody else inserts into it.
        baked: whom to obey, and limits.
        agent_id: this agent's id.
        facts: the endpoint's facts of now, for target and modules.
        clock: now, aware UTC.
        held: the stored trust bundle of now; without it, an agent with roots obeys nobody.
        on_answer: takes each answer; signs and spools it, and then has the journal mark the command answered
            unless `is_refusal`. It must not raise.
        audit: the machine's own log.
        sign_result: makes the signed envelope of a result that is to be sealed; None where answers go
            nowhere, and nothing is sealed.
        on_progress: called when what runs has said how far it is; `running` then tells.
        digest_cache: an open descriptor of it, lent to children; it stays the caller's.
        watchers: how persistent modules are now; None where this is not the resident.

    """

    def __init__(
        self,
        *,
        loop: Loop,
        journal: Journal,
        baked: Baked,
        agent_id: str,
        facts: Callable[[], Dict[str, Any]],
        clock: Callable[[], datetime],
        on_answer: Callable[[Answer], None],
        audit: AuditLog,
        sign_result: Optional[Callable[[bytes], bytes]] = None,
        held: Callable[[], Held] = lambda: NOTHING_HELD,
        on_progress: Callable[[], None] = lambda: None,
        digest_cache: Optional[int] = None,
        watchers: Callable[[], Optional[Dict[str, Any]]] = lambda: None,
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._config = baked.config
        self._baked = baked
        self._held = held
        self._digest_cache = digest_cache
        self._sign_result = sign_result
        self._on_progress = on_progress
        self._facts = facts
        self._watchers = watchers
        self._clock = clock
        self._answers = Answers(
            journal=journal, audit=audit, agent_id=agent_id, clock=clock, on_answer=on_answer
        )
        self._judge = Judge(
            journal=journal, audit=audit, answers=self._answers, agent_id=agent_id, clock=clock
        )
        self._queue: Deque[Command] = deque()
        self._current: Optional[Command] = None
        self._running: Optional[Running] = None  # the current command, once it is permitted
        self._child: Optional[ChildProcess] = None
        self._is_child_ready = False
        self._refusals = 0  # by this child
        self._ending: Set[ChildProcess] = set()
        self._timer: Any = None
        self._hold: Any = None
        self._retry_s = _FIRST_RETRY_S
        self._is_closed = False
        self._is_paused = False
        self.failure: Optional[EnvironmentFailure] = None  # why nothing can be run for now
        self.trust_refusal = ""  # why nobody is obeyed, as the last child said

    @property
    def refused_silently(self) -> int:
        """How many deliveries were refused that nobody trusted had signed."""
        return self._answers.refused_silently

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do: no command under way and none waiting."""
        return self._current is None and not self._queue

    @property
    def running(self) -> Optional[RunningCommand]:
        """What runs now, and how far it is."""
        return None if self._running is None else self._running.account()

    # -- what the link calls ------------------------------------------------------------------------------

    def start(self) -> None:
        """Deal with what a crash left in the journal, and start the warm child."""
        for entry in self._journal.unanswered():
            if entry.state == ACCEPTED:
                self._queue.append(Command(entry.envelope, entry.digest, entry))
            else:
                self._answers.interrupt(entry)
        self._next()

    def submit(self, body: bytes, acknowledge: Callable[[], None]) -> None:
        """Take one delivery; `acknowledge` is called once: when it is refused, known, or in the journal."""
        try:
            digest = decode_envelope(body, ACTION).digest
        except InvalidInput as error:
            self._answers.count_silently(error.code)
            acknowledge()
            return
        if self._journal.state_of(digest, NO_OCCURRENCE) in {ACCEPTED, STARTED}:
            acknowledge()
            return
        command = self._find_waiting(body)
        if command is None:
            command = Command(body, digest)
            self._queue.append(command)
        command.acknowledgements.append(acknowledge)
        self._next()

    def _find_waiting(self, body: bytes) -> Optional[Command]:
        """Return the command of these very bytes that waits or is being judged: it was delivered before."""
        is_judging = self._current is not None and self._running is None
        waiting = [self._current, *self._queue] if self._current and is_judging else [*self._queue]
        return next((command for command in waiting if command.body == body), None)

    def trust_frame(self) -> bytes:
        """Return what a child is told of whom to obey now."""
        return encode_trust(self._baked, self._held(), self._clock())

    def renew_trust(self) -> None:
        """Obey the bundle of now: no child that knows an older one judges anything more.

        What is being judged is judged anew; what was permitted already goes on.
        """
        if self._running is not None:
            return
        command = self._current
        self._release()
        if command is not None:
            command.judgements = 0
            self._queue.appendleft(command)
        self._next()

    def stop_cancelled(self, digest: str) -> None:
        """End what runs, if it is this action and a signer of it has cancelled it."""
        running = self._running
        if running is None or running.entry.digest != digest:
            return
        if self._journal.is_cancelled(digest, running.entry.signers):
            running.cancel()

    def pause(self) -> None:
        """Begin nothing more until `resume`: answers have nowhere to go. What waits stays unacknowledged."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        if self._is_paused:
            self._is_paused = False
            self._next()

    def count_silently(self, code: str) -> None:
        """Count a delivery of another type that nobody trusted had signed."""
        self._answers.count_silently(code)

    def close(self) -> None:
        """Kill the child and take nothing more; what ran is answered `interrupted` by the next start."""
        self._is_closed = True
        self._queue.clear()
        self._cancel(self._hold)
        self._release()
        for child in list(self._ending):
            child.end()

    # -- one command after the other ----------------------------------------------------------------------

    def _next(self) -> None:
        """Take the next command, if none is under way, and keep a child warm."""
        while self._queue and self._current is None and self._hold is None and not self._is_paused:
            command = self._queue.popleft()
            known = None if command.entry else self._journal.state_of(command.digest, NO_OCCURRENCE)
            if known == ANSWERED:
                self._judge.refuse_replay(command)
            elif known is None:
                self._have_judged(command)
            else:
                command.acknowledge()
        if self._current is None and not self._config.warm_child:
            self._release()
        if self._config.warm_child and self._child is None and self._hold is None and not self._is_closed:
            self._start_child()

    def _have_judged(self, command: Command) -> None:
        if self._child is None and not self._start_child():
            self._queue.appendleft(command)
            return
        self._current = command
        command.judgements += 1
        told = {"now": self._clock().isoformat(), "facts": self._facts(), "watchers": self._watchers()}
        self._timer = self._loop.call_later(JUDGE_S, self._on_slow_judgement)
        self._send(frames.FACTS, encode_json(told))
        self._send(frames.ENVELOPE, command.body)

    def _send(self, kind: bytes, body: bytes = b"") -> None:
        if self._child is not None:
            self._child.send(kind, body)

    def _release(self) -> None:
        """Be done with the current command and its child."""
        self._cancel(self._timer)
        self._timer = self._current = None
        if self._running is not None:
            self._running.abandon()
        self._running = None
        child, self._child = self._child, None
        if child is not None:
            self._ending.add(child)
            child.kill()

    def _try_later(self, command: Optional[Command], failure: EnvironmentFailure) -> None:
        """Put a command back to the front, unacknowledged if it was, and wait before anything is tried."""
        said = {"command": command.entry.command_id} if command is not None and command.entry else {}
        wait = {"reason": failure, "again_in_s": self._retry_s}
        _LOG.warning("nothing can be run", extra={**said, **wait})
        self.failure = failure
        self._release()
        if command is not None:
            command.judgements = 0
            self._queue.appendleft(command)
        self._hold = self._loop.call_later(self._retry_s, self._resume)
        self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)

    def _resume(self) -> None:
        self._hold = None
        self._next()

    def _cancel(self, handle: Any) -> None:
        if handle is not None:
            self._loop.cancel(handle)

    # -- the child ----------------------------------------------------------------------------------------

    def _start_child(self) -> bool:
        self._is_child_ready = False
        self._refusals = 0
        try:
            child = ChildProcess(
                loop=self._loop,
                expect=_FROM_CHILD,
                on_frame=self._on_frame,
                on_end=lambda status: self._on_end(child, status),
                lent=() if self._digest_cache is None else (self._digest_cache,),
            )
        except EnvironmentFailure as error:
            self._try_later(None, error)
            return False
        self._child = child
        told = encode_trust(self._baked, self._held(), self._clock(), digest_cache=self._digest_cache)
        self._send(frames.TRUST, told)
        return True

    def _on_frame(self, frame: Frame) -> None:
        command = self._current
        if frame.kind == frames.READY:
            self._is_child_ready = True
            self._read_ready(frame.body)
            self.failure = None
            self._retry_s = _FIRST_RETRY_S
        elif self._running is not None:
            self._running.take(frame)
        elif command is not None and frame.kind == frames.VERDICT:
            self._take_verdict(command, frame.body)
        elif self._child is not None:
            self._child.kill()  # out of order: its end is dealt with as any other

    def _take_verdict(self, command: Command, said: bytes) -> None:
        try:
            judged = self._judge.judge(command, said)
        except EnvironmentFailure as error:
            self._try_later(command, error)
            return
        if judged is Judged.PERMITTED:
            self._run(command)
        elif judged is Judged.UNREADABLE:
            self._judge_again(command)
        else:
            self._refusals += 1
            if judged is Judged.SETTLED or self._refusals >= _MOST_REFUSALS:
                self._release()
            self._cancel(self._timer)
            self._timer = self._current = None
            self._next()

    def _run(self, command: Command) -> None:
        if self._child is None:
            raise ValueError("a verdict without a child")
        self._cancel(self._timer)
        self._timer = None
        self._running = Running(
            command,
            self._child,
            loop=self._loop,
            limits=self._config.limits,
            answers=self._answers,
            clock=self._clock,
            sign_result=self._sign_result,
            release=self._release,
            on_progress=self._on_progress,
            on_done=self._next,
        )

    def _read_ready(self, body: bytes) -> None:
        told = decode_json(body)
        refusal = told.get("refusal") if isinstance(told, dict) else None
        if not isinstance(refusal, str):
            raise InvalidInput("bad-document", "a child does not say whom it obeys")
        if refusal and self.trust_refusal != refusal:
            _LOG.error("nobody is obeyed: %s", refusal)
        self.trust_refusal = refusal

    def _on_end(self, child: ChildProcess, status: Optional[int]) -> None:
        """Deal with the end of a child that nobody here ended."""
        self._ending.discard(child)
        if child is not self._child:
            return
        self._child = None
        command = self._current
        said: Dict[str, Any] = {"status": status, "complaint": child.complaint or "none"}
        if command is not None and command.entry is not None:
            said.update(command=command.entry.command_id, action=command.entry.action_id)
        _LOG.warning("a child ended by itself", extra=said)
        if command is None or not self._is_child_ready:
            self._try_later(command, EnvironmentFailure("child-failed", "a child did not start"))
        elif self._running is not None:
            self._running.end(status)
        else:
            self._judge_again(command)

    def _on_slow_judgement(self) -> None:
        self._timer = None
        if self._current is None:
            return
        if self._is_child_ready:
            self._judge_again(self._current)
        else:
            self._try_later(
                self._current, EnvironmentFailure("child-failed", "a child did not start in time")
            )

    def _judge_again(self, command: Command) -> None:
        """Give a command whose judging ended the child one more, then drop it: it must not come for ever."""
        self._release()
        if command.judgements < _JUDGEMENTS:
            self._queue.appendleft(command)
            self._next()
        else:
            self._judge.give_up(command)
            self._next()
