"""What passes between a scan and its workers: tasks with open directories, and what was said of them.

Over a pair of SEQPACKET sockets, so that a message is whole or not there. A task fits into one message; an
answer may be long and comes in pieces. Descriptors travel with the message (unix(7), SCM_RIGHTS): a directory
is not opened twice, so nobody can swap it in between.
"""

import array
import socket
from typing import List, Optional, Sequence, Tuple

import msgspec

from agent.scan.items import Item, Part

# Well below what a socket takes at once by default (212,992 bytes, socket(7)).
MAX_TASK_BYTES = 96 << 10
_PIECE_BYTES = 64 << 10
_LAST, _MORE = b"L", b"M"
MAX_PARTS = 16


class Task(msgspec.Struct, array_like=True, frozen=True):
    """Parts to judge, each in a directory of its own, whose descriptors come with it."""

    number: int
    parts: Tuple[Part, ...]


class Reply(msgspec.Struct, array_like=True, frozen=True):
    """What was said of each part of a task; `failure` where a part made the worker fail."""

    number: int
    parts: Tuple[Tuple[Item, ...], ...]
    failure: str = ""


_ENCODER = msgspec.msgpack.Encoder()
_TASKS = msgspec.msgpack.Decoder(Task)
_REPLIES = msgspec.msgpack.Decoder(Reply)


def encode_task(task: Task) -> bytes:
    """Return a task as a message."""
    return _ENCODER.encode(task)


def send_task(connection: socket.socket, message: bytes, directories: Sequence[int]) -> None:
    """Send a task and the descriptors of its directories.

    Raises:
        BlockingIOError: where the worker has too much to read already.
        OSError: where it is gone.

    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", directories))]
    connection.sendmsg([message], rights, socket.MSG_DONTWAIT)


class TaskReader:
    """Reads a worker's tasks, each into the same memory."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._room = memoryview(bytearray(2 * MAX_TASK_BYTES))

    def read(self) -> Optional[Tuple[Task, List[int]]]:
        """Return the next task and its directories; None when there will be none.

        Raises:
            OSError: where a descriptor was lost on the way.

        """
        size = array.array("i").itemsize
        space = socket.CMSG_SPACE(size * MAX_PARTS)
        length, ancillary, flags, _ = self._connection.recvmsg_into([self._room], space)
        directories = array.array("i")
        for _, _, data in ancillary:
            directories.frombytes(data[: len(data) - len(data) % size])
        if not length:
            return None
        task = _TASKS.decode(self._room[:length])
        if flags & socket.MSG_CTRUNC or len(directories) != len(task.parts):
            raise OSError("a directory was lost on the way to the worker")
        return task, list(directories)


def send_reply(connection: socket.socket, reply: Reply) -> None:
    """Send a reply, in as many pieces as it takes."""
    message = _ENCODER.encode(reply)
    for at in range(0, len(message), _PIECE_BYTES):
        piece = message[at : at + _PIECE_BYTES]
        connection.sendmsg([_LAST if at + _PIECE_BYTES >= len(message) else _MORE, piece])


class ReplyReader:
    """Puts the pieces of one worker's replies together."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pieces: List[bytes] = []

    def read(self) -> Optional[Reply]:
        """Return the next reply; None where there is none yet.

        Raises:
            EOFError: when the worker is gone and all that it said was read.

        """
        while True:
            try:
                message = self._connection.recv(_PIECE_BYTES + 1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                # It left a task unread; what it has said before comes yet (unix(7)).
                continue
            if not message:
                raise EOFError
            self._pieces.append(message[1:])
            if message.startswith(_LAST):
                whole = b"".join(self._pieces)
                self._pieces.clear()
                return _REPLIES.decode(whole)
