"""Takes deliveries, has each judged and run by a child of its own, and answers; one at a time, in order.

Rules:
1. Size and type are checked here before anything else; what is left is judged by a child
   (`agent.runtime.gate`).
2. A child that admits an action waits for permission: the journal's insert, on the disk, then the delivery's
   acknowledgement, then the record that it started; only then it may run.
3. Steps 1 to 3 refused: counted, logged at a limited rate, acknowledged, never answered. A later refusal is
   answered once for the same envelope. Neither enters the journal.
4. A delivery that the journal holds unanswered is acknowledged and no more; an answered one is `replayed`.
5. Where the journal cannot be written or no child can be started, the delivery stays unacknowledged and is
   tried again: nothing is lost and nothing runs.
6. Time is kept here: when it is over the child's whole group is killed and the answer says `timed-out`.
7. An answer that is sealed leaves the child a second time, encrypted; in the clear it goes nowhere else, and
   what ends the child before answers `failed`.
8. What a signer has cancelled is not run: one that runs is told to end, and killed when it does not, and the
   answer says `cancelled` with what was found so far; one that waits is refused when its turn comes.
9. A child that refused has run nothing and judges the next delivery, `_MOST_REFUSALS` at most.
10. At start, what the journal holds as `accepted` goes through the gate again; what was `started` is answered
   `interrupted` and never runs again.

Standard library only: the resident agent imports this module.
"""

import logging
from collections import deque
from datetime import datetime
from typing import Any, Callable, Deque, Dict, Optional, Set

from agent.config import Baked
from agent.runtime import frames
from agent.runtime.answers import NO_OCCURRENCE, Answer, Answers, Problem, explain_end
from agent.runtime.audit import AuditLog
from agent.runtime.delivery import Command
from agent.runtime.frames import Frame
from agent.runtime.journal import ACCEPTED, ANSWERED, STARTED, Journal, JournalEntry
from agent.runtime.launch import ChildProcess
from agent.runtime.loop import Loop
from agent.runtime.trust_store import NOTHING_HELD, Held, encode_trust
from agent.runtime.verdict import Verdict, decode_verdict
from protocol.envelope import ACTION, decode_envelope
from protocol.errors import CODES, EnvironmentFailure, InvalidInput
from protocol.names import command_id
from protocol.strictjson import decode_json, encode_json

__all__ = ["Answer", "Supervisor"]

