"""Asking a server for the time by SNTP version 4, and measuring how far this clock is from it.

Rules:

* The transmit time of a request is random, so that it tells nothing and nobody who does not see it can answer
  (draft-ietf-ntp-data-minimization); an answer that does not repeat it is passed over as if it never came.
* The offset is corrected by the round trip: ((T2 - T1) + (T3 - T4)) / 2. It can be wrong by half the round
  trip at most, if the server's clock is right.
* Whoever says that it has no time (stratum 0 or 16, alarm, a kiss of death) gives none, nor does one whose
  times cannot be: a server that took longer over its answer than the whole round trip.
* Seconds of NTP return to 0 in 2036: of all times that a number can mean, the nearest to this clock is meant.

Sources: RFC 4330, RFC 5905 (7.3, 7.4).
"""

import os
import socket
import struct
import time
from typing import Callable, NamedTuple, Optional

from agent.platform.net_ping import Check, Destination, wait_ready

NTP_PORT = 123
# Leap indicator, version and mode; stratum, poll, precision; root delay, root dispersion; reference;
# times: reference, originate, receive, transmit.
_PACKET = struct.Struct(">BBbbII4sQQQQ")
_REQUEST_FLAGS = 4 << 3 | 3  # version 4, client
_MODE_SERVER = 4
_VERSIONS = range(1, 5)
_ALARM = 3
_MOST_STRATUM = 15
_EPOCH_S = 2_208_988_800  # from 1900 to 1970
_ERA_S = 1 << 32
# What clocks and schedulers may make of a round trip that took no time.
_TOLERANCE_S = 0.01
# Beyond this a server does not trust its own source (MAXDISP, RFC 5905, 7.2).
_MOST_ROOT_S = 16.0
_MAX_DATAGRAM = 65535


class NoTime(Exception):
    """There was no answer, or none that holds a time; says why.

    `is_kiss` where the server wants to be left alone.
    """

    def __init__(self, why: str, *, is_kiss: bool = False) -> None:
        super().__init__(why)
        self.is_kiss = is_kiss


class Reply(NamedTuple):
    """What a server said; `received_s` and `sent_s` are in seconds since 1970, of an era that is not told."""

    version: int
    stratum: int
    reference: bytes
    root_distance_s: float
    received_s: float
    sent_s: float


class Measurement(NamedTuple):
    """How far this clock is from a server's: `offset_s` is above 0 where this clock is behind."""

    offset_s: float
    delay_s: float
    stratum: int
    reference: str
    root_distance_s: float
    server_time_s: float


def build_request(nonce: int) -> bytes:
    """Return a request whose transmit time is a random number of 64 bits."""
    return _PACKET.pack(_REQUEST_FLAGS, 0, 0, 0, 0, 0, b"", 0, 0, 0, nonce)


def is_answer_to(data: bytes, nonce: int) -> bool:
    """Tell whether a datagram answers a request: nothing else in it says so."""
    if len(data) < _PACKET.size:
        return False
    originate: int = _PACKET.unpack_from(data)[8]
    return originate == nonce


def parse_reply(data: bytes) -> Reply:
    """Return what a server's answer says; what follows the fixed part (extensions, keys) is not looked at.

    Raises:
        NoTime: it holds no time that could be used.

    """
    if len(data) < _PACKET.size:
        raise NoTime(f"an answer of {len(data)} bytes, which is too short")
    flags, stratum, _, _, delay, dispersion, reference, _, _, received, sent = _PACKET.unpack_from(data)
    leap, version, mode = flags >> 6, flags >> 3 & 7, flags & 7
    if mode != _MODE_SERVER or version not in _VERSIONS:
        raise NoTime(f"an answer of mode {mode}, version {version}: that is no server's")
    if stratum == 0:
        raise NoTime(f"kiss of death: {_code(reference)}", is_kiss=True)
    if stratum > _MOST_STRATUM or leap == _ALARM:
        raise NoTime(f"the server's own clock is not synchronised (stratum {stratum}, leap indicator {leap})")
    if not received or not sent:
        raise NoTime("an answer without a time")
    distance = delay / 65536 / 2 + dispersion / 65536
    if distance >= _MOST_ROOT_S:
        raise NoTime(f"the server itself is uncertain by {distance:.1f} s")
    return Reply(version, stratum, reference, distance, _seconds(received), _seconds(sent))


def _seconds(timestamp: int) -> float:
    return timestamp / _ERA_S - _EPOCH_S


def _code(reference: bytes) -> str:
    """Return a code of four letters; who is asked can write anything there."""
    return "".join(chr(byte) if 0x21 <= byte <= 0x7E else "?" for byte in reference)  # noqa: PLR2004


def measure(reply: Reply, asked_s: float, took_s: float) -> Measurement:
    """Return how far this clock, which asked at a time and was answered some time later, is from a server's.

    Raises:
        NoTime: the times cannot be.

    """
    processing = reply.sent_s - reply.received_s
    # Between the two an era may end.
    processing -= round(processing / _ERA_S) * _ERA_S
    delay = took_s - processing
    if processing < -_TOLERANCE_S or delay < -_TOLERANCE_S:
        raise NoTime("times that cannot be: the server took longer than the round trip, or less than none")
    received = reply.received_s + round((asked_s - reply.received_s) / _ERA_S) * _ERA_S
    offset = ((received - asked_s) + (received + processing - (asked_s + took_s))) / 2
    reference = (
        _code(reply.reference).rstrip("?") if reply.stratum == 1 else socket.inet_ntoa(reply.reference)
    )
    return Measurement(
        offset, max(delay, 0.0), reply.stratum, reference, reply.root_distance_s, received + processing
    )


def ask(
    destination: Destination,
    port: int,
    timeout_s: float,
    check: Check,
    *,
    wall: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Measurement:
    """Ask a server once and return how far this clock is from its.

    Raises:
        NoTime: it did not answer, or not with a time.

    """
    nonce = int.from_bytes(os.urandom(8), "big") or 1
    strangers = 0
    with socket.socket(destination.family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0)
        try:
            sock.connect(destination.at(port))
            asked_s, began = wall(), monotonic()
            sock.send(build_request(nonce))
            until = time.monotonic() + timeout_s
            while wait_ready(sock, until, check):
                data = sock.recv(_MAX_DATAGRAM)
                # By the clock that nobody sets, so that setting the other meanwhile does not count.
                took = monotonic() - began
                if is_answer_to(data, nonce):
                    return measure(parse_reply(data), asked_s, took)
                strangers += 1
        except OSError as error:
            raise NoTime(os.strerror(error.errno or 0)) from None
    raise NoTime(f"no answer to what was asked, but {strangers} others" if strangers else "no answer")


def best(measurements: "list[Measurement]") -> Optional[Measurement]:
    """Return the measurement with the shortest round trip, which is the least uncertain."""
    return min(measurements, key=lambda one: one.delay_s) if measurements else None
