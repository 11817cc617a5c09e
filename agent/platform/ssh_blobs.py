"""Public keys of SSH in the form in which they travel: what they are, how long, how OpenSSH names them.

Sources: RFC 4253, 6.6; RFC 5656; RFC 8709; OpenSSH's PROTOCOL.certkeys and PROTOCOL.u2f. The test for keys
that Infineon's chips made is that of the paper "The Return of Coppersmith's Attack" (CVE-2017-15361).
"""

import base64
import hashlib
import struct
from typing import List, NamedTuple, Optional, Tuple

_CERTIFICATE = b"-cert-v01@openssh.com"
# How many fields of a key follow its name.
_FIELDS = {
    b"ssh-rsa": 2,
    b"ssh-dss": 4,
    b"ecdsa-sha2-nistp256": 2,
    b"ecdsa-sha2-nistp384": 2,
    b"ecdsa-sha2-nistp521": 2,
    b"ssh-ed25519": 1,
    b"ssh-ed448": 1,
    b"sk-ecdsa-sha2-nistp256@openssh.com": 3,
    b"sk-ssh-ed25519@openssh.com": 2,
}
_BITS = {
    b"ecdsa-sha2-nistp256": 256,
    b"ecdsa-sha2-nistp384": 384,
    b"ecdsa-sha2-nistp521": 521,
    b"ssh-ed25519": 256,
    b"ssh-ed448": 456,
    b"sk-ecdsa-sha2-nistp256@openssh.com": 256,
    b"sk-ssh-ed25519@openssh.com": 256,
}
_RSA, _DSA = b"ssh-rsa", b"ssh-dss"
ALGORITHMS = frozenset(_FIELDS) | frozenset(
    name.replace(b"@openssh.com", b"") + _CERTIFICATE for name in _FIELDS
)
_LEAST_RSA_BITS = 2048
_ROCA_BASE = 65_537
_ROCA_PRIMES = (
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
)  # fmt: skip
_FOR_EVER = (1 << 64) - 1
_MOST_PRINCIPALS = 64


class Certificate(NamedTuple):
    """What a certificate says: who signed it for whom, until when (seconds since 1970; None: for ever)."""

    key_id: bytes
    is_host: bool
    principals: Tuple[bytes, ...]
    valid_before_s: Optional[int]
    signer_sha256: str


class PublicKey(NamedTuple):
    """A public key: the name of its kind, bits where known, fingerprints as OpenSSH prints them."""

    algorithm: bytes
    bits: Optional[int]
    sha256: str
    md5: str
    weak: Tuple[str, ...]
    certificate: Optional[Certificate] = None


class _Blob:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        part = self._data[self.at : self.at + size]
        if len(part) < size:
            raise ValueError("a key is too short")
        self.at += size
        return part

    def string(self) -> bytes:
        return self.take(int(struct.unpack(">I", self.take(4))[0]))

    def number(self) -> int:
        return int(struct.unpack(">Q", self.take(8))[0])

    def is_left(self) -> bool:
        return self.at < len(self._data)


def packed(*fields: bytes) -> bytes:
    """Return fields as they travel, each behind its length."""
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def packed_number(number: int) -> bytes:
    """Return a positive number as a field's content: a zero byte before a set highest bit."""
    return number.to_bytes(number.bit_length() // 8 + 1, "big") if number else b""


def fingerprints(blob: bytes) -> Tuple[str, str]:
    """Return SHA-256 and MD5 of a key, as `ssh-keygen -l` prints them."""
    sha256 = base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")
    md5 = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return f"SHA256:{sha256}", "MD5:" + ":".join(md5[at : at + 2] for at in range(0, 32, 2))


def parse_public(data: bytes) -> PublicKey:
    """Return what a public key or certificate is.

    Raises:
        ValueError: it is none, or of no kind that is known.

    """
    blob = _Blob(data)
    algorithm = blob.string()
    is_certificate = algorithm.endswith(_CERTIFICATE)
    plain = algorithm
    if is_certificate:
        plain = algorithm[: -len(_CERTIFICATE)]
        plain += b"@openssh.com" if plain.startswith(b"sk-") else b""
        blob.string()  # a nonce
    if plain not in _FIELDS:
        raise ValueError("a key is of no known kind")
    fields = [blob.string() for _ in range(_FIELDS[plain])]
    certificate = _certificate(blob) if is_certificate else None
    if blob.is_left():
        raise ValueError("a key is too long")
    # A certificate is called by the fingerprint of the key in it.
    sha256, md5 = fingerprints(packed(plain, *fields))
    bits = _BITS.get(plain)
    weak: List[str] = []
    if plain == _RSA:
        exponent, modulus = (int.from_bytes(field, "big") for field in fields)
        bits = modulus.bit_length()
        weak = list(_rsa_weaknesses(modulus, exponent))
    elif plain == _DSA:
        bits = int.from_bytes(fields[0], "big").bit_length()
        weak = ["dsa"]
    return PublicKey(algorithm, bits, sha256, md5, tuple(weak), certificate)


def _certificate(blob: _Blob) -> Certificate:
    blob.number()  # its serial number
    kind = int(struct.unpack(">I", blob.take(4))[0])
    key_id = blob.string()
    listed = _Blob(blob.string())
    principals: List[bytes] = []
    while listed.is_left() and len(principals) < _MOST_PRINCIPALS:
        principals.append(listed.string())
    blob.number()
    before = blob.number()
    for _ in range(3):
        blob.string()  # critical options, extensions, reserved
    signer, _ = fingerprints(blob.string())
    blob.string()  # the signature
    until = before if before != _FOR_EVER else None
    return Certificate(key_id, kind == 2, tuple(principals), until, signer)  # noqa: PLR2004  (SSH2_CERT_TYPE_HOST)


def _rsa_weaknesses(modulus: int, exponent: int) -> Tuple[str, ...]:
    found = []
    if modulus.bit_length() < _LEAST_RSA_BITS:
        found.append("short")
    if exponent < 3 or not exponent % 2:  # noqa: PLR2004  (RFC 8017, 3.1)
        found.append("exponent")
    if modulus and all(modulus % prime in _powers(prime) for prime in _ROCA_PRIMES):
        found.append("roca")
    return tuple(found)


def _powers(prime: int) -> "frozenset[int]":
    """Return what a number of the flawed form can leave when it is divided by a prime."""
    power, found = 1, set()
    while power not in found:
        found.add(power)
        power = power * _ROCA_BASE % prime
    return frozenset(found)
