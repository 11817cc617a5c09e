"""An SNTP server on loopback that says whatever a test has it say."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EPOCH_S = 2_208_988_800  # from 1900 to 1970, RFC 4330
FORM = struct.Struct(">BBbbII4sQQQQ")

Answer = Callable[[bytes], "list[bytes]"]


def stamp(seconds: float) -> int:
    """Return a time since 1970 as NTP writes it: fixed point since 1900, of any era."""
    return int((seconds + EPOCH_S) * (1 << 32)) & ((1 << 64) - 1)


def reply(
    request: bytes,
    *,
    ahead_s: float = 0.0,
    flags: int = 0x24,
    stratum: int = 2,
    reference: bytes = b"\xc0\x00\x02\x01",
    originate: int | None = None,
    received: int | None = None,
    sent: int | None = None,
    root_delay: int = 0,
    root_dispersion: int = 0,
) -> bytes:
    """Return an answer whose clock is ahead of ours, honest but for what is given."""
    now = stamp(time.time() + ahead_s)
    asked: int = FORM.unpack(request[: FORM.size])[10]
    return FORM.pack(
        flags, stratum, 6, -20, root_delay, root_dispersion, reference, now,
        asked if originate is None else originate,
        now if received is None else received,
        now if sent is None else sent,
    )  # fmt: skip


@contextmanager
def sntp_server(answer: Answer, address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Answer each request with the datagrams that `answer` gives for it; yield the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        bound: int = sock.getsockname()[1]

        def serve() -> None:
            while True:
                request, client = sock.recvfrom(2048)
                if request == b"end":
                    return
                for datagram in answer(request):
                    sock.sendto(datagram, client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield bound
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ender:
                ender.sendto(b"end", (address, bound))
            thread.join()
