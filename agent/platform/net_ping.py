"""One try to reach an address by ICMP, TCP or UDP, and how long the answer took.

Rules:

* Waiting goes by short slices, between which `check` may end it all.
* An answer counts only if it is ours: an echo with our token, from the address that was asked; a connection
  that was made; a datagram from the connected peer. What else arrives is passed over, and prolongs nothing.
* A refusal says that the host is there and nobody listens; being unreachable is what a router, or this host's
  own kernel, says; being lost is that nobody said anything in time.

ICMP uses a raw socket where we may have one, else the kernel's own ping socket.

Sources: RFC 792, RFC 4443; raw(7), icmp(7), ip(7); net/ipv4/ping.c of Linux.
"""

import contextlib
import errno
import os
import select
import socket
import struct
import sys
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

ANSWERED, LOST, REFUSED, UNREACHABLE, FAILED = "answered", "lost", "refused", "unreachable", "failed"
_SLICE_S = 0.1
_TOKEN_BYTES = 16
_MAX_DATAGRAM = 65535
_ECHO = struct.Struct(">BBHHH")  # type, code, checksum, identifier, sequence
_ICMP_REQUEST, _ICMP_REPLY, _ICMP_UNREACHABLE, _ICMP_EXCEEDED = 8, 0, 3, 11
_ICMP6_REQUEST, _ICMP6_REPLY, _ICMP6_UNREACHABLE, _ICMP6_EXCEEDED = 128, 129, 1, 3
_IPV4_HEADER, _IPV6_HEADER = 20, 40
_UNREACHABLE_ERRNOS = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EPROTO)
_HEAR_ERRORS: Dict[int, Tuple[int, int]] = {
    socket.AF_INET: (0, 11),
    socket.AF_INET6: (41, 25),
}  # IP_RECVERR, IPV6_RECVERR
# What those servers answer to; others are sent a few zeros.
_UDP_QUESTIONS: Dict[int, bytes] = {
    # A DNS query for the servers of the root (RFC 1035, 4.1).
    53: bytes.fromhex("4d49 0100 0001 0000 0000 0000 00 0002 0001"),
    # An SNTP request, version 4 (RFC 4330, 5).
    123: b"\x23" + bytes(47),
}
_UDP_QUESTION = bytes(8)

Check = Callable[[], None]


class Attempt(NamedTuple):
    """What came of one try: `latency_s` in seconds where there was an answer, `why` where there was none."""

    outcome: str
    latency_s: Optional[float] = None
    why: str = ""


class Destination(NamedTuple):
    """An address to reach, as the socket module takes it."""

    family: int
    sockaddr: Tuple[object, ...]

    @property
    def address(self) -> str:
        """The address as text."""
        return str(self.sockaddr[0])

    def at(self, port: int) -> Tuple[object, ...]:
        """Return the socket address with a port."""
        return (self.sockaddr[0], port, *self.sockaddr[2:])


class Unresolved(Exception):
    """The name has no address, or the resolver said why not."""


def resolve(name: str, family: int, check: Check) -> List[Destination]:
    """Return the addresses of a name, as the endpoint's own resolver has them, each once.

    The resolver cannot be interrupted: a thread waits for it, which ends by itself when nobody does any more.

    Raises:
        Unresolved: with the reason.

    """
    told: List[object] = []

    def ask() -> None:
        try:
            told.append(socket.getaddrinfo(name, None, family, socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            told.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    while thread.is_alive():
        check()
        thread.join(_SLICE_S)
    (answer,) = told
    if isinstance(answer, OSError):
        raise Unresolved(answer.strerror or str(answer))
    if isinstance(answer, UnicodeError):
        raise Unresolved("no name that could be asked for")
    found: List[Destination] = []
    for entry in answer if isinstance(answer, list) else []:
        destination = Destination(entry[0], entry[4])
        if entry[0] in (socket.AF_INET, socket.AF_INET6) and destination not in found:
            found.append(destination)
    if not found:
        raise Unresolved("no address of this family")
    return found


def pause(seconds: float, check: Check) -> None:
    """Wait, unless `check` ends it."""
    until = time.monotonic() + seconds
    while True:
        check()
        left = until - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, _SLICE_S))


