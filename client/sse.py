"""Decodes server-sent events.

Source: WHATWG HTML, section 9.2.6, "Interpreting an event stream". What our server does not send is left out:
a line ends with LF or CR LF, never with a lone CR, and `retry` is ignored.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from protocol.errors import InvalidInput

# One event holds one result envelope inside of JSON: 2.5 MiB where it is sealed.
MAX_EVENT_BYTES = 4 << 20


class ServerEvent(NamedTuple):
    """One event: its kind, its data, and the last id that the stream gave."""

    kind: str
    data: bytes
    last_id: str


def decode_events(chunks: Iterable[bytes], last_id: str = "") -> Iterator[ServerEvent]:
    """Yield the events of a stream that comes in arbitrary chunks; an unfinished last one is dropped.

    Raises:
        InvalidInput: `too-large` where a line or an event has more than `MAX_EVENT_BYTES`.

    """
    kind = ""
    data: list[bytes] = []
    size = 0
    for line in _lines(chunks):
        if not line:
            if data:
                yield ServerEvent(kind or "message", b"\n".join(data), last_id)
            kind, data, size = "", [], 0
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            size += len(value) + 1
            if size > MAX_EVENT_BYTES:
                raise InvalidInput("too-large", f"an event of more than {MAX_EVENT_BYTES} bytes")
            data.append(value)
        elif name == b"event":
            kind = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            last_id = value.decode("utf-8", "replace")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
        if len(rest) > MAX_EVENT_BYTES:
            raise InvalidInput("too-large", f"a line of more than {MAX_EVENT_BYTES} bytes")
