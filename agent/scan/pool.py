"""The workers of a scan: forked when a scan turns out to be large, fed, listened to, replaced when they die.

Rules:

* Each worker has a pair of sockets of its own and a few tasks waiting on it, so that a death is known by its
  worker, with all that it had.
* A worker that dies is replaced, and what it had is judged again, but for the entry that it was at: that is
  named in the coverage as lost. Had the entry been mapped into memory it is tried once more by plain reading,
  since truncating such a file kills whoever maps it.
* After `MAX_DEATHS` the scan ends with what it has, and says so.
* A large file is a task of its own, for a worker that has nothing else waiting.
* Outstanding work is bounded: directories by what a process may hold open, batches by `agent.scan.settling`.
"""

import contextlib
import mmap
import os
import resource
import select
import signal
import socket
from collections import deque
from typing import Deque, Dict, List, NamedTuple, Tuple

import msgspec

from agent.platform.limits import yield_as_a_session
from agent.scan.items import Event, Item, Part
from agent.scan.messages import MAX_PARTS, MAX_TASK_BYTES, Reply, ReplyReader, Task, encode_task, send_task
from agent.scan.roots import join
from agent.scan.turns import PoolFailure, Turn, alone
from agent.scan.worker import (
    ENTRY,
    LISTED_BYTES,
    MAPPED,
    PART,
    READ,
    TASK,
    WORDS,
    MakeInspector,
    MakeThrottle,
    Words,
    be_worker,
)

MAX_DEATHS = 24
# A task costs as much as some fifty files to look at: it is for many, and fewer where a worker has nothing.
TASK_NAMES = 1024
FIRST_NAMES = 128
_DEPTH = 3
_SPARE_DESCRIPTORS = 100
_WORD_BYTES = 8


class _Job(NamedTuple):
    """A task, and whose parts it has."""

    number: int
    pieces: Tuple[Tuple[Turn, Part], ...]
    is_large: bool = False


class _Worker(NamedTuple):
    pid: int
    connection: socket.socket
    replies: ReplyReader
    words: Words
    jobs: Deque[_Job]

    def has_room(self, job: _Job) -> bool:
        if job.is_large or any(waiting.is_large for waiting in self.jobs):
            return not self.jobs
        return len(self.jobs) < _DEPTH


