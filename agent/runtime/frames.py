"""Frames between the resident agent and its child: one byte of kind, four of length, then the body.

Rules:
1. Each side names the kinds that it takes; any other ends the conversation.
2. Each kind has a limit that both sides know before a byte of the body is read: neither can be made to hold
   more of what the other says.
3. The resident interprets no body but the small JSON of a verdict; an answer stays bytes.

Standard library only: the resident agent imports this module.
"""

import os
import struct
from typing import FrozenSet, Iterator, Mapping, NamedTuple, Optional

from agent.progress import MAX_PROGRESS_BYTES
from protocol.envelope import MAX_ENVELOPE_BYTES
from protocol.errors import InvalidInput
from protocol.sealing import MAX_SEALED_BYTES, SIZE_CLASSES_BYTES

HEADER = struct.Struct(">cI")
READ_BYTES = 65536

# From the resident to its child.
TRUST = b"T"  # JSON: whom to obey, and limits; the child reads it while it is still idle
CANDIDATE = b"C"  # JSON, instead of that: a trust bundle to judge
WATCH = b"W"  # JSON, instead of that: a persistent module to run, and its configuration
KEPT = b"K"  # empty: the alert that came first of those not yet answered is on the disk, or was counted
FACTS = b"F"  # JSON: time and the endpoint's facts, for the envelope that follows
ENVELOPE = b"E"  # the delivery's body, byte for byte
CANCEL = b"C"  # a delivery's body that claims to be a cancel, byte for byte
PERMIT = b"P"  # empty: the journal holds the action, run it
SEAL = b"S"  # the signed envelope with the answer, to be encrypted; only where the action is sealed
# From the child to the resident.
READY = b"R"  # JSON: imports are done and the trust is read; which bundle it is
VERDICT = b"V"  # JSON: what the gate says
PROGRESS = b"G"  # JSON: how far the command is, while it runs
ANSWER = b"A"  # JSON list of operation results
SEALED = b"X"  # the OpenPGP message with the envelope that came as SEAL

ALERT = b"L"  # JSON: what a persistent module saw (`agent.runtime.alerts`)
STATE = b"I"  # JSON: how a persistent module is
ENDED = b"Q"  # JSON: why a persistent module cannot go on; the process ends

# What protocol.result allows (a module that loads msgspec), less room for the fixed members.
MAX_ANSWER_BYTES = (1 << 20) - 16384
MAX_BODY_BYTES: Mapping[bytes, int] = {
    # Certificates with many user ids and third-party signatures grow to some 100 KB each; the bundle stands
    # in it as base64 of an envelope.
    TRUST: 8 << 20,
    CANDIDATE: 4 << 20,
    WATCH: 1 << 20,
    KEPT: 0,
    FACTS: 1 << 20,
    ENVELOPE: MAX_ENVELOPE_BYTES,
    CANCEL: MAX_ENVELOPE_BYTES,
    PERMIT: 0,
    READY: 4096,
    VERDICT: 65536,
    PROGRESS: MAX_PROGRESS_BYTES,
    ANSWER: MAX_ANSWER_BYTES,
    SEAL: SIZE_CLASSES_BYTES[-1],
    SEALED: MAX_SEALED_BYTES,
    ALERT: 8192,
    STATE: 4096,
    ENDED: 4096,
}


class Frame(NamedTuple):
    """One whole frame."""

    kind: bytes
    body: bytes


def encode_frame(kind: bytes, body: bytes = b"") -> bytes:
    """Encode one frame; a body over its kind's limit is a programming error of the sender."""
    if len(body) > MAX_BODY_BYTES[kind]:
        raise ValueError(f"frame {kind!r} of {len(body)} bytes")
    return HEADER.pack(kind, len(body)) + body


def _require_header(header: bytes, expect: FrozenSet[bytes]) -> int:
    kind, length = HEADER.unpack(header)
    if kind not in expect:
        raise InvalidInput("bad-document", f"unexpected frame {kind!r}")
    if length > MAX_BODY_BYTES[kind]:
        raise InvalidInput("too-large", f"frame {kind!r} of {length} bytes")
    return int(length)


class FrameReader:
    """Cuts a stream of bytes, fed as they arrive, into frames of the expected kinds."""

    def __init__(self, expect: FrozenSet[bytes]) -> None:
        self._expect = expect
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that `data` completes.

        Raises:
            InvalidInput: `bad-document` or `too-large`; the stream is of no further use.

        """
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            length = _require_header(bytes(self._buffer[: HEADER.size]), self._expect)
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            frame = Frame(bytes(self._buffer[:1]), bytes(self._buffer[HEADER.size : end]))
            del self._buffer[:end]
            yield frame


def _read_exactly(fd: int, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        data = os.read(fd, min(READ_BYTES, count - len(parts)))
        if not data:
            raise EOFError
        parts += data
    return bytes(parts)


def read_frame(fd: int, *expect: bytes) -> Frame:
    """Read one frame of one of these kinds, blocking; for the child.

    Raises:
        EOFError: the other side is gone.
        InvalidInput: `bad-document` or `too-large`.

    """
    header = _read_exactly(fd, HEADER.size)
    length = _require_header(header, frozenset(expect))
    return Frame(header[:1], _read_exactly(fd, length))


def write_frame(fd: int, kind: bytes, body: bytes = b"") -> None:
    """Write one frame, blocking; for the child. Raises `BrokenPipeError` when nobody reads."""
    data: Optional[memoryview] = memoryview(encode_frame(kind, body))
    while data:
        data = data[os.write(fd, data) :]
