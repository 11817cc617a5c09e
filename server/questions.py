"""HTTP/1.1 for the broker's questions: small forms, posted, each answered with one word.

Rules:
1. A fleet that returns asks six questions for each login, and thousands log in within a minute. The API's
   server (uvicorn with h11) takes some 0.3 ms for each, this 0.1; so it knows no more than that.
2. What is not understood, or is too large, is answered 400 and the connection is closed: a request with
   another method, a body of unknown length (`Transfer-Encoding`), a header line that is none.
3. Requests of one connection are answered in their order, one at a time; what is sent ahead is bounded.
4. If who asked goes away, nobody works on the answer any longer.
5. An idle connection is closed by the broker, after two minutes (`httpc`, keep_alive_timeout): closed from
   here, the question that comes meanwhile would fail. Ours comes later, for what is left half-open.

Source: RFC 9112.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable

_MAX_HEAD_BYTES = 8192
MAX_BODY_BYTES = 16384
_IDLE_S = 150.0
_GRACE_S = 5.0
_BACKLOG = 4096  # a fleet's questions at once; Linux takes no more than net.core.somaxconn
_END = b"\r\n\r\n"
_STATUS = {200: b"200 OK", 400: b"400 Bad Request", 404: b"404 Not Found", 500: b"500 Internal Server Error"}

# Gets a path and a posted body; returns the answer's text, or None where there is no such question.
Answer = Callable[[str, bytes], Awaitable[str | None]]


class _BadRequest(Exception):
    """What came is not what a broker sends."""


class _Request:
    """A request without its body: the path, the body's length, and whether the connection stays."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ")
        if len(head) > _MAX_HEAD_BYTES or len(words) != 3 or words[2] not in {b"HTTP/1.1", b"HTTP/1.0"}:  # noqa: PLR2004  (method, path, version)
            raise _BadRequest
        self.is_post = words[0] == b"POST"
        self.path = words[1].decode("latin-1")
        self.length = 0
        self.is_kept = words[2] == b"HTTP/1.1"
        seen: set[bytes] = set()
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name.strip() != name:
                raise _BadRequest
            self._read_field(name.lower(), value.strip(), seen)

    def _read_field(self, name: bytes, value: bytes, seen: set[bytes]) -> None:
        if name == b"content-length":
            if name in seen or not value.isdigit() or int(value[:9]) > MAX_BODY_BYTES or len(value) > 9:  # noqa: PLR2004
                raise _BadRequest
            seen.add(name)
            self.length = int(value)
        elif name == b"transfer-encoding":
            raise _BadRequest
        elif name == b"connection" and value.lower() == b"close":
            self.is_kept = False


class _Connection(asyncio.Protocol):
    """One connection of the broker."""

    def __init__(self, answer: Answer, everyone: "set[_Connection]") -> None:
        self._answer = answer
        self._everyone = everyone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self.working: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a question."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (what a stream server makes)
        self._transport = transport
        self._everyone.add(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's)
        """Forget it, and the answer that nobody waits for."""
        self._everyone.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self.working is not None:
            self.working.cancel()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        self._buffer += data
        if self.working is None:
            self._next()
        elif self._transport is not None and len(self._buffer) > _MAX_HEAD_BYTES:
            self._transport.pause_reading()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_IDLE_S, self.close)

    def _next(self) -> None:
        """Begin to answer the next request, if it is there as a whole."""
        head, end, rest = self._buffer.partition(_END)
        if not end and len(head) <= _MAX_HEAD_BYTES:
            return
        try:
            request = _Request(head)
        except _BadRequest:
            self._respond(400, "", is_kept=False)
            return
        if len(rest) < request.length:
            return
        self._buffer = rest[request.length :]
        self.working = self._loop.create_task(self._work(request, rest[: request.length]))

    async def _work(self, request: _Request, body: bytes) -> None:
        status, text = 500, ""
        try:
            found = await self._answer(request.path, body) if request.is_post else None
            status, text = (404, "") if found is None else (200, found)
        finally:
            self.working = None
            self._respond(status, text, is_kept=request.is_kept and status != 500)  # noqa: PLR2004
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._next()

    def _respond(self, status: int, text: str, *, is_kept: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n%b\r\n%b"
            % (_STATUS[status], len(text), b"" if is_kept else b"connection: close\r\n", text.encode("ascii"))
        )
        if is_kept:
            self._wait()
        else:
            self._transport.close()


class Questions:
    """The broker's questions on one listening socket."""

    def __init__(self, answer: Answer, listener: socket.socket) -> None:
        self._answer = answer
        self._listener = listener
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Answer until `stop`; then what is under way, for some seconds."""
        everyone: set[_Connection] = set()
        server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self._answer, everyone), sock=self._listener, backlog=_BACKLOG
        )
        try:
            await self._stopping.wait()
        finally:
            server.close()
            working = [one.working for one in everyone if one.working is not None]
            if working:
                await asyncio.wait(working, timeout=_GRACE_S)
            for one in list(everyone):
                one.close()

    def stop(self) -> None:
        """Accept nothing more, finish what is under way, and end."""
        self._stopping.set()