class Pool:
    """Workers, and what they are at."""

    def __init__(self, count: int, make_inspector: MakeInspector, make_throttle: MakeThrottle) -> None:
        # A scan that needs workers is a long one.
        yield_as_a_session()
        self._make_inspector = make_inspector
        self._make_throttle = make_throttle
        words = count * WORDS * _WORD_BYTES
        self._shared = mmap.mmap(-1, words + count * LISTED_BYTES)
        with memoryview(self._shared) as shared:
            self._memory = shared[:words].cast("Q")
            self._listed = shared[words:]
        self._workers: Dict[int, _Worker] = {}
        self._poll = select.poll()
        self._waiting: Deque[_Job] = deque()
        self._forming: List[Tuple[Turn, Part]] = []
        self._forming_names = 0
        self._forming_bytes = 0
        self._number = 0
        self._has_news = False
        self._deaths = 0
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_parts = min(MAX_PARTS, max(1, (files - _SPARE_DESCRIPTORS) // (count * (_DEPTH + 1))))
        try:
            for slot in range(count):
                self._start(slot)
        except BaseException:
            self.close()
            raise

    def _start(self, slot: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        words = Words(self._memory, self._listed, slot)
        for word in range(WORDS):
            words.set(word, 0)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            strange = [ours, *(worker.connection for worker in self._workers.values())]
            be_worker(theirs, words, self._make_inspector, self._make_throttle, strange)
        theirs.close()
        self._workers[ours.fileno()] = _Worker(pid, ours, ReplyReader(ours), words, deque())
        self._poll.register(ours, select.POLLIN)

    def bytes_read(self) -> int:
        """Return how much the workers have read of what they have not answered yet."""
        return sum(worker.words.get(READ) for worker in self._workers.values() if worker.jobs)

    def submit(self, turn: Turn) -> None:
        """Take a batch, to be judged together with others that are small."""
        size = len(turn.part.path) + sum(map(len, turn.part.names)) + 16 * len(turn.part.names)
        if self._forming_bytes + size > MAX_TASK_BYTES:
            self.flush()
        self._forming.append((turn, turn.part))
        self._forming_names += turn.names
        self._forming_bytes += size
        is_idle = any(not worker.jobs for worker in self._workers.values())
        enough = FIRST_NAMES if is_idle else TASK_NAMES
        if self._forming_names >= enough or len(self._forming) >= self._max_parts:
            self.flush()

    def flush(self) -> None:
        """Hand out what was taken so far."""
        if self._forming:
            self._waiting.append(self._make_job(tuple(self._forming)))
            self._forming.clear()
            self._forming_names = self._forming_bytes = 0
            self._hand_out()

    def has_news(self) -> bool:
        """Tell whether there is new work since the workers were listened to: else that can wait for some."""
        return self._has_news

    def is_hungry(self) -> bool:
        """Tell whether more can be taken before the workers must be waited for."""
        return len(self._waiting) < len(self._workers)

    def _make_job(self, pieces: Tuple[Tuple[Turn, Part], ...], *, is_large: bool = False) -> _Job:
        self._number += 1
        self._has_news = True
        return _Job(self._number, pieces, is_large)

    def _hand_out(self) -> None:
        while self._waiting:
            job = self._waiting[0]
            worker = min(self._workers.values(), key=lambda one: len(one.jobs))
            if not worker.has_room(job):
                return
            message = encode_task(Task(job.number, tuple(part for _, part in job.pieces)))
            try:
                send_task(worker.connection, message, [turn.directory for turn, _ in job.pieces])
            except OSError:
                # Full, for now; or gone, and then reading from it tells.
                return
            self._waiting.popleft()
            worker.jobs.append(job)

    def listen(self, timeout_ms: int) -> None:
        """Take what the workers say, waiting for it so long at most.

        Raises:
            PoolFailure: when too many of them have died.

        """
        self._has_news = False
        # What came since, such as large files, must not wait for the first word of workers that have nothing.
        self._hand_out()
        for descriptor, _ in self._poll.poll(timeout_ms):
            worker = self._workers[descriptor]
            try:
                reply = worker.replies.read()
                while reply is not None:
                    self._take(worker, reply)
                    reply = worker.replies.read()
            except EOFError:
                self._bury(descriptor)
        self._hand_out()

    def _take(self, worker: _Worker, reply: Reply) -> None:
        if reply.failure:
            self._blame(worker, reply.failure)
            return
        job = worker.jobs.popleft()
        for (turn, part), items in zip(job.pieces, reply.parts):
            for item in items:
                if item.deferred_as:
                    self.judge_alone(turn, part, item)
            turn.items.extend(items)
            turn.finish_one()

    def judge_alone(self, turn: Turn, part: Part, item: Item) -> None:
        """Take an entry of a batch that is worth a task of its own."""
        turn.waiting += 1
        # First: what is large takes longest, and whatever waits behind it in the walk's order waits for it.
        self._waiting.appendleft(self._make_job(((turn, alone(part, item)),), is_large=True))

    def _blame(self, worker: _Worker, reason: str) -> None:
        """Judge a worker's first task again without the entry that it was at."""
        job = worker.jobs[0]
        entry = worker.words.get(ENTRY) - 1
        if worker.words.get(TASK) != job.number or entry < 0:
            return
        number = worker.words.get(PART)
        turn, part = job.pieces[number]
        name = worker.words.name(entry) if part.is_leaf else part.names[entry - part.first]
        if worker.words.get(MAPPED) and name not in part.unmapped:
            part = msgspec.structs.replace(part, unmapped=(*part.unmapped, name))
        else:
            part = msgspec.structs.replace(part, passed_over=(*part.passed_over, name))
            path = join(part.path, name)
            turn.items.append(Item(entry, files_seen=1, event=Event("lose", path, f"not judged: {reason}")))
        pieces = (*job.pieces[:number], (turn, part), *job.pieces[number + 1 :])
        worker.jobs[0] = job._replace(pieces=pieces)

    def _bury(self, descriptor: int) -> None:
        """Replace a worker that has ended, and give what it had to others."""
        worker = self._workers.pop(descriptor)
        self._poll.unregister(descriptor)
        worker.connection.close()
        _, status = os.waitpid(worker.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if worker.jobs and code:
            self._blame(worker, f"the process that read it {_say_end(code)}")
        self._waiting.extendleft(reversed(worker.jobs))
        self._deaths += 1
        if self._deaths > MAX_DEATHS:
            raise PoolFailure(f"{self._deaths} of its workers died")
        try:
            self._start(worker.words.place)
        except OSError as error:
            if not self._workers:
                raise PoolFailure(
                    f"its workers died, and no other can be started: {error.strerror}"
                ) from None

    def close(self) -> None:
        """Kill what is left, and give everything back; what was not answered is lost."""
        turns = [turn for turn, _ in self._forming]
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
            worker.connection.close()
            turns.extend(turn for job in worker.jobs for turn, _ in job.pieces)
        turns.extend(turn for job in self._waiting for turn, _ in job.pieces)
        for worker in self._workers.values():
            os.waitpid(worker.pid, 0)
        for turn in {id(turn): turn for turn in turns}.values():
            os.close(turn.directory)
        self._workers.clear()
        self._waiting.clear()
        self._forming.clear()
        self._memory.release()
        self._listed.release()
        self._shared.close()


def _say_end(code: int) -> str:
    """Say how a process ended, by its exit code; negative is the number of a signal."""
    if code >= 0:
        return f"ended with {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