def wait_ready(sock: socket.socket, until: float, check: Check, *, writable: bool = False) -> bool:
    """Tell whether a socket became ready before a time of the monotonic clock."""
    while True:
        check()
        left = until - time.monotonic()
        if left <= 0:
            return False
        ready = _ready(sock, min(left, _SLICE_S), writable=writable)
        if ready:
            return True


def _ready(sock: socket.socket, seconds: float, *, writable: bool) -> bool:
    if hasattr(select, "poll"):
        # select(2) takes no descriptor above 1023.
        poll = select.poll()
        poll.register(sock, select.POLLOUT if writable else select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    reads, writes = ([], [sock]) if writable else ([sock], [])
    # On Windows a refused connection is an exceptional condition.
    return any(select.select(reads, writes, [sock], seconds))


def try_tcp(destination: Destination, port: int, timeout_s: float, check: Check) -> Attempt:
    """Make a connection and close it at once; nothing is sent."""
    with socket.socket(destination.family, socket.SOCK_STREAM) as sock:
        sock.settimeout(0)
        began = time.perf_counter()
        code = sock.connect_ex(destination.at(port))
        if code in (
            errno.EINPROGRESS,
            errno.EWOULDBLOCK,
            getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS),
        ):
            if not wait_ready(sock, time.monotonic() + timeout_s, check, writable=True):
                return Attempt(LOST)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return Attempt(ANSWERED, time.perf_counter() - began) if code == 0 else _failed(code)


def try_udp(destination: Destination, port: int, timeout_s: float, check: Check) -> Attempt:
    """Send one datagram and wait for one: what the port's service answers to, where that is known."""
    with socket.socket(destination.family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0)
        try:
            if sys.platform == "linux":
                # What routers say is heard too (ip(7), ipv6(7)).
                sock.setsockopt(*_HEAR_ERRORS[destination.family], 1)
            # Connected, so that only this peer is heard, and its refusal too.
            sock.connect(destination.at(port))
            began = time.perf_counter()
            sock.send(_UDP_QUESTIONS.get(port, _UDP_QUESTION))
            if not wait_ready(sock, time.monotonic() + timeout_s, check):
                return Attempt(LOST)
            sock.recv(_MAX_DATAGRAM)
        except OSError as error:
            return _failed(error.errno or 0)
        return Attempt(ANSWERED, time.perf_counter() - began)


def _failed(code: int) -> Attempt:
    if code in (errno.ECONNREFUSED, getattr(errno, "WSAECONNREFUSED", errno.ECONNREFUSED), errno.ECONNRESET):
        return Attempt(REFUSED)
    if code == errno.ETIMEDOUT:
        return Attempt(LOST)
    return Attempt(UNREACHABLE if code in _UNREACHABLE_ERRNOS else FAILED, why=os.strerror(code))


