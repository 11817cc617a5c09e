"""Loopback ports for what is started a while later, and ended and started again.

Rules:
1. They lie below the ephemeral range: nobody gets one without asking for it, neither a test that listens on
   port 0 meanwhile nor a connection. And who tries to connect while nobody listens there is not given the
   very same port as its own end, and so connected with itself (RFC 9293, 3.5, simultaneous open).
2. They lie apart from the brokers' (`server.broker`), and each worker of a run has its own.
"""

import itertools
import os
import random
import socket

_FIRST, _END = 10_000, 20_000
_WORKERS = 10
_EACH = (_END - _FIRST) // _WORKERS
_numbers = itertools.count(random.randrange(_EACH))  # noqa: S311  (another run may be under way on this machine)


def free_port() -> int:
    """Return a loopback port that nobody uses now, another one each time."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw9").removeprefix("gw")) % _WORKERS
    for number in itertools.islice(_numbers, _EACH):
        port = _FIRST + worker * _EACH + number % _EACH
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no port is free")
