"""A worker of a scan: a forked process that judges parts of batches, and may die of what it reads.

It leaves word of what it is at in memory that it shares with the scan, so that its death has a name. It ends
when the scan is gone, and it never returns into the code that forked it. Nothing that it inherited is used
but the plan: neither the scan's sockets, nor its walk, nor its signal handlers.
"""

import gc
import os
import signal
import socket
from typing import Callable, Iterable, Iterator, List, NamedTuple, NoReturn, Sequence, Tuple

import msgspec

from agent.scan.coverage import Recorder
from agent.scan.inspector import Inspector
from agent.scan.items import Item, Part
from agent.scan.leaf import list_leaf
from agent.scan.messages import Reply, Task, TaskReader, send_reply
from agent.scan.throttle import Throttle

# Words shared by a worker and the scan: which task, which of its parts, which entry (from 1; 0 is none),
# whether a file is mapped, how many bytes were read in all; of names that the worker itself has listed, the
# index of the first that is written down, and how many bytes they take.
WORDS = 8
TASK, PART, ENTRY, MAPPED, READ, FIRST, LENGTH = range(7)
# So many names are written down at once, for which there is always room (a name has 255 bytes at most).
LISTED_NAMES = 256
LISTED_BYTES = LISTED_NAMES * 256

_FAILED = 70  # EX_SOFTWARE of sysexits.h


class Words(NamedTuple):
    """A worker's part of the shared memory: the words of its place, and room for names."""

    memory: memoryview
    listed: memoryview
    place: int

    def get(self, which: int) -> int:
        """Return a word."""
        return int(self.memory[self.place * WORDS + which])

    def set(self, which: int, value: int) -> None:
        """Set a word."""
        self.memory[self.place * WORDS + which] = value

    def write_names(self, names: Sequence[bytes], first: int) -> None:
        """Write down names that are judged next, of which nobody else knows."""
        block = b"\0".join(names)
        self.set(ENTRY, 0)
        start = self.place * LISTED_BYTES
        self.listed[start : start + len(block)] = block
        self.set(FIRST, first)
        self.set(LENGTH, len(block))

    def name(self, index: int) -> bytes:
        """Return one of the names that were written down."""
        start = self.place * LISTED_BYTES
        block = bytes(self.listed[start : start + self.get(LENGTH)])
        return block.split(b"\0")[index - self.get(FIRST)]


class MarkingRecorder(Recorder):
    """Keeps what is said, and leaves word of the entry that is looked at."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        self._memory = words.memory
        self._place = words.place * WORDS + ENTRY

    def at(self, index: int) -> None:
        """Say which entry of a batch is looked at."""
        self._index = index
        self._memory[self._place] = index + 1


MakeInspector = Callable[[Recorder, Callable[[], None], Callable[[bool], None]], Inspector]
MakeThrottle = Callable[[Callable[[], int]], Throttle]


def be_worker(
    connection: socket.socket,
    words: Words,
    make_inspector: MakeInspector,
    make_throttle: MakeThrottle,
    strange: Iterable[socket.socket],
) -> NoReturn:
    """Serve tasks until there are none; `strange` are sockets of others, inherited and to be closed."""
    status = _FAILED
    try:
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, signal.SIG_IGN)  # whoever stops the scan kills its workers
        gc.freeze()
        for other in strange:
            other.close()
        recorder = MarkingRecorder(words)
        throttle = make_throttle(recorder.bytes_in_all)
        parent = os.getppid()

        def check() -> None:
            words.set(READ, recorder.bytes_read)
            throttle.keep(lambda: _end_without(parent))

        inspector = make_inspector(recorder, check, lambda is_mapped: words.set(MAPPED, is_mapped))
        tasks = TaskReader(connection)
        while _serve_one(connection, tasks, inspector, recorder, words):
            pass
        status = 0
    finally:
        os._exit(status)


def _end_without(parent: int) -> None:
    """End where nobody waits for an answer any more."""
    if os.getppid() != parent:
        os._exit(0)


def _serve_one(
    connection: socket.socket, tasks: TaskReader, inspector: Inspector, recorder: Recorder, words: Words
) -> bool:
    received = tasks.read()
    if received is None:
        return False
    task, directories = received
    words.set(TASK, task.number)
    try:
        parts = _judge(task, directories, inspector, recorder, words)
    # Whatever a hostile file brought about must name that file, and cost no other its answer.
    except Exception as error:  # noqa: BLE001
        send_reply(connection, Reply(task.number, (), f"{type(error).__name__}: {error}"))
        return False
    finally:
        for directory in directories:
            os.close(directory)
    words.set(ENTRY, 0)
    words.set(READ, 0)
    send_reply(connection, Reply(task.number, tuple(parts)))
    return True


def _judge(
    task: Task, directories: List[int], inspector: Inspector, recorder: Recorder, words: Words
) -> List[Tuple[Item, ...]]:
    parts = []
    for number, (part, directory) in enumerate(zip(task.parts, directories)):
        recorder.at(0)
        words.set(ENTRY, 0)
        words.set(PART, number)
        if part.is_leaf:
            parts.append(tuple(_judge_leaf(part, directory, inspector, recorder, words)))
        else:
            parts.append(tuple(inspector.inspect(part, directory)))
    return parts


def _judge_leaf(
    part: Part, directory: int, inspector: Inspector, recorder: Recorder, words: Words
) -> Iterator[Item]:
    """List a directory and judge what is in it, leaving word of the names."""
    glanced = inspector.glance(part, directory)
    if glanced is not None:
        yield from glanced
        return
    names, kinds = list_leaf(directory, part.path, recorder)
    for at in range(0, len(names), LISTED_NAMES):
        some = tuple(names[at : at + LISTED_NAMES])
        words.write_names(some, at)
        yield from inspector.inspect(
            msgspec.structs.replace(part, names=some, kinds=kinds, first=at, is_leaf=False), directory
        )
    yield from recorder.rest()
