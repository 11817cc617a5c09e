"""Sends requests and reads answers, in bounded time and room, whatever the server does.

Rules:
1. A socket's time-out bounds one silence only: a server that sends a byte now and then would keep anybody
   waiting for ever. So whatever is waited for has a whole time (`Times`); when it is over, another thread
   shuts the connection down, and who waited on it gets its end.
2. An answer is read up to a size. Nothing is decompressed, so that this is the size of what came.
3. A stream may last; but it must bring a whole line, be it the comment by which our server says every 15 s
   that it lives, within its time. Time that the reader takes for itself does not count.
4. Redirects are never followed, and nothing is sent again by itself.

The thread only shuts connections down. Ctrl-C reaches the thread that waits, at once, as ever. A name that is
looked up is not bounded here: the system's resolver has times of its own.
"""

import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from protocol.errors import EnvironmentFailure, InvalidInput

_CHUNK_BYTES = 1 << 16


class Times(NamedTuple):
    """How long to wait, in seconds.

    For a connection and its TLS; for the next byte; for status and headers; for the whole of an answer behind
    them; for the next whole line of a stream, which is three missed comments.
    """

    connect_s: float = 5.0
    silence_s: float = 30.0
    head_s: float = 60.0
    answer_s: float = 300.0
    stream_s: float = 50.0


class Overdue(Exception):
    """The time was over before the server had done its part."""


class Watch:
    """Shuts down the connections that it knows when the time of the one request under way is over."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._end: float | None = None
        self._is_over = False
        self._thread: threading.Thread | None = None

    def add(self, connection: socket.socket) -> None:
        """Know a connection; it is shut down at once where it came too late."""
        with self._changed:
            self._sockets.add(connection)
            if self._is_over:
                self._shut()

    @contextmanager
    def within(self, time_s: float) -> Iterator[None]:
        """Give what is done in this block so much time.

        Raises:
            Overdue: it took longer.

        """
        with self._changed:
            self._end, self._is_over = time.monotonic() + time_s, False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield
        except (urllib3.exceptions.HTTPError, OSError):
            if not self._is_over:
                raise
        finally:
            with self._changed:
                self._end = None
        if self._is_over:  # also where what was cut off looked whole: headers end where the stream ends
            raise Overdue

    def _run(self) -> None:
        with self._changed:
            while True:
                left = None if self._end is None else self._end - time.monotonic()
                if left is not None and left <= 0:
                    self._end, self._is_over = None, True
                    self._shut()
                    continue
                self._changed.wait(left)

    def _shut(self) -> None:
        for connection in list(self._sockets):
            with suppress(OSError):  # closed meanwhile
                # Not SSLSocket's own: it would drop the TLS under the feet of who reads.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


class Transport:
    """HTTP to one server.

    Args:
        server: its name in errors.
        times: how long to wait.
        max_answer_bytes: of any one answer.

    """

    def __init__(self, server: str, *, times: Times, max_answer_bytes: int) -> None:
        self._server = server
        self._times = times
        self._max_answer_bytes = max_answer_bytes
        self._watch = Watch()
        self._pool = urllib3.PoolManager(retries=False)
        self._pool.pool_classes_by_scheme = _watched_pools(self._watch)

    def send(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Send a request, and return the response once its headers are there.

        Raises:
            EnvironmentFailure: `server-away`.

        """
        # No compression is asked for or undone, so that an answer's size is what was read.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
        if body:
            headers["Content-Type"] = "application/json"
        times = self._times
        try:
            with self._watch.within(times.head_s):
                return self._pool.request(
                    method,
                    url,
                    headers=headers,
                    body=body,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=urllib3.Timeout(connect=times.connect_s, read=times.silence_s),
                )
        except Overdue:
            raise self._late(f"its answer does not come within {times.head_s:g} s") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._away(error) from None

    def read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """Return the whole body of an answer.

        Raises:
            EnvironmentFailure: `server-away`.
            InvalidInput: `too-large`.

        """
        body = bytearray()
        try:
            with self._watch.within(self._times.answer_s):
                while chunk := response.read1(_CHUNK_BYTES):
                    body += chunk
                    if len(body) > self._max_answer_bytes:
                        response.close()
                        raise InvalidInput(
                            "too-large", f"the server's answer has more than {self._max_answer_bytes} bytes"
                        )
        except Overdue:
            response.close()
            raise self._late(f"its answer does not end within {self._times.answer_s:g} s") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._away(error) from None
        response.release_conn()
        return bytes(body)

    def read_lines(self, response: urllib3.BaseHTTPResponse, longest_s: float) -> Iterator[bytes]:
        """Yield a stream as it arrives, in pieces; it ends without an error after the longest time.

        Raises:
            EnvironmentFailure: `server-away` where it breaks, or no whole line comes in its time.

        """
        end = time.monotonic() + longest_s
        left = self._times.stream_s
        try:
            while (rest := end - time.monotonic()) > 0:
                began = time.monotonic()
                with self._watch.within(min(left, rest)):
                    chunk = response.read1(_CHUNK_BYTES)
                if not chunk:
                    return
                left = self._times.stream_s if b"\n" in chunk else left - (time.monotonic() - began)
                yield chunk
        except Overdue:
            if time.monotonic() < end:
                raise self._late(f"no whole line of its stream in {self._times.stream_s:g} s") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self._away(error) from None
        finally:
            response.close()

    def _late(self, said: str) -> EnvironmentFailure:
        return EnvironmentFailure("server-away", f"{self._server}: {said}", retryable=True)

    def _away(self, error: Exception) -> EnvironmentFailure:
        reason = error
        while isinstance(reason, urllib3.exceptions.HTTPError) and (reason.__cause__ or reason.__context__):
            cause = reason.__cause__ or reason.__context__
            if not isinstance(cause, Exception):
                break
            reason = cause
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        return EnvironmentFailure("server-away", f"{self._server}: {text}", retryable=True)


def _watched_pools(watch: Watch) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Return pools whose connections the watch knows, by scheme.

    TLS is made within `connect`, under the time-out of the connection, which bounds the handshake as a whole.
    """

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            _know(self)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            _know(self)

    def _know(connection: Any) -> None:
        watch.add(connection.sock)

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
