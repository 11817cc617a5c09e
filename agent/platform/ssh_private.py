"""Private keys in files: which key it is and whether it is encrypted. What is secret in them is not kept.

Of an encrypted key only those formats that keep the public half beside it tell which key it is: OpenSSH's own
and PuTTY's.

Sources: OpenSSH's PROTOCOL.key; RFC 7468 (PEM), RFC 1421 (its headers), RFC 8017 and 5915 and 8410 (DER);
PuTTY's manual, appendix C.
"""

import base64
import binascii
from typing import Dict, List, NamedTuple, Optional, Tuple

from agent.platform.ssh_blobs import PublicKey, packed, packed_number, parse_public

_MAGIC = b"openssh-key-v1\0"
_SEQUENCE, _INTEGER, _BITS, _OCTETS, _OBJECT = 0x30, 0x02, 0x03, 0x04, 0x06
_CURVE, _POINT = 0xA0, 0xA1
_CURVES = {
    "2a8648ce3d030107": ("nistp256", 32),
    "2b81040022": ("nistp384", 48),
    "2b81040023": ("nistp521", 66),
}
_OID_RSA, _OID_DSA, _OID_EC, _OID_ED25519 = "2a864886f70d010101", "2a8648ce380401", "2a8648ce3d0201", "2b6570"
_MOST_LENGTH_BYTES = 4
# Numbers of keys that anybody uses have at most 16,384 bits.
_MOST_NUMBER_BYTES = 4096
_KINDS = (b"OPENSSH ", b"RSA ", b"DSA ", b"EC ", b"", b"ENCRYPTED ")
_LABELS = tuple(kind + b"PRIVATE KEY" for kind in _KINDS)


class PrivateKey(NamedTuple):
    """A private key: its format, whether a passphrase protects it, and which it is where that can be told."""

    format: str
    is_encrypted: bool
    public: Optional[PublicKey] = None
    comment: bytes = b""


def parse_pem(data: bytes) -> Tuple[List[PrivateKey], int]:
    """Return the private keys of a file in PEM, and how many more were not understood."""
    found: List[PrivateKey] = []
    broken = 0
    for part in data.replace(b"\r\n", b"\n").split(b"-----BEGIN ")[1:]:
        label, dashes, rest = part.partition(b"-----")
        if not dashes or label not in _LABELS:
            continue
        body, ending, _ = rest.partition(b"-----END " + label + b"-----")
        try:
            found.append(_parse_block(label, body if ending else b"no end"))
        except (ValueError, binascii.Error):
            broken += 1
    return found, broken


def _parse_block(label: bytes, body: bytes) -> PrivateKey:
    headers, blank, text = body.partition(b"\n\n")
    if b":" not in headers or not blank:
        headers, text = b"", body
    data = base64.b64decode(b"".join(text.split()), validate=True)
    if label == b"OPENSSH PRIVATE KEY":
        return _openssh(data)
    if label == b"ENCRYPTED PRIVATE KEY":
        return PrivateKey("pkcs8", is_encrypted=True)
    if b"ENCRYPTED" in headers:
        return PrivateKey("pem", is_encrypted=True)
    if label == b"PRIVATE KEY":
        return PrivateKey("pkcs8", is_encrypted=False, public=_pkcs8(data))
    fields = _items(_only(data, _SEQUENCE))
    if label == b"EC PRIVATE KEY":
        return PrivateKey("pem", is_encrypted=False, public=_elliptic(fields, None))
    numbers = [_number(field) for field in fields]
    return PrivateKey(
        "pem", is_encrypted=False, public=_rsa(numbers) if label[:3] == b"RSA" else _dsa(numbers[1:5])
    )


def _openssh(data: bytes) -> PrivateKey:
    if not data.startswith(_MAGIC):
        raise ValueError("a key of OpenSSH does not begin as one")
    parts, at = [], len(_MAGIC)
    for _ in range(3):
        part, at = _string(data, at)
        parts.append(part)
    if data[at : at + 4] != b"\0\0\0\1":
        raise ValueError("not one key in one file")
    public, at = _string(data, at + 4)
    _string(data, at)
    return PrivateKey("openssh", is_encrypted=parts[0] != b"none", public=parse_public(public))


def _string(data: bytes, at: int) -> Tuple[bytes, int]:
    size = int.from_bytes(data[at : at + 4], "big")
    part = data[at + 4 : at + 4 + size]
    if len(data) < at + 4 or len(part) < size:
        raise ValueError("a key is too short")
    return part, at + 4 + size


