"""OpenPGP framing: armour, packets, subpackets and integers, down to raw bytes that nobody re-serialises.

Rules:
1. Old and new packet headers; no partial and no indeterminate lengths; every byte belongs to a packet.
2. Armour is one block of the expected kind with nothing around it but white space; a check sum that is there
   must be right (RFC 9580, section 6.1, no longer asks for one).
3. What is hashed later is kept as the bytes that came in: re-encoded subpackets give another hash.
4. Integers may be written with leading zeros, as some programs do; trailing bytes are refused.

Nothing is decided here about trust. Source: RFC 4880 and RFC 9580, sections 4 to 6.
"""

import base64
import binascii
import hashlib
import re
from functools import lru_cache
from typing import List, NamedTuple, Optional, Tuple

SIGNATURE, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY = 2, 5, 6, 7
MARKER, TRUST, USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE, PADDING = 10, 12, 13, 14, 17, 21

# gpg and sq write lines of 64 characters; the block must come alone.
_ARMOUR = re.compile(
    rb"\s*-----BEGIN PGP ([A-Z ]{1,32})-----[ \t]*\r?\n"
    rb"((?:[A-Za-z][A-Za-z0-9-]{0,31}:[^\r\n]{0,1024}\r?\n)*)"
    rb"[ \t]*\r?\n"
    rb"((?:[A-Za-z0-9+/]{1,76}={0,2}[ \t]*\r?\n)+)"
    rb"(?:=([A-Za-z0-9+/]{4})[ \t]*\r?\n)?"
    rb"-----END PGP \1-----\s*"
)
VERSION = 4  # of keys and signatures; 3 is broken, 5 and 6 are not what gpg makes today
# First octet of a length (RFC 4880, 4.2.2): from here on it has two octets, is partial, has five.
_TWO_OCTETS, _PARTIAL, _FIVE_OCTETS = 192, 224, 255
_MAX_KEY_BYTES = 0xFFFF  # two octets of length go into the fingerprint (RFC 4880, 12.2)
_CRC_INIT = 0xB704CE
_CRC_POLY = 0x864CFB


class Refusal(Exception):
    """Why a key or a signature is not accepted; `protocol.openpgp` turns it into `InvalidInput`."""


class Packet(NamedTuple):
    """One packet: its tag and its body without the header."""

    tag: int
    body: bytes


class Subpacket(NamedTuple):
    """One subpacket of a signature."""

    type: int
    is_critical: bool
    body: bytes


class SignaturePacket(NamedTuple):
    """A version 4 signature. `hashed_part` are the octets from version to hashed subpackets, as they came."""

    type: int
    algorithm: int
    hash_algorithm: int
    hashed_part: bytes
    hashed_area: bytes
    unhashed_area: bytes
    digest_start: bytes
    values: bytes

    def digest_input(self, subject: bytes) -> bytes:
        """Return the octets that the signature covers when it is over `subject` (RFC 4880, 5.2.4)."""
        return b"%b%b\x04\xff%b" % (subject, self.hashed_part, len(self.hashed_part).to_bytes(4, "big"))


class KeyPacket(NamedTuple):
    """A version 4 public key or subkey: `created` in Unix seconds, `material` what follows the algorithm."""

    created: int
    algorithm: int
    material: bytes
    body: bytes

    @property
    def subject(self) -> bytes:
        """The octets by which a signature over the key covers it (RFC 4880, 5.2.4)."""
        return b"\x99%b%b" % (len(self.body).to_bytes(2, "big"), self.body)

    @property
    def fingerprint(self) -> str:
        """40 upper-case hex digits (RFC 4880, 12.2: SHA-1, fixed by the format)."""
        return hashlib.sha1(self.subject, usedforsecurity=False).hexdigest().upper()


@lru_cache(maxsize=1)
def _crc_table() -> Tuple[int, ...]:
    table = []
    for index in range(256):
        value = index << 16
        for _ in range(8):
            value = (value << 1) ^ (_CRC_POLY if value & 0x800000 else 0)
        table.append(value & 0xFFFFFF)
    return tuple(table)


def crc24(data: bytes) -> int:
    """Return the check sum of armour (RFC 4880, section 6.1)."""
    table, value = _crc_table(), _CRC_INIT
    for octet in data:
        value = ((value << 8) & 0xFFFFFF) ^ table[(value >> 16) ^ octet]
    return value


def remove_armour(data: bytes, kind: str) -> bytes:
    """Return the binary form of `data`, which may be armoured as `kind`, e.g. `PUBLIC KEY BLOCK`.

    Raises:
        Refusal: not exactly one block of that kind, or damaged.

    """
    if not data:
        raise Refusal("empty")
    if data[0] & 0x80:  # bit 7 is set in every packet header and in no character of armour
        return data
    match = _ARMOUR.fullmatch(data)
    if match is None:
        raise Refusal("neither binary OpenPGP nor exactly one armoured block")
    label, _, text, check = match.groups()
    if label != kind.encode("ascii"):
        raise Refusal(f"an armoured {label.decode('ascii')} where a {kind} is expected")
    try:
        binary = base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        raise Refusal("the armour is not base64") from None
    if check is not None and base64.b64decode(check) != crc24(binary).to_bytes(3, "big"):
        raise Refusal("the check sum of the armour is wrong")
    return binary