_LOG = logging.getLogger("mig.agent.supervisor")
SEAL_S = 30.0  # encrypting takes milliseconds on an idle machine
JUDGE_S = 60.0  # importing, reading keys and judging take a fraction of a second on an idle machine
_MOST_REFUSALS = 64
GRACE_S = 2.0  # for a module that ends itself in time to send what it has
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0
_JUDGEMENTS = 2
_LAST_SILENT_STEP = 3
_STEP_OF_PERMISSION = 6  # decided here: the child has admitted it, and waits


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
    ) -> None:
        self._loop = loop
        self._journal = journal
        self._config = baked.config
        self._baked = baked
        self._held = held
        self._agent_id = agent_id
        self._sign_result = sign_result
        self._facts = facts
        self._clock = clock
        self._audit = audit
        self._answers = Answers(
            journal=journal, audit=audit, agent_id=agent_id, clock=clock, on_answer=on_answer
        )
        self._queue: Deque[Command] = deque()
        self._current: Optional[Command] = None
        self._child: Optional[ChildProcess] = None
        self._is_child_ready = False
        self._refusals = 0  # by this child
        self._ending: Set[ChildProcess] = set()
        self._timer: Any = None
        self._hold: Any = None
        self._retry_s = _FIRST_RETRY_S
        self._is_closed = False
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
        is_judging = self._current is not None and self._current.started is None
        waiting = [self._current, *self._queue] if self._current and is_judging else [*self._queue]
        return next((command for command in waiting if command.body == body), None)

    def trust_frame(self) -> bytes:
        """Return what a child is told of whom to obey now."""
        return encode_trust(self._baked, self._held(), self._clock())

    def renew_trust(self) -> None:
        """Obey the bundle of now: no child that knows an older one judges anything more.

        What is being judged is judged anew; what was permitted already goes on.
        """
        command = self._current
        if command is not None and command.started is not None:
            return
        self._release()
        if command is not None:
            command.judgements = 0
            self._queue.appendleft(command)
        self._next()

    def stop_cancelled(self, digest: str) -> None:
        """End what runs, if it is this action and a signer of it has cancelled it."""
        command = self._current
        if command is None or command.entry is None or command.started is None:
            return
        if command.is_cancelled or command.is_sealing:
            return
        if command.digest == digest and self._journal.is_cancelled(digest, command.entry.signers):
            command.is_cancelled = True
            self._cancel(self._timer)
            self._timer = self._loop.call_later(GRACE_S, lambda: self._finish_cancelled(command))
            if self._child is not None:
                self._child.interrupt()

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
        while self._queue and self._current is None and self._hold is None:
            command = self._queue.popleft()
            known = None if command.entry else self._journal.state_of(command.digest, NO_OCCURRENCE)
            if known == ANSWERED:
                self._refuse_replay(command)
            elif known is None:
                self._judge(command)
            else:
                command.acknowledge()
        if self._current is None and not self._config.warm_child:
            self._release()
        if self._config.warm_child and self._child is None and self._hold is None and not self._is_closed:
            self._start_child()

    def _judge(self, command: Command) -> None:
        if self._child is None and not self._start_child():
            self._queue.appendleft(command)
            return
        self._current = command
        command.judgements += 1
        told = {"now": self._clock().isoformat(), "facts": self._facts()}
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
        child, self._child = self._child, None
        if child is not None:
            self._ending.add(child)
            child.kill()

    def _go_on(self) -> None:
        self._release()
        self._next()

    def _try_later(self, command: Optional[Command], failure: EnvironmentFailure) -> None:
        """Put a command back to the front, unacknowledged if it was, and wait before anything is tried."""
        _LOG.warning("nothing can be run, trying again in %g s: %s", self._retry_s, failure)
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
                expect=frozenset({frames.READY, frames.VERDICT, frames.ANSWER, frames.SEALED}),
                on_frame=self._on_frame,
                on_end=lambda status: self._on_end(child, status),
            )
        except EnvironmentFailure as error:
            self._try_later(None, error)
            return False
        self._child = child
        self._send(frames.TRUST, self.trust_frame())
        return True

    def _on_frame(self, frame: Frame) -> None:
        command = self._current
        if frame.kind == frames.READY:
            self._is_child_ready = True
            self._read_ready(frame.body)
            self.failure = None
            self._retry_s = _FIRST_RETRY_S
        elif command is not None and frame.kind == frames.VERDICT and command.started is None:
            self._on_verdict(command, frame.body)
        elif command is not None and command.started is not None and self._is_next(command, frame.kind):
            self._take_answer(command, frame)
        elif self._child is not None:
            self._child.kill()  # out of order: its end is dealt with as any other

    def _is_next(self, command: Command, kind: bytes) -> bool:
        return kind == (frames.SEALED if command.is_sealing else frames.ANSWER)

    def _take_answer(self, command: Command, frame: Frame) -> None:
        """Answer with what the child says; what is to be sealed is signed, and goes back to be encrypted."""
        entry = command.entry
        if command.is_sealing:
            self._finish(command, _status(command), sealed=frame.body)
        elif entry is not None and command.sealed_to and self._sign_result is not None:
            command.is_sealing = True
            self._cancel(self._timer)
            self._timer = self._loop.call_later(SEAL_S, lambda: self._on_slow_sealing(command))
            started = command.started or self._clock()
            result = self._answers.compose(entry, started, _status(command), None, frame.body)
            self._send(frames.SEAL, self._sign_result(result))
        else:
            self._finish(command, _status(command), results=frame.body)

    def _on_slow_sealing(self, command: Command) -> None:
        self._timer = None
        self._finish(command, "failed", Problem("cannot-seal", 0, f"not encrypted within {SEAL_S:g} s"))

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
        command = self._current
        _LOG.warning("a child ended by itself: status %s, %s", status, child.complaint or "no complaint")
        if command is None or not self._is_child_ready:
            self._try_later(command, EnvironmentFailure("child-failed", "a child did not start"))
        elif command.started is None:
            self._judge_again(command)
        elif command.is_cancelled:
            self._finish_cancelled(command)
        else:
            self._finish(command, "failed", explain_end(status, self._config.limits.cpu_s))

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
        elif command.entry is not None:
            self._current = command
            self._finish(command, "failed", Problem("child-failed", 0, "judging it ended the child"))
        else:
            self._answers.count_silently("child-failed")
            command.acknowledge()
            self._next()

    # -- verdicts and answers -----------------------------------------------------------------------------

    def _on_verdict(self, command: Command, body: bytes) -> None:
        try:
            verdict = decode_verdict(body)
        except InvalidInput as error:
            _LOG.error("a child's verdict cannot be read: %s", error)
            self._judge_again(command)
            return
        if verdict.problem is not None:
            self._refuse(command, verdict.problem, verdict.action_id, verdict.occurrence)
        else:
            command.sealed_to = verdict.sealed_to
            self._permit(command, self._make_entry(command, verdict))

    def _make_entry(self, command: Command, verdict: Verdict) -> JournalEntry:
        return JournalEntry(
            digest=command.digest,
            occurrence=verdict.occurrence,
            command_id=command_id(verdict.action_id, self._agent_id, verdict.occurrence),
            action_id=verdict.action_id,
            name=verdict.name,
            signers=verdict.signers,
            modules=verdict.modules,
            expireafter=verdict.expireafter,
            envelope=command.body,
        )

    def _permit(self, command: Command, entry: JournalEntry) -> None:
        """Step 6 and rule 2: what is on the disk, and only that, may run."""
        try:
            if command.entry is None:
                if not self._journal.insert(entry):
                    self._refuse_known(command, entry)
                    return
                command.entry = entry
            command.acknowledge()
            self._require_unchanged(command.entry, entry)
            self._journal.mark_started(*entry.key)
        except InvalidInput as error:
            self._refuse(command, Problem(error.code, 6, error.detail), entry.action_id, entry.occurrence)
            return
        except EnvironmentFailure as error:
            self._try_later(command, error)
            return
        self._audit.asked(entry, command.body)
        command.started = self._clock()
        self._cancel(self._timer)
        limit_s = self._config.limits.wall_s + GRACE_S
        self._timer = self._loop.call_later(limit_s, lambda: self._on_time_over(command))
        _LOG.info("running command %s of action %s", entry.command_id, entry.action_id)
        self._send(frames.PERMIT)

    def _require_unchanged(self, accepted: JournalEntry, entry: JournalEntry) -> None:
        """Raise where what was accepted before a crash may not be run any more, although it passed again."""
        if accepted.occurrence != entry.occurrence:
            raise InvalidInput("not-due", f"a later occurrence than {accepted.occurrence} is due")
        if self._journal.is_cancelled(entry.digest, entry.signers):
            raise InvalidInput("cancelled")

    def _refuse_known(self, command: Command, entry: JournalEntry) -> None:
        """An occurrence that the journal holds: one without an answer gets one anyway."""
        if self._journal.state_of(*entry.key) == ANSWERED:
            problem = Problem("replayed", 6, CODES["replayed"].text)
            self._answers.refuse(command.body, command.digest, problem, entry.action_id, entry.occurrence)
        command.acknowledge()
        self._go_on()

    def _finish_cancelled(self, command: Command) -> None:
        problem = Problem("cancelled", 0, "it did not end when it was told to, and was killed")
        self._finish(command, "cancelled", problem)

    def _on_time_over(self, command: Command) -> None:
        self._timer = None
        detail = f"killed after {self._config.limits.wall_s} s"
        self._finish(command, "timed-out", Problem("timed-out", 0, detail))

    def _finish(
        self,
        command: Command,
        status: str,
        problem: Optional[Problem] = None,
        results: bytes = b"",
        sealed: bytes = b"",
    ) -> None:
        """Answer a command that stands in the journal, and go on."""
        entry = command.entry
        if entry is None:
            raise ValueError("a command that is not in the journal cannot have run")
        command.acknowledge()
        self._release()
        if sealed:
            self._answers.answer_sealed(entry, status, command.sealed_to, sealed)
        else:
            self._answers.answer(entry, command.started or self._clock(), status, problem, results)
        self._next()

    def _refuse_replay(self, command: Command) -> None:
        # These very bytes passed the gate once, so their id has its shape.
        action_id = decode_json(decode_envelope(command.body, ACTION).payload)["id"]
        self._answers.refuse(
            command.body, command.digest, Problem("replayed", 6, CODES["replayed"].text), action_id
        )
        command.acknowledge()

    def _refuse(self, command: Command, problem: Problem, action_id: str, occurrence: str) -> None:
        if command.entry is not None:
            self._finish(command, "cancelled" if problem.code == "cancelled" else "refused", problem)
            return
        if problem.step <= _LAST_SILENT_STEP or not action_id:
            self._answers.count_silently(problem.code)
        else:
            self._answers.refuse(command.body, command.digest, problem, action_id, occurrence)
        command.acknowledge()
        self._refusals += 1
        if problem.step == _STEP_OF_PERMISSION or self._refusals >= _MOST_REFUSALS:
            self._go_on()
            return
        self._cancel(self._timer)
        self._timer = self._current = None
        self._next()


def _status(command: Command) -> str:
    """Return how a command whose child answered has ended."""
    return "cancelled" if command.is_cancelled else "done"
