r"""Which names a DNS message asks for.

Only questions are read, of queries and of nothing else. A message is its sender's word: names are bounded to
255 bytes, pointers only lead backwards, and what is no question ends the look. Bytes that are no plain
letter of a name are told as `\DDD`, as zone files have them, so that no two names look alike.

Sources: RFC 1035 (4.1, 5.1), RFC 4343; IANA's numbers of types.
"""

import struct
from typing import List, NamedTuple, Optional, Tuple

# DNS, and its kin on the link: mDNS and LLMNR.
DNS_PORTS = (53, 5353, 5355)
_HEADER = struct.Struct(">HHHHHH")
_QUESTION = struct.Struct(">HH")
_RESPONSE, _OPCODE = 0x8000, 0x7800
_MOST_QUESTIONS = 8
_MOST_NAME = 255
_MOST_LABEL = 63
_POINTER = 0xC0
_TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 10: "NULL", 12: "PTR", 13: "HINFO", 15: "MX", 16: "TXT",
          28: "AAAA", 33: "SRV", 35: "NAPTR", 43: "DS", 46: "RRSIG", 48: "DNSKEY", 52: "TLSA", 64: "SVCB",
          65: "HTTPS", 99: "SPF", 251: "IXFR", 252: "AXFR", 255: "ANY", 257: "CAA"}  # fmt: skip
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_*")


class Question(NamedTuple):
    """A name that is asked for, in lower case and without the last dot, and the type of record."""

    name: str
    kind: str


def parse_questions(data: bytes, *, is_stream: bool = False) -> List[Question]:
    """Return the questions of a query; none of an answer, or of what is no DNS message.

    Args:
        data: what a datagram carries, or a segment of TCP that a message begins.
        is_stream: whether it is of TCP, where the length of the message stands before it.

    """
    if is_stream:
        data = data[2:]
    if len(data) < _HEADER.size:
        return []
    _, flags, count, _, _, _ = _HEADER.unpack_from(data)
    # Queries and notifications ask; an update has a zone where questions stand.
    if flags & _RESPONSE or (flags & _OPCODE) >> 11 not in (0, 4) or not 0 < count <= _MOST_QUESTIONS:
        return []
    found: List[Question] = []
    at = _HEADER.size
    for _ in range(count):
        named = _name(data, at)
        if named is None:
            return []
        name, at = named
        if len(data) < at + _QUESTION.size:
            return []
        kind, _ = _QUESTION.unpack_from(data, at)
        at += _QUESTION.size
        found.append(Question(name, _TYPES.get(kind, f"TYPE{kind}")))
    return found


def _name(data: bytes, at: int) -> Optional[Tuple[str, int]]:
    """Return the name at a place and where what follows it begins; None for what is no name."""
    labels: List[str] = []
    size = 0
    behind: Optional[int] = None
    lowest = at
    while at < len(data):
        length = data[at]
        if length >= _POINTER:
            # Only to before where this name, or the part that led here, begins: that ends.
            if at + 1 >= len(data):
                return None
            target = (length & 0x3F) << 8 | data[at + 1]
            if behind is None:
                behind = at + 2
            if not _HEADER.size <= target < lowest:
                return None
            at = lowest = target
            continue
        if length > _MOST_LABEL or at + 1 + length > len(data):
            return None
        at += 1
        if not length:
            return ".".join(labels), at if behind is None else behind
        size += length + 1
        if size > _MOST_NAME:
            return None
        labels.append(_label(data[at : at + length]))
        at += length
    return None


def _label(data: bytes) -> str:
    return "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in data.lower())
