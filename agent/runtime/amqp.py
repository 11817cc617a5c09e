"""pika, without the adapters that the resident agent does not use, and its loop as ours.

`pika.adapters` imports its asyncio adapter, and with it all of asyncio: 3.3 MiB on every endpoint, for
nothing. An empty stand-in takes that one module's place before pika is imported; nothing else is changed.
"""

import sys
import types
from typing import Callable

_UNUSED = "pika.adapters.asyncio_connection"

if "pika" not in sys.modules:
    _stand_in = types.ModuleType(_UNUSED)
    _stand_in.AsyncioConnection = None  # type: ignore[attr-defined]  # the name that pika.adapters imports
    sys.modules[_UNUSED] = _stand_in

import pika  # noqa: E402  (the stand-in must come first)
from pika.adapters.select_connection import IOLoop, SelectConnection  # noqa: E402
from pika.channel import Channel  # noqa: E402

__all__ = ["Channel", "IOLoop", "PikaLoop", "SelectConnection", "pika"]


class PikaLoop:
    """Adapts pika's loop to `agent.runtime.loop.Loop`, so that one loop serves broker and children."""

    def __init__(self, ioloop: IOLoop) -> None:
        self._ioloop = ioloop

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever `fd` can be read or is at its end."""
        self._ioloop.add_handler(fd, lambda _fd, _events: callback(), IOLoop.READ)

    def remove_reader(self, fd: int) -> None:
        """Stop watching `fd`."""
        self._ioloop.remove_handler(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Call back once after `delay_s` and return a handle for `cancel`."""
        return self._ioloop.call_later(delay_s, callback)

    def cancel(self, handle: object) -> None:
        """Forget a timer."""
        self._ioloop.remove_timeout(handle)
