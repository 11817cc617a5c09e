"""Runs the operations of an admitted action: side by side as far as the endpoint allows, answered in order.

Rules:
1. At most `concurrent_operations` run at once. One alone, or an endpoint that allows one, needs no further
   process; else each runs in a forked one of its own, and what ends such a process costs that operation only.
2. What depends on an earlier operation (`agent.conditions`) is judged when that has ended.
3. They share the time and the scan's budget; their answers together fit into one frame, cut in order, so that
   the answer does not depend on which was done first. Limits of memory and processor time are each process's.
4. To be cancelled ends all that run, with what they found, and starts no more.
"""

import contextlib
import os
import select
import signal
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, NoReturn, Optional

import msgspec

from agent.answer import LEAST_BYTES, encode_result
from agent.conditions import not_run
from agent.execute import run_operation
from agent.module import Budget, Context, Limits
from agent.progress import Reporter, decode_progress
from agent.runtime import frames
from agent.runtime.gate import Admission
from agent.runtime.trust import Trust
from protocol.errors import InvalidInput
from protocol.result import OperationResult

Report = Callable[[int, Mapping[str, Any]], None]
_ROOM = frames.MAX_ANSWER_BYTES - 2  # the brackets of the list
_CRASHED = 70  # EX_SOFTWARE of sysexits(3)
_TOLD = frozenset({frames.PROGRESS, frames.ANSWER})


class Cancelled:
    """Whether the resident has told the operations to end, by SIGTERM, and who else is to be told then."""

    def __init__(self) -> None:
        self._is_set = False
        self.processes: Dict[int, int] = {}

    def listen(self) -> None:
        """Take SIGTERM from now on."""
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._set())

    def _set(self) -> None:
        self._is_set = True
        for pid in list(self.processes):
            os.kill(pid, signal.SIGTERM)

    def __call__(self) -> bool:
        """Ask."""
        return self._is_set


class _Running(NamedTuple):
    """An operation that runs in a process of its own, and the end of the pipe that it speaks into."""

    number: int
    pid: int
    reader: frames.FrameReader
    told: List[bytes]


class Operations:
    """The operations of one action, and how far they are.

    Args:
        admission: what the gate let in.
        trust: limits, budget and digest cache of this endpoint.
        told: what the resident tells of this endpoint: `facts`, and `watchers`, how they are.
        cancelled: listens already.
        report: takes the number of an operation and what it has counted.

    """

    def __init__(
        self,
        admission: Admission,
        *,
        trust: Trust,
        told: Dict[str, Any],
        cancelled: Cancelled,
        report: Report,
    ) -> None:
        self._operations = admission.action.operations
        self._paths = admission.paths
        self._trust = trust
        self._told = told
        self._cancelled = cancelled
        self._report = report
        self._end = time.monotonic() + trust.limits.wall_s
        self._slots = min(trust.limits.concurrent_operations, len(self._operations))
        self._results: List[Optional[OperationResult]] = [None] * len(self._operations)
        self._waiting = list(range(len(self._operations)))
        self._running: Dict[int, _Running] = {}

    def run(self) -> bytes:
        """Run all and return the list of their results as JSON that fits into a frame."""
        while True:
            self._start_what_may()
            if not self._running:
                break
            ready, _, _ = select.select(list(self._running), [], [])
            for descriptor in ready:
                self._hear(descriptor)
        return self._encode()

    def _start_what_may(self) -> None:
        for index in list(self._waiting):
            operation = self._operations[index]
            needed = operation.depends_on(index)
            if needed is not None and self._results[needed] is None:
                continue
            result = self._without_running(index)
            if result is None and len(self._running) >= self._slots:
                continue
            self._waiting.remove(index)
            if result is None and self._slots > 1:
                self._fork(index)
            else:
                self._results[index] = result or self._run_one(index, self._report)
        # What was settled here may be what another waits for.
        if not self._running and self._waiting:
            self._start_what_may()

    def _without_running(self, index: int) -> Optional[OperationResult]:
        if self._cancelled():
            return OperationResult(found=False, status="cancelled", notes=("not started",), truncated=True)
        return not_run(self._operations[index], index, self._results)

    def _run_one(self, index: int, report: Report) -> OperationResult:
        trust, operation = self._trust, self._operations[index]
        room = _ROOM - (len(self._operations) - 1) * LEAST_BYTES
        context = Context(
            limits=Limits(
                wall_s=self._end - time.monotonic(),
                max_records=trust.limits.max_records,
                output_bytes=room * 9 // 10,
            ),
            facts=self._told["facts"],
            paths=self._paths[index],
            budget=_share(trust.budget, self._slots),
            digest_cache=trust.digest_cache,
            watchers=self._told["watchers"],
            is_cancelled=self._cancelled,
            on_progress=lambda statistics: report(index, statistics),
        )
        return run_operation(operation.module, operation.parameters, context)

    def _encode(self) -> bytes:
        """Give each answer what those before it left, and those behind it the least that they need."""
        answers: List[bytes] = []
        room = _ROOM
        for done, result in enumerate(self._results, start=1):
            assert result is not None  # noqa: S101  (each was run or settled)
            answers.append(encode_result(result, room - (len(self._results) - done) * LEAST_BYTES))
            room -= len(answers[-1]) + 1
        return b"[" + b",".join(answers) + b"]"

    # -- operations in processes of their own

    def _fork(self, index: int) -> None:
        reader, writer = os.pipe()
        # A SIGTERM that comes in between would miss the new process.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = os.fork()
        if pid == 0:
            self._serve(index, writer, held)
        self._cancelled.processes[pid] = index
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        os.close(writer)
        self._running[reader] = _Running(index, pid, frames.FrameReader(_TOLD), [])

    def _serve(self, index: int, writer: int, held: Any) -> NoReturn:
        """Be the process of one operation: never return into the caller's code."""
        status = _CRASHED
        try:
            self._cancelled.processes.clear()
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            # A worker that the module forks must neither speak for it nor hold the pipe open.
            os.register_at_fork(after_in_child=lambda: _close_quietly(writer))
            reporter = Reporter(lambda said: frames.write_frame(writer, frames.PROGRESS, said))
            result = self._run_one(index, reporter.report)
            answer = encode_result(result, _ROOM - (len(self._operations) - 1) * LEAST_BYTES)
            frames.write_frame(writer, frames.ANSWER, answer)
            status = 0
        finally:
            # No finalisers, and no trace on a standard error that is the resident's.
            os._exit(status)

    def _hear(self, descriptor: int) -> None:
        running = self._running[descriptor]
        data = os.read(descriptor, frames.READ_BYTES)
        if not data:
            self._settle(descriptor, running)
            return
        try:
            for frame in running.reader.feed(data):
                progress = decode_progress(frame.body) if frame.kind == frames.PROGRESS else None
                if progress is not None:
                    self._report(running.number, progress.statistics)
                elif frame.kind == frames.ANSWER:
                    running.told.append(frame.body)
        except InvalidInput:
            # What speaks out of turn is no answer; it is ended, and its end said.
            os.kill(running.pid, signal.SIGKILL)

    def _settle(self, descriptor: int, running: _Running) -> None:
        os.close(descriptor)
        del self._running[descriptor]
        _, status = os.waitpid(running.pid, 0)
        del self._cancelled.processes[running.pid]
        ended = os.waitstatus_to_exitcode(status)
        if running.told and ended == 0:
            self._results[running.number] = msgspec.json.decode(running.told[0], type=OperationResult)
        else:
            note = f"the process that ran it ended with {ended}"
            self._results[running.number] = OperationResult(
                found=False, status="failed", notes=(note,), truncated=True
            )


def _share(budget: Budget, slots: int) -> Budget:
    """Return what each of so many operations may take, so that together they keep to the budget."""
    return Budget(*(max(1, bound // slots) if bound else 0 for bound in budget))


def _close_quietly(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
