r"""Which server a TLS client names when it begins (SNI), also where that comes in several segments.

Rules:

* Only the beginning of a connection is looked at, in the order of its bytes; what comes out of order, or is
  no ClientHello, ends the look at that connection.
* What is held of a connection and how many are held at once is bounded; the oldest gives way.
* A name is ASCII (RFC 6066, 3): what else stands there is told as `\xff`.

With ECH it is the outer name that is seen. QUIC is not looked into.

Sources: RFC 8446 (4, 5.1), RFC 6066 (3).
"""

from typing import Dict, Hashable, NamedTuple, Optional

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_RECORD_HEADER, _MESSAGE_HEADER = 5, 4
_MOST_RECORD = 16384
# Post-quantum keys make it some 2 KB; nobody names a server behind this.
MOST_BYTES = 16384
MOST_HELD = 1024
_SERVER_NAME = 0
_HOST_NAME = 0
_MOST_NAME = 255
_SEQUENCES = 1 << 32


class Incomplete(Exception):
    """More is needed to tell."""


def parse_server_name(data: bytes) -> Optional[str]:
    """Return the server that the ClientHello at the beginning of a connection names, or None.

    Raises:
        Incomplete: it may be one, and goes on.

    """
    message = _message(data)
    if message is None:
        return None
    reader = _Reader(message)
    try:
        reader.skip(2 + 32)
        reader.skip(reader.number(1))
        reader.skip(reader.number(2))
        reader.skip(reader.number(1))
        extensions = _Reader(reader.take(reader.number(2)))
        while extensions.left:
            kind, body = extensions.number(2), extensions.take(extensions.number(2))
            if kind == _SERVER_NAME:
                return _host_name(_Reader(body))
    except EOFError:
        # It says that it is complete, and is not.
        return None
    return None


def _message(data: bytes) -> Optional[bytes]:
    """Return the body of a ClientHello, put together of the records that hold it; None for anything else."""
    body = b""
    at = 0
    while True:
        if data[at : at + 1] not in (b"", bytes([_HANDSHAKE])) or data[at + 1 : at + 2] not in (b"", b"\x03"):
            return None
        if len(data) < at + _RECORD_HEADER:
            raise Incomplete
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if not 0 < length <= _MOST_RECORD:
            return None
        begin = at + _RECORD_HEADER
        body += data[begin : begin + length]
        if body[:1] not in (b"", bytes([_CLIENT_HELLO])):
            return None
        if len(body) >= _MESSAGE_HEADER:
            size = int.from_bytes(body[1:_MESSAGE_HEADER], "big")
            if size > MOST_BYTES:
                return None
            if len(body) >= _MESSAGE_HEADER + size:
                return body[_MESSAGE_HEADER : _MESSAGE_HEADER + size]
        if len(data) < begin + length:
            raise Incomplete
        at = begin + length


def _host_name(names: "_Reader") -> Optional[str]:
    names = _Reader(names.take(names.number(2)))
    while names.left:
        kind, name = names.number(1), names.take(names.number(2))
        if kind == _HOST_NAME:
            return name[:_MOST_NAME].decode("ascii", "backslashreplace").lower() or None
    return None


class _Reader:
    """Takes bytes from the front.

    Raises:
        EOFError: there are not as many.

    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise EOFError
        self._at += size
        return self._data[self._at - size : self._at]

    def skip(self, size: int) -> None:
        self.take(size)

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")


class _Held(NamedTuple):
    data: bytes
    following: int


class Hellos:
    """The connections whose first message is not whole yet."""

    def __init__(self) -> None:
        self._held: Dict[Hashable, _Held] = {}

    def name_in(self, connection: Hashable, sequence: int, payload: bytes) -> Optional[str]:
        """Return the server that a segment of a connection, with those before it, names, or None.

        Args:
            connection: whose segment it is, in one direction.
            sequence: its number in the connection, that of its first byte.
            payload: what it carries.

        """
        held = self._held.get(connection)
        if held is None:
            if payload[:1] != bytes([_HANDSHAKE]):
                return None
            held = _Held(b"", sequence)
        elif sequence != held.following:
            if self._is_again(sequence, held):
                return None
            del self._held[connection]
            return None
        data = held.data + payload
        try:
            name = parse_server_name(data)
        except Incomplete:
            self._keep(connection, data, (sequence + len(payload)) % _SEQUENCES)
            return None
        self._held.pop(connection, None)
        return name

    @staticmethod
    def _is_again(sequence: int, held: _Held) -> bool:
        """Tell whether a segment was sent again: it begins within what is held."""
        behind = (held.following - sequence) % _SEQUENCES
        return 0 < behind <= len(held.data)

    def _keep(self, connection: Hashable, data: bytes, following: int) -> None:
        self._held.pop(connection, None)
        if len(data) > MOST_BYTES:
            return
        self._held[connection] = _Held(data, following)
        if len(self._held) > MOST_HELD:
            del self._held[next(iter(self._held))]

    def __len__(self) -> int:
        return len(self._held)
