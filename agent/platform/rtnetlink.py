"""Asking the kernel for its tables of the network by rtnetlink: links, addresses, routes, neighbours.

Rules:

* Only dumps are asked for (NLM_F_DUMP): nothing here can change a table.
* What comes from anybody but the kernel is passed over; a message that was cut is an error.
* A table that changed while it was told is told as it came, and `was_interrupted` says so.
* A request that the kernel does not know is an OSError with the kernel's own number.

Decoding what a message holds is the business of `net_links` and `net_routes`.

Sources: netlink(7), rtnetlink(7); include/uapi/linux/netlink.h.
"""

import os
import socket
import struct
from typing import Dict, Iterator, NamedTuple, Optional, Tuple

RTM_NEWLINK, RTM_GETLINK = 16, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30

_NETLINK_ROUTE = 0
_NLMSG_ERROR, _NLMSG_DONE, _NLMSG_OVERRUN = 2, 3, 4
_NLM_F_DUMP_INTR = 0x10
_NLM_F_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_TYPE_BITS = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_ERROR = struct.Struct("=i")
# The kernel fills at most 32 KiB at a time, or one message, if that is larger (af_netlink.c, netlink_dump).
_RECEIVE_BYTES = 1 << 18
_ADDRESS_BYTES: Dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
# The kernel answers at once; this is for one that does not.
_SILENCE_S = 10.0


class Message(NamedTuple):
    """One message of the kernel's: its type and what follows its header."""

    kind: int
    body: bytes


class RouteNetlink:
    """A socket to the kernel, for the network namespace that the thread is in when it is made.

    Raises:
        OSError: there is no netlink here, or it may not be used.

    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
        self._socket.settimeout(_SILENCE_S)
        self._sequence = 0
        self.was_interrupted = False

    def __enter__(self) -> "RouteNetlink":  # noqa: PYI034  (Self is not in 3.9)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def dump(self, request: int, body: bytes, answer: int) -> Iterator[bytes]:
        """Yield what each message of a table holds; take them all before asking for another table.

        Args:
            request: such as RTM_GETLINK.
            body: the fixed part of a request, with the family.
            answer: the type of messages wanted, such as RTM_NEWLINK.

        Raises:
            OSError: the kernel refused or does not answer.

        """
        self._sequence += 1
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, request, _NLM_F_DUMP, self._sequence, 0) + body)
        while True:
            for message in self._receive():
                if message.kind == _NLMSG_DONE:
                    # Since Linux 4.16 an error behind the first messages stands in here.
                    _raise_error(message.body)
                    return
                if message.kind == _NLMSG_ERROR:
                    _raise_error(message.body)
                    return
                if message.kind == answer:
                    yield message.body

    def _receive(self) -> Iterator[Message]:
        data, _, flags, sender = self._socket.recvmsg(_RECEIVE_BYTES)
        if flags & socket.MSG_TRUNC:
            raise OSError("the kernel's message is larger than any is")
        if sender[0] != 0:
            return
        for sequence, message_flags, message in parse_messages(data):
            if sequence == self._sequence:
                if message_flags & _NLM_F_DUMP_INTR:
                    self.was_interrupted = True
                yield message


def _raise_error(body: bytes) -> None:
    number = -_ERROR.unpack_from(body)[0] if len(body) >= _ERROR.size else 0
    if number > 0:
        raise OSError(number, os.strerror(number))


def parse_messages(data: bytes) -> Iterator[Tuple[int, int, Message]]:
    """Yield sequence number, flags and message of what was received at once."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield sequence, flags, Message(kind, data[at + _HEADER.size : at + length])
        at += (length + 3) & ~3


def parse_attributes(data: bytes) -> Dict[int, bytes]:
    """Return attributes by their type; of a type that stands twice the last, as the kernel reads them."""
    return dict(attribute_list(data))


def attribute_list(data: bytes) -> Iterator[Tuple[int, bytes]]:
    """Yield type and value of each attribute, in order, until one has an impossible length."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & _TYPE_BITS, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def number_of(value: Optional[bytes]) -> Optional[int]:
    """Return an attribute of 1, 2, 4 or 8 bytes as a number in the machine's order; else None."""
    form = {1: "=B", 2: "=H", 4: "=I", 8: "=Q"}.get(len(value)) if value is not None else None
    if form is None or value is None:
        return None
    (number,) = struct.unpack(form, value)
    return int(number)


def text_of(value: Optional[bytes]) -> str:
    """Return an attribute that is a name: up to its NUL. Names of interfaces can hold any byte but few."""
    return (value or b"").split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def mac_of(value: Optional[bytes]) -> Optional[str]:
    """Return a hardware address with colons; None where it is none (a tunnel has an IP address there)."""
    if value is None or len(value) not in (6, 8, 20):  # Ethernet, IEEE 1394 and 802.15.4, InfiniBand
        return None
    return value.hex(":")


def address_of(family: int, value: Optional[bytes]) -> Optional[str]:
    """Return an IP address as text; None where it is none."""
    if value is None or len(value) != _ADDRESS_BYTES.get(family):
        return None
    return socket.inet_ntop(family, value)
