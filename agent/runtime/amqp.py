"""pika, without the adapters that the resident agent does not use.

`pika.adapters` imports its asyncio adapter, and with it all of asyncio: 3.3 MiB on every endpoint, for
nothing. An empty stand-in takes that one module's place before pika is imported; nothing else is changed.
"""

import sys
import types

_UNUSED = "pika.adapters.asyncio_connection"

if "pika" not in sys.modules:
    _stand_in = types.ModuleType(_UNUSED)
    _stand_in.AsyncioConnection = None  # type: ignore[attr-defined]  # the name that pika.adapters imports
    sys.modules[_UNUSED] = _stand_in

import pika  # noqa: E402  (the stand-in must come first)
from pika.adapters.select_connection import IOLoop, SelectConnection  # noqa: E402
from pika.channel import Channel  # noqa: E402

__all__ = ["Channel", "IOLoop", "SelectConnection", "pika"]