class Echo:
    """A socket that sends echo requests to one address and hears the answers.

    Raises:
        PermissionError: neither a raw nor a ping socket may be had.
        OSError: there is no such protocol here.

    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._is_ipv6 = destination.family == socket.AF_INET6
        protocol = socket.IPPROTO_ICMPV6 if self._is_ipv6 else socket.IPPROTO_ICMP
        self._is_raw = True
        try:
            self._socket = socket.socket(destination.family, socket.SOCK_RAW, protocol)
        except PermissionError:
            self._is_raw = False
            self._socket = socket.socket(destination.family, socket.SOCK_DGRAM, protocol)
        self._socket.settimeout(0)
        self._identifier = int.from_bytes(os.urandom(2), "big")
        self._sequence = 0

    def __enter__(self) -> "Echo":  # noqa: PYI034  (Self is not in 3.9)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def attempt(self, timeout_s: float, check: Check) -> Attempt:
        """Send one request and wait for its answer."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        token = os.urandom(_TOKEN_BYTES)
        kind = _ICMP6_REQUEST if self._is_ipv6 else _ICMP_REQUEST
        request = echo_request(kind, self._identifier, self._sequence, token)
        until = time.monotonic() + timeout_s
        try:
            began = time.perf_counter()
            self._socket.sendto(request, self._destination.at(0))
            while wait_ready(self._socket, until, check):
                data, source = self._socket.recvfrom(_MAX_DATAGRAM)
                took = time.perf_counter() - began
                outcome = self._judge(data, str(source[0]), token)
                if outcome is not None:
                    return Attempt(outcome, took if outcome == ANSWERED else None)
        except OSError as error:
            return _failed(error.errno or 0)
        return Attempt(LOST)

    def _judge(self, data: bytes, source: str, token: bytes) -> Optional[str]:
        message = data if self._is_ipv6 else without_header(data)
        is_from_it = source.partition("%")[0] == self._destination.address.partition("%")[0]
        if is_from_it and is_answer(message, self._sequence, token, is_ipv6=self._is_ipv6):
            return ANSWERED
        if self._is_raw and is_error_for(
            message, self._identifier, self._sequence, self._destination, is_ipv6=self._is_ipv6
        ):
            return UNREACHABLE
        return None


def echo_request(kind: int, identifier: int, sequence: int, token: bytes) -> bytes:
    """Return an echo request; of ICMPv6 the kernel makes the check sum anew, with the addresses."""
    unsummed = _ECHO.pack(kind, 0, 0, identifier, sequence) + token
    return _ECHO.pack(kind, 0, checksum(unsummed), identifier, sequence) + token


def checksum(data: bytes) -> int:
    """Return the internet check sum (RFC 1071)."""
    padded = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def without_header(data: bytes) -> bytes:
    """Return the ICMP message in what an IPv4 socket received: a raw one, and macOS, give the header too."""
    if len(data) >= _IPV4_HEADER and data[0] >> 4 == 4 and data[9] == socket.IPPROTO_ICMP:  # noqa: PLR2004
        return data[(data[0] & 15) * 4 :]
    return data


def is_answer(message: bytes, sequence: int, token: bytes, *, is_ipv6: bool) -> bool:
    """Tell whether a message answers our request; a ping socket has an identifier of the kernel's choice."""
    if len(message) < _ECHO.size:
        return False
    kind, code, _, _, told = _ECHO.unpack_from(message)
    wanted = _ICMP6_REPLY if is_ipv6 else _ICMP_REPLY
    return (kind, code, told) == (wanted, 0, sequence) and message[_ECHO.size :] == token


def is_error_for(
    message: bytes, identifier: int, sequence: int, destination: Destination, *, is_ipv6: bool
) -> bool:
    """Tell whether a message says that our request did not get there: the beginning of it stands inside."""
    kinds = (_ICMP6_UNREACHABLE, _ICMP6_EXCEEDED) if is_ipv6 else (_ICMP_UNREACHABLE, _ICMP_EXCEEDED)
    if len(message) < _ECHO.size or message[0] not in kinds:
        return False
    inner = message[_ECHO.size :]
    header = _IPV6_HEADER if is_ipv6 else (inner[0] & 15) * 4 if inner else 0
    if header < _IPV4_HEADER or len(inner) < header + _ECHO.size:
        return False
    target = inner[24:40] if is_ipv6 else inner[16:20]
    with contextlib.suppress(OSError):
        if target != socket.inet_pton(destination.family, destination.address.partition("%")[0]):
            return False
    kind, _, _, told_identifier, told = _ECHO.unpack_from(inner, header)
    request = _ICMP6_REQUEST if is_ipv6 else _ICMP_REQUEST
    return (kind, told_identifier, told) == (request, identifier, sequence)
