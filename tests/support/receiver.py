"""A webhook's receiver on loopback that answers, fails, hangs and drips, as it is told."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Received(NamedTuple):
    """One delivery as it came."""

    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return its body, decoded."""
        return json.loads(self.body)


class Receiver:
    """What came, and what to answer next; the last answer stays.

    An answer is a status, `hang` (no answer at all), `drip` (a header at a time, for ever) or `redirect`.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[int | str] = [200]
        self.over = threading.Event()
        self._arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = receiver.note(Received(dict(self.headers.items()), body))
                if isinstance(answer, int):
                    self.send_response(answer)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                elif answer == "redirect":
                    self.send_response(307)
                    self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self.close_connection = True
                    self._keep_waiting(drips=answer == "drip")

            def _keep_waiting(self, *, drips: bool) -> None:
                if drips:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                try:
                    while not receiver.over.wait(0.05):
                        if drips:
                            self.wfile.write(b"X-Drip: 1\r\n")
                except OSError:
                    return  # who waited has gone

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's name)
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/alerts"
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.05))
        self._thread.start()

    def note(self, received: Received) -> int | str:
        """Keep a delivery, and return how it is answered."""
        with self._arrived:
            self.received.append(received)
            self._arrived.notify_all()
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def wait_for(self, count: int, timeout_s: float = 30.0) -> list[Received]:
        """Return what came, once so many deliveries have."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.received) >= count, timeout_s), self.received
            return list(self.received)

    def close(self) -> None:
        """End it."""
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver for as long as the block lasts."""
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()


def closed_port() -> int:
    """Return a loopback port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