def _read(data: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(data):
        raise Refusal("truncated")
    return data[offset : offset + size]


def _read_integer(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(_read(data, offset, size), "big")


def _read_header(data: bytes, offset: int) -> Tuple[int, int, int]:
    """Return tag, offset of the body and length of the packet at `offset`."""
    first = data[offset]
    if not first & 0x80:
        raise Refusal("not an OpenPGP packet")
    offset += 1
    if not first & 0x40:  # old format: tag in bits 5 to 2, kind of length in bits 1 and 0
        size = (1, 2, 4, 0)[first & 3]
        if size == 0:
            raise Refusal("a packet of indeterminate length")
        return (first >> 2) & 0x0F, offset + size, _read_integer(data, offset, size)
    length = _read_integer(data, offset, 1)
    if _PARTIAL <= length < _FIVE_OCTETS:
        raise Refusal("a packet of partial length")
    body, length = _read_new_length(data, offset)
    return first & 0x3F, body, length


def _read_new_length(data: bytes, offset: int) -> Tuple[int, int]:
    """Return offset behind, and value of, a length of one, two or five octets (RFC 4880, 5.2.3.1)."""
    length = _read_integer(data, offset, 1)
    if length < _TWO_OCTETS:
        return offset + 1, length
    if length < _FIVE_OCTETS:
        low = _read_integer(data, offset + 1, 1)
        return offset + 2, ((length - _TWO_OCTETS) << 8) + low + _TWO_OCTETS
    return offset + 5, _read_integer(data, offset + 1, 4)


def split_packets(data: bytes, max_packets: int) -> List[Packet]:
    """Split `data` into packets.

    Raises:
        Refusal: framing that is not allowed, more than `max_packets`, or bytes that belong to no packet.

    """
    packets: List[Packet] = []
    offset = 0
    while offset < len(data):
        if len(packets) == max_packets:
            raise Refusal(f"more than {max_packets} packet{'s' if max_packets > 1 else ''}")
        tag, offset, length = _read_header(data, offset)
        packets.append(Packet(tag, _read(data, offset, length)))
        offset += length
    return packets


def parse_subpackets(area: bytes) -> List[Subpacket]:
    """Split a subpacket area of a signature.

    Raises:
        Refusal: malformed.

    """
    subpackets: List[Subpacket] = []
    offset = 0
    while offset < len(area):
        offset, length = _read_new_length(area, offset)
        if length == 0:
            raise Refusal("an empty subpacket")
        content = _read(area, offset, length)
        subpackets.append(Subpacket(content[0] & 0x7F, bool(content[0] & 0x80), content[1:]))
        offset += length
    return subpackets


def parse_signature(body: bytes) -> SignaturePacket:
    """Parse the body of a version 4 signature packet (RFC 4880, 5.2.3).

    Raises:
        Refusal: malformed, or another version.

    """
    version = _read_integer(body, 0, 1)
    if version != VERSION:
        raise Refusal(f"a signature of version {version}, only 4 is supported")
    hashed_end = 6 + _read_integer(body, 4, 2)
    unhashed_end = hashed_end + 2 + _read_integer(body, hashed_end, 2)
    return SignaturePacket(
        type=body[1],
        algorithm=body[2],
        hash_algorithm=body[3],
        hashed_part=body[:hashed_end],
        hashed_area=body[6:hashed_end],
        unhashed_area=_read(body, hashed_end + 2, unhashed_end - hashed_end - 2),
        digest_start=_read(body, unhashed_end, 2),
        values=body[unhashed_end + 2 :],
    )


def parse_key(body: bytes) -> KeyPacket:
    """Parse the body of a version 4 public key or subkey packet (RFC 4880, 5.5.2).

    Raises:
        Refusal: malformed, or another version.

    """
    version = _read_integer(body, 0, 1)
    if version != VERSION:
        raise Refusal(f"a key of version {version}, only 4 is supported")
    if len(body) > _MAX_KEY_BYTES:
        raise Refusal("a key longer than its length field")
    return KeyPacket(_read_integer(body, 1, 4), _read_integer(body, 5, 1), body[6:], body)


def read_integers(data: bytes, count: int) -> List[bytes]:
    """Read exactly `count` multiprecision integers (RFC 4880, 3.2), each as big-endian bytes.

    Raises:
        Refusal: malformed, or trailing bytes.

    """
    values: List[bytes] = []
    offset = 0
    for _ in range(count):
        size = (_read_integer(data, offset, 2) + 7) // 8
        values.append(_read(data, offset + 2, size))
        offset += 2 + size
    if offset != len(data):
        raise Refusal("trailing bytes after the integers")
    return values


def read_curve(material: bytes) -> Tuple[bytes, bytes]:
    """Split the material of an elliptic-curve key into curve OID and public point (RFC 6637, section 9).

    Raises:
        Refusal: malformed.

    """
    oid, point, rest = read_curve_and_rest(material)
    if rest:
        raise Refusal("trailing bytes after the integers")
    return oid, point


def read_curve_and_rest(material: bytes) -> Tuple[bytes, bytes, bytes]:
    """Split as `read_curve` and return what follows the point as well: parameters, of keys for ECDH.

    Raises:
        Refusal: malformed.

    """
    start = 1 + _read_integer(material, 0, 1)
    oid = _read(material, 1, start - 1)
    size = (_read_integer(material, start, 2) + 7) // 8
    point = _read(material, start + 2, size)
    return oid, point, material[start + 2 + size :]


def old_signature_key(body: bytes) -> Optional[Tuple[int, str]]:
    """Return type and key id of a version 2 or 3 signature (RFC 4880, 5.2.2); None for other versions."""
    if body[:1] not in (b"\x02", b"\x03"):
        return None
    return _read_integer(body, 2, 1), _read(body, 7, 8).hex().upper()
