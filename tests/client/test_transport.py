"""A server that drips keeps nobody waiting: what it sends byte by byte has its whole time, and no more."""

import itertools
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from client.transport import Times, Transport
from protocol.errors import EnvironmentFailure, InvalidInput
from tests.client.opponent import Opponent
from tests.support.plainbroker import Authority

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SHORT = Times(connect_s=5, silence_s=5, head_s=0.2, answer_s=0.2, stream_s=0.2)
# A machine that has much else to do may pause anybody for as long: what is to come in time gets more of it.
HEAD_COMES = SHORT._replace(head_s=60)
ANSWER_COMES = SHORT._replace(head_s=1, answer_s=1)


class Drip:
    """A server that answers with some bytes at once, and then with others one by one, without end."""

    def __init__(
        self, at_once: bytes, drops: bytes | list[bytes], context: ssl.SSLContext | None = None
    ) -> None:
        self.at_once = at_once
        self.drops = [bytes([drop]) for drop in drops] if isinstance(drops, bytes) else drops
        self.on_request: Callable[[], object] = lambda: None
        self.connections = 0
        self._context = context
        self._is_over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        scheme = "https" if context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            stream = self._context.wrap_socket(connection, server_side=True) if self._context else connection
            with stream:
                stream.recv(65536)
                self.on_request()
                stream.sendall(self.at_once)
                for drop in itertools.cycle(self.drops):
                    stream.sendall(drop)
                    if self._is_over.wait(0.01):
                        return

    def close(self) -> None:
        self._is_over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@contextmanager
def dripping(
    at_once: bytes, drops: bytes | list[bytes], context: ssl.SSLContext | None = None
) -> Iterator[Drip]:
    server = Drip(at_once, drops, context)
    try:
        yield server
    finally:
        server.close()


def make(server: Drip, times: Times = SHORT) -> Transport:
    return Transport(server.url, times=times, max_answer_bytes=1 << 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_once", "drops"),
    [
        (b"", b"HTTP/1.1 200 OK"),
        (HEAD, b"X"),
        (HEAD, b"X: y\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["a status", "one header", "headers", "continue and continue"],
)
def test_headers_that_never_end_are_not_waited_for(at_once: bytes, drops: bytes) -> None:
    with (
        dripping(at_once, drops) as server,
        pytest.raises(EnvironmentFailure, match=r"^server-away: .* its answer does not come within 0.2 s"),
    ):
        make(server).send("GET", server.url, headers={})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_once", "drops"),
    [
        (HEAD + b"\r\n", b"x"),
        (HEAD + b"Content-Length: 1000000\r\n\r\n", b"x"),
        (CHUNKED, b"0"),
        (CHUNKED + b"5;", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"0\r\n", b"X: y\r\n"),
    ],
    ids=["a body", "of a length", "a chunk's size", "its extension", "chunks", "trailers"],
)
def test_a_body_that_never_ends_is_not_waited_for(at_once: bytes, drops: bytes) -> None:
    with dripping(at_once, drops) as server:
        transport = make(server, HEAD_COMES)
        response = transport.send("GET", server.url, headers={})
        with pytest.raises(EnvironmentFailure, match="its answer does not end within 0.2 s"):
            transport.read(response)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_once", "drops"),
    [(CHUNKED, b"0"), (CHUNKED, b"1\r\nx\r\n"), (CHUNKED + b"2\r\n:\n\r\n", b"1\r\nx\r\n")],
    ids=["a chunk's size", "a line", "a second line"],
)
def test_a_stream_without_a_whole_line_is_dead(at_once: bytes, drops: bytes) -> None:
    with dripping(at_once, drops) as server:
        transport = make(server, HEAD_COMES)
        response = transport.send("GET", server.url, headers={})
        with pytest.raises(EnvironmentFailure, match="no whole line of its stream in 0.2 s") as caught:
            list(transport.read_lines(response, 60))
        assert caught.value.retryable


@pytest.mark.slow
def test_a_stream_that_lives_is_read_until_its_longest_time_whatever_the_reader_takes_for_itself() -> None:
    with dripping(CHUNKED, [b"2\r\n:\n\r\n"]) as server:
        transport = make(server, HEAD_COMES._replace(stream_s=1))
        response = transport.send("GET", server.url, headers={})
        stream = transport.read_lines(response, 2.5)
        assert next(stream).startswith(b":")
        pause = threading.Event()
        assert not pause.wait(1.1)  # longer than a line may take: it is the reader's own time
        assert set(b"".join(stream)) == set(b":\n")


@pytest.mark.slow
def test_after_a_server_that_dripped_the_next_request_is_sent_on_a_new_connection() -> None:
    with dripping(HEAD, b"X") as server:
        transport = make(server, ANSWER_COMES)
        with pytest.raises(EnvironmentFailure, match="does not come"):
            transport.send("GET", server.url, headers={})
        server.at_once = HEAD + b"Content-Length: 2\r\n\r\nok"
        assert transport.read(transport.send("GET", server.url, headers={})) == b"ok"
        assert server.connections == 2


def test_answers_that_come_in_time_share_one_connection(opponent: Opponent) -> None:
    transport = Transport(opponent.url, times=Times(), max_answer_bytes=1000)
    opponent.respond = lambda _method, _path: (200, b"ok")
    for _ in range(20):
        assert transport.read(transport.send("GET", f"{opponent.url}/x", headers={})) == b"ok"
    assert len(transport._watch._sockets) == 1


def test_ctrl_c_ends_the_waiting_at_once() -> None:
    with dripping(HEAD, b"X") as server:
        server.on_request = lambda: os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            make(server, Times()).send("GET", server.url, headers={})


def test_an_answer_that_is_too_large_is_cut() -> None:
    with dripping(HEAD + b"\r\n" + b"x" * 5000, b"x") as server:
        transport = Transport(server.url, times=Times(), max_answer_bytes=1000)
        response = transport.send("GET", server.url, headers={})
        with pytest.raises(InvalidInput, match="too-large"):
            transport.read(response)


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server needs that this machine trusts."""
    files = Authority.make().issue(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_once", "drops", "said"),
    [(HEAD, b"X", "does not come within"), (CHUNKED, b"1\r\nx\r\n", "does not end within")],
)
def test_tls_changes_nothing(tls: ssl.SSLContext, at_once: bytes, drops: bytes, said: str) -> None:
    with dripping(at_once, drops, tls) as server:
        transport = make(server, ANSWER_COMES)
        with pytest.raises(EnvironmentFailure, match=said):
            transport.read(transport.send("GET", server.url, headers={}))
        server.at_once = HEAD + b"Content-Length: 2\r\n\r\nok"
        assert transport.read(transport.send("GET", server.url, headers={})) == b"ok"


@pytest.mark.slow
def test_a_tls_handshake_that_never_ends_is_not_waited_for() -> None:
    record = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc"  # the beginning of a long record: RFC 8446, section 5.1
    with dripping(record, b"\x00") as server:
        url = server.url.replace("http:", "https:")
        transport = Transport(url, times=SHORT._replace(connect_s=0.2, head_s=60), max_answer_bytes=1000)
        with pytest.raises(EnvironmentFailure, match="server-away: https://"):
            transport.send("GET", url, headers={})
