"""A process beside ours that may die: what hostile bytes could break, or hold up for ever, runs in it.

Rules:

1. It is forked at the first request from whoever asks, so it has what was prepared there, and again after a
   death. What it does is never done in the process that it is forked from: a library that starts a thread of
   its own (the timers of yara-x) would be forked without that thread.
2. One request after the other: bytes, and at most one open descriptor, give bytes. How it ended, where it
   did, is told (`HelperLost`); the next request has a new one.
3. Silence for longer than allowed ends it. Whoever asks may be asked to stop meanwhile: that ends it too.
4. It dies with its parent (Linux: PR_SET_PDEATHSIG; elsewhere when it next looks for a request).
"""

import os
import select
import signal
import socket
import struct
import time
from typing import Callable, List, NoReturn, Optional

from agent.platform.limits import die_with_parent

# Answers a request; the second argument is a descriptor to read, if one came, the third says "still at work".
Serve = Callable[[bytes, Optional[int], Callable[[], None]], bytes]

_LENGTH = struct.Struct("!I")
MAX_MESSAGE_BYTES = 64 << 20  # compiled rules are the largest
_CHECK_S = 0.25
_CRASHED = 70  # EX_SOFTWARE of sysexits(3)
_MAX_PATIENCE_S = 10 * 365 * 86400.0


class HelperLost(Exception):
    """The helper did not answer: `is_silent` where it was killed for that; the text says how it ended."""

    def __init__(self, text: str, *, is_silent: bool = False) -> None:
        super().__init__(text)
        self.is_silent = is_silent


class Helper:
    """Answers requests in a process of its own.

    Args:
        serve: what it does, called in that process only.
        silence_s: for how long it may say nothing.
        check: called several times a second while an answer is awaited, in the process that made this object
            only; may raise to end the waiting.

    """

    def __init__(self, serve: Serve, *, silence_s: float, check: Callable[[], None] = lambda: None) -> None:
        self._serve = serve
        self._silence_s = min(silence_s, _MAX_PATIENCE_S)
        self._check = check
        self._home = os.getpid()
        self._owner = 0
        self._pid = 0
        self._socket: Optional[socket.socket] = None

    def ask(self, request: bytes, descriptor: Optional[int] = None) -> bytes:
        """Return the answer to a request, with which a descriptor may travel.

        Raises:
            HelperLost: the process ended, or had to be, before it answered.

        """
        line = self._line()
        try:
            try:
                _send(line, request, descriptor)
                return self._await(line)
            except (EOFError, ConnectionError):
                raise HelperLost(self._end()) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process, if there is one; a later request would start another."""
        if self._socket is None:
            return
        if self._owner == os.getpid():
            self._end()
        else:
            # Forked since: that helper is another process's child.
            self._socket.close()
            self._socket = None

    def _line(self) -> socket.socket:
        """Return the line to a helper of this very process, starting one where there is none."""
        if self._owner != os.getpid():
            self.close()
        if self._socket is None:
            ours, theirs = socket.socketpair()
            self._owner = os.getpid()
            self._pid = os.fork()
            if self._pid == 0:
                ours.close()
                _be_helper(theirs, self._serve)
            theirs.close()
            self._socket = ours
        return self._socket

    def _await(self, line: socket.socket) -> bytes:
        poll = select.poll()
        poll.register(line, select.POLLIN)
        heard = time.monotonic()
        while True:
            if poll.poll(_CHECK_S * 1000):
                answer = _receive(line)
                if answer:
                    return answer
                heard = time.monotonic()
            elif time.monotonic() - heard > self._silence_s:
                raise HelperLost(f"no answer within {self._silence_s:g} s", is_silent=True)
            if self._home == os.getpid():
                self._check()

    def _end(self) -> str:
        """Kill the process, and return how it had ended, or that it was killed."""
        # Before its line is closed, which it might notice first and end by itself.
        os.kill(self._pid, signal.SIGKILL)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return f"its process ended with status {code}"
        return f"its process ended by signal {-code} ({signal.strsignal(-code)})"


def _send(line: socket.socket, body: bytes, descriptor: Optional[int] = None) -> None:
    data = _LENGTH.pack(len(body)) + body
    if descriptor is not None:
        # The descriptor travels with the first byte.
        socket.send_fds(line, [data[:1]], [descriptor])
        data = data[1:]
    line.sendall(data)


def _receive(line: socket.socket, taken: Optional[List[int]] = None) -> bytes:
    """Return the next message; descriptors that came with it are added to `taken`.

    Raises:
        EOFError: the other side is gone.
        ConnectionError: it is, or it says what cannot be meant.

    """
    if taken is None:
        head = line.recv(1)
    else:
        head, descriptors, _, _ = socket.recv_fds(line, 1, 1)
        taken.extend(descriptors)
    (length,) = _LENGTH.unpack(head + _read(line, _LENGTH.size - len(head)))
    if length > MAX_MESSAGE_BYTES:
        raise ConnectionError
    return _read(line, length)


def _read(line: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = line.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _be_helper(line: socket.socket, serve: Serve) -> NoReturn:
    """Be the child: never return into the caller's code."""
    status = _CRASHED
    try:
        die_with_parent()
        # Who asks decides when to stop; a library that panics must not write onto a terminal.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 2)
        while True:
            taken: List[int] = []
            try:
                request = _receive(line, taken)
            except EOFError:
                break
            try:
                answer = serve(request, taken[0] if taken else None, lambda: _send(line, b""))
            finally:
                for descriptor in taken:
                    os.close(descriptor)
            _send(line, answer)
        status = 0
    finally:
        os._exit(status)