def parse_putty(data: bytes) -> PrivateKey:
    """Return the key of a file of PuTTY's.

    Raises:
        ValueError: it is none.

    """
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    fields: Dict[bytes, bytes] = {}
    for number, line in enumerate(lines):
        name, _, value = line.partition(b": ")
        fields.setdefault(name, value)
        if name == b"Public-Lines":
            # A key has some ten lines.
            count = int(value) if value.isdigit() and len(value) < 4 else 0  # noqa: PLR2004
            blob = base64.b64decode(b"".join(lines[number + 1 : number + 1 + count]), validate=True)
            return PrivateKey(
                "putty",
                is_encrypted=fields.get(b"Encryption", b"none") != b"none",
                public=parse_public(blob),
                comment=fields.get(b"Comment", b""),
            )
    raise ValueError("a key of PuTTY has no public half")


class _Item(NamedTuple):
    tag: int
    content: bytes


def _items(data: bytes) -> List[_Item]:
    """Return the items of DER that follow each other."""
    found, at = [], 0
    while at < len(data):
        if at + 2 > len(data):
            raise ValueError("DER ends too soon")
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            length = size & 0x7F
            if not 0 < length <= _MOST_LENGTH_BYTES:
                raise ValueError("DER has a length of no use")
            size = int.from_bytes(data[at : at + length], "big")
            at += length
        if at + size > len(data):
            raise ValueError("DER ends too soon")
        found.append(_Item(tag, data[at : at + size]))
        at += size
    return found


def _only(data: bytes, tag: int) -> bytes:
    items = _items(data)
    if len(items) != 1 or items[0].tag != tag:
        raise ValueError("DER of another kind was expected")
    return items[0].content


def _number(item: _Item) -> int:
    if item.tag != _INTEGER or not 0 < len(item.content) <= _MOST_NUMBER_BYTES or item.content[0] & 0x80:
        raise ValueError("a positive number was expected")
    return int.from_bytes(item.content, "big")


def _rsa(numbers: List[int]) -> PublicKey:
    if len(numbers) < 9:  # noqa: PLR2004  (RFC 8017, A.1.2)
        raise ValueError("a key has too few numbers")
    return parse_public(packed(b"ssh-rsa", packed_number(numbers[2]), packed_number(numbers[1])))


def _dsa(numbers: List[int]) -> PublicKey:
    if len(numbers) != 4:  # noqa: PLR2004  (p, q, g, y)
        raise ValueError("a key has too few numbers")
    return parse_public(packed(b"ssh-dss", *map(packed_number, numbers)))


def _pkcs8(data: bytes) -> Optional[PublicKey]:
    items = _items(_only(data, _SEQUENCE))
    if len(items) < 3:  # noqa: PLR2004  (a version, what it is, the key)
        raise ValueError("PKCS #8 of another form was expected")
    _number(items[0])
    kind, inner = items[1], items[2]
    algorithm = _items(kind.content)
    if kind.tag != _SEQUENCE or inner.tag != _OCTETS or not algorithm or algorithm[0].tag != _OBJECT:
        raise ValueError("PKCS #8 of another form was expected")
    name = algorithm[0].content.hex()
    if name == _OID_RSA:
        return _rsa([_number(item) for item in _items(_only(inner.content, _SEQUENCE))])
    if name == _OID_DSA:
        p, q, g = (
            (_number(item) for item in _items(algorithm[1].content)) if len(algorithm) > 1 else (0, 0, 0)
        )
        secret = _number(_Item(_INTEGER, _only(inner.content, _INTEGER)))
        if not p or p.bit_length() > 1 << 14:
            raise ValueError("a key's numbers make no sense")
        return _dsa([p, q, g, pow(g, secret, p)])
    if name == _OID_EC and len(algorithm) > 1:
        return _elliptic(_items(_only(inner.content, _SEQUENCE)), algorithm[1])
    if name == _OID_ED25519:
        return _ed25519(_only(inner.content, _OCTETS))
    # A key for something else than SSH.
    return None


def _elliptic(fields: List[_Item], curve: Optional[_Item]) -> Optional[PublicKey]:
    """Return a key of a NIST curve; None where the file has no public half, or for another curve."""
    point = b""
    for field in fields:
        if field.tag == _CURVE and curve is None:
            curve = _items(field.content)[0] if field.content else None
        elif field.tag == _POINT:
            # A string of bits: first how many of the last byte are unused, none.
            point = _only(field.content, _BITS)[1:]
    name, size = _CURVES.get(curve.content.hex() if curve is not None else "", ("", 0))
    if not name or len(point) != 2 * size + 1 or point[0] != 4:  # noqa: PLR2004  (uncompressed)
        return None
    return parse_public(packed(b"ecdsa-sha2-" + name.encode("ascii"), name.encode("ascii"), point))


def _ed25519(seed: bytes) -> PublicKey:
    # Only here, and the client loads this file for the module's flags.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return parse_public(packed(b"ssh-ed25519", public))
