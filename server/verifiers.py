"""Processes that check the signatures of answers, so that the server's own goes on with everything else.

Rules:
1. They are forked before the server has a thread, a loop or a connection, hold nothing but code, and end when
   the server does: their end of the socket closes.
2. A worker is given keys and messages and gives back verdicts; it decides nothing and stores nothing. What it
   says is decoded into one shape, like everything that comes over a socket.
3. A worker that dies, which only a fault in a library could cause, is left out from then on, with a line in
   the log; what it had is checked again, in this process where no other is left. Nothing is lost or waits.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import struct
from collections.abc import Sequence

import msgspec

from protocol.errors import InvalidInput
from server.checking import CheckedAnswer, Sent, check_answer

_log = logging.getLogger(__name__)

_LENGTH = struct.Struct(">I")
_MAX_FRAME_BYTES = 1 << 30  # a whole batch of the largest answers is well below
MOST = 4


class Refused(msgspec.Struct, frozen=True):
    """Why an answer is not believed: a code of `protocol.errors`, and one line."""

    code: str
    detail: str


class Verdict(msgspec.Struct, frozen=True):
    """What is said of one message: either member, never both."""

    checked: CheckedAnswer | None = None
    refused: Refused | None = None


_decode_request = msgspec.msgpack.Decoder(list[Sent])
_decode_verdicts = msgspec.msgpack.Decoder(list[Verdict])


def verdict_of(sent: Sent) -> Verdict:
    """Judge one message."""
    try:
        return Verdict(checked=check_answer(sent))
    except InvalidInput as error:
        return Verdict(refused=Refused(error.code, error.detail))


class Verifiers:
    """Some forked workers, and this process where there are none."""

    def __init__(self, workers: "Sequence[_Worker]" = ()) -> None:
        self._workers = list(workers)

    @classmethod
    def fork(cls, count: int) -> "Verifiers":
        """Fork workers; call it while the process has one thread."""
        workers: list[_Worker] = []
        for _ in range(count):
            workers.append(_Worker.fork([worker.socket for worker in workers]))
        return cls(workers)

    @property
    def count(self) -> int:
        """How many workers are there."""
        return len(self._workers)

    @property
    def pids(self) -> tuple[int, ...]:
        """The workers' process ids."""
        return tuple(worker.pid for worker in self._workers)

    async def judge(self, batch: Sequence[Sent]) -> list[Verdict]:
        """Judge messages; the verdicts come in their order."""
        workers = self._workers[: len(batch)]
        if not workers:
            return await asyncio.to_thread(lambda: [verdict_of(sent) for sent in batch])
        share = -(-len(batch) // len(workers))
        parts = [batch[start : start + share] for start in range(0, len(batch), share)]
        asked = [self._ask(worker, part) for worker, part in zip(workers, parts, strict=False)]
        return [verdict for verdicts in await asyncio.gather(*asked) for verdict in verdicts]

    async def _ask(self, worker: "_Worker", part: Sequence[Sent]) -> list[Verdict]:
        problem: object = "it answered another number of messages"
        try:
            verdicts = await worker.ask(part)
            if len(verdicts) == len(part):
                return verdicts
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            problem = error
        if worker in self._workers:
            self._workers.remove(worker)
            worker.close()
            _log.error("a verifier is gone", extra={"pid": worker.pid, "reason": problem})
        return await self.judge(part)

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()
        self._workers.clear()


class _Worker:
    """One forked process and the socket to it; one question at a time."""

    def __init__(self, pid: int, ours: socket.socket) -> None:
        self.pid = pid
        self.socket = ours
        self._lock = asyncio.Lock()

    @classmethod
    def fork(cls, others: Sequence[socket.socket]) -> "_Worker":
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for other in (ours, *others):
                    other.close()
                _serve(theirs)
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        ours.setblocking(False)  # noqa: FBT003  (takes no keyword)
        return cls(pid, ours)

    async def ask(self, part: Sequence[Sent]) -> list[Verdict]:
        """Have messages judged.

        Raises:
            OSError, EOFError, msgspec.MsgspecError: where the worker is gone, or out of its mind.

        """
        loop = asyncio.get_running_loop()
        request = msgspec.msgpack.encode(part)
        async with self._lock:
            await loop.sock_sendall(self.socket, _LENGTH.pack(len(request)) + request)
            (length,) = _LENGTH.unpack(await self._receive(_LENGTH.size))
            return _decode_verdicts.decode(await self._receive(length))

    async def _receive(self, count: int) -> bytearray:
        loop = asyncio.get_running_loop()
        data = bytearray()
        while len(data) < count:
            piece = await loop.sock_recv(self.socket, min(count - len(data), 1 << 20))
            if not piece:
                raise EOFError("it ended")
            data += piece
        return data

    def close(self) -> None:
        """End the process: it holds nothing that could be lost."""
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _serve(connection: socket.socket) -> None:
    """Be a worker: judge what comes until the server closes its end."""
    # A terminal and a service manager signal the whole group; the server finishes what it has, then ends us.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with connection, connection.makefile("rb") as stream:
        while True:
            head = stream.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                return
            (length,) = _LENGTH.unpack(head)
            if length > _MAX_FRAME_BYTES:
                return
            verdicts = [verdict_of(sent) for sent in _decode_request.decode(stream.read(length))]
            reply = msgspec.msgpack.encode(verdicts)
            connection.sendall(_LENGTH.pack(len(reply)) + reply)
