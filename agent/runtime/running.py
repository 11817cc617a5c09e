"""One command that runs: what its child says, its time, its cancel, and the one answer that it ends with.

Rules:
1. Time is kept here: when it is over the child's whole group is killed and the answer says `timed-out`.
2. An answer that is sealed leaves the child a second time, encrypted; in the clear it goes nowhere else, and
   what ends the child before answers `failed`.
3. One that is cancelled is told to end, and killed when it does not; the answer says `cancelled`, with what
   was found so far.
4. What the child says is bytes: an answer is not read here. A frame out of order ends the child, and so does
   more progress than one that keeps to its pace could make.

Standard library only: the resident agent imports this module.
"""

import logging
from datetime import datetime
from typing import Any, Callable, Optional

from agent.config import AgentLimits
from agent.progress import EVERY_S, RunningCommand, decode_progress
from agent.runtime import frames
from agent.runtime.answers import Answers, Problem, explain_end
from agent.runtime.delivery import Command
from agent.runtime.frames import Frame
from agent.runtime.journal import JournalEntry
from agent.runtime.launch import ChildProcess
from agent.runtime.loop import Loop

_LOG = logging.getLogger("mig.agent.running")
SEAL_S = 30.0  # encrypting takes milliseconds on an idle machine
GRACE_S = 2.0  # for a module that ends itself in time to send what it has


class Running:
    """A command from its permission to its answer.

    Args:
        command: permitted, with its entry in the journal.
        child: has admitted it, and waits for the permission.
        loop: keeps the time.
        limits: how long it may take.
        answers: takes the answer.
        clock: now, aware UTC.
        sign_result: makes the signed envelope of a result that is to be sealed; None seals nothing.
        release: ends the child; called before the answer is composed.
        on_progress: called when the child has said how far it is.
        on_done: called once, after the answer.

    """

    def __init__(
        self,
        command: Command,
        child: ChildProcess,
        *,
        loop: Loop,
        limits: AgentLimits,
        answers: Answers,
        clock: Callable[[], datetime],
        sign_result: Optional[Callable[[bytes], bytes]],
        release: Callable[[], None],
        on_progress: Callable[[], None],
        on_done: Callable[[], None],
    ) -> None:
        if command.entry is None:
            raise ValueError("a command that is not in the journal cannot run")
        self.entry: JournalEntry = command.entry
        self._sealed_to = command.sealed_to if sign_result is not None else ()
        self._child = child
        self._loop = loop
        self._limits = limits
        self._answers = answers
        self._clock = clock
        self._sign_result = sign_result
        self._release = release
        self._on_progress = on_progress
        self._on_done = on_done
        self._is_cancelled = self._is_sealing = False
        self._progress = b""
        # A child speaks at most once in EVERY_S, and lives little longer than its time.
        self._progress_left = int((limits.wall_s + 2 * GRACE_S) / EVERY_S)
        self._started = clock()
        self._timer: Any = loop.call_later(limits.wall_s + GRACE_S, self._on_time_over)
        _LOG.info("running", extra={"command": self.entry.command_id, "action": self.entry.action_id})
        child.send(frames.PERMIT)

    def take(self, frame: Frame) -> None:
        """Answer with what the child says; what is to be sealed is signed, and goes back to be encrypted."""
        if frame.kind == frames.PROGRESS and self._progress_left and not self._sealed_to:
            self._progress_left -= 1
            self._progress = frame.body
            self._on_progress()
        elif frame.kind != (frames.SEALED if self._is_sealing else frames.ANSWER):
            self._child.kill()  # its end is dealt with as any other
        elif self._is_sealing:
            self._finish(self._status, sealed=frame.body)
        elif self._sealed_to and self._sign_result is not None:
            self._is_sealing = True
            self._start_timer(SEAL_S, self._on_slow_sealing)
            result = self._answers.compose(self.entry, self._started, self._status, None, frame.body)
            self._child.send(frames.SEAL, self._sign_result(result))
        else:
            self._finish(self._status, results=frame.body)

    def cancel(self) -> None:
        """Tell the child to end with what it has; soon it is killed."""
        if self._is_cancelled or self._is_sealing:
            return
        self._is_cancelled = True
        self._start_timer(GRACE_S, self._on_slow_cancel)
        self._child.interrupt()

    def end(self, status: Optional[int]) -> None:
        """Answer for a child that has ended by itself, with this exit status."""
        if self._is_cancelled:
            self._on_slow_cancel()
        else:
            self._finish("failed", explain_end(status, self._limits.cpu_s))

    def account(self) -> RunningCommand:
        """Return how far the command is, as its child says."""
        elapsed_s = max(0.0, (self._clock() - self._started).total_seconds())
        return RunningCommand(self.entry.command_id, elapsed_s, decode_progress(self._progress))

    def abandon(self) -> None:
        """Answer nothing: the agent ends, and its next start says that this was interrupted."""
        self._loop.cancel(self._timer)

    @property
    def _status(self) -> str:
        """How a command whose child answered has ended."""
        return "cancelled" if self._is_cancelled else "done"

    def _start_timer(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._loop.cancel(self._timer)
        self._timer = self._loop.call_later(delay_s, callback)

    def _on_time_over(self) -> None:
        detail = f"killed after {self._limits.wall_s} s"
        self._finish("timed-out", Problem("timed-out", 0, detail))

    def _on_slow_sealing(self) -> None:
        self._finish("failed", Problem("cannot-seal", 0, f"not encrypted within {SEAL_S:g} s"))

    def _on_slow_cancel(self) -> None:
        problem = Problem("cancelled", 0, "it did not end when it was told to, and was killed")
        self._finish("cancelled", problem)

    def _finish(
        self, status: str, problem: Optional[Problem] = None, results: bytes = b"", sealed: bytes = b""
    ) -> None:
        self._loop.cancel(self._timer)
        self._release()
        if sealed:
            self._answers.answer_sealed(self.entry, status, self._sealed_to, sealed)
        else:
            self._answers.answer(self.entry, self._started, status, problem, results)
        self._on_done()
