"""An ASGI application on a listening socket of ours; several of them share one event loop."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from protocol.errors import EnvironmentFailure
from server.config import Listen

_GRACE_S = 5
_BACKLOG = 1024


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handlers: two of them in one process would take them from each other."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`."""
        yield


class Front:
    """One ASGI application on one listening socket."""

    def __init__(self, app: Any, listener: socket.socket, *, lifespan: bool) -> None:
        self._listener = listener
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                lifespan="on" if lifespan else "off",
                http="h11",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        """Accept nothing more, finish what is under way, and end."""
        self._server.should_exit = True


@contextmanager
def listen_on(address: Listen) -> Iterator[socket.socket]:
    """Listen on an address.

    Raises:
        EnvironmentFailure: `port-in-use`.

    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        where = f"{address.host}:{address.port}"
        # create_server appends the address to its text; the system's own text is enough.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise EnvironmentFailure("port-in-use", f"cannot listen on {where}: {reason}") from None
    with listener:
        # Connections inherit it. asyncio sets it only where a socket names its protocol; this one does not.
        # Without it a response's body waits until the client acknowledges its head: 40 ms (RFC 896).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener
