"""The opponent: makes OpenPGP packets of every kind, right or wrong, octet by octet."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# In the past for every clock: Sequoia has its own, and would find what is made here to be from the future.
NOW = datetime(2026, 11, 1, tzinfo=UTC)
NOW_S = int(NOW.timestamp())
YEAR_S = 365 * 86400
BIRTH_S = NOW_S - 2 * YEAR_S
MESSAGE = b"the signed bytes"

SHA1, SHA256, SHA512 = 2, 8, 10
_HASHES = {1: "md5", SHA1: "sha1", SHA256: "sha256", 9: "sha384", SHA512: "sha512", 12: "sha3_256"}
_OID = bytes.fromhex("092b06010401da470f01")


def packet(tag: int, body: bytes) -> bytes:
    """Make a packet with a new header and five octets of length."""
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def old_packet(tag: int, body: bytes, size: int = 2) -> bytes:
    """Make a packet with an old header and `size` octets of length: 1, 2 or 4; 0 is indeterminate."""
    header = bytes([0x80 | tag << 2 | {1: 0, 2: 1, 4: 2, 0: 3}[size]])
    return header + (len(body).to_bytes(size, "big") if size else b"") + body


def subpacket(kind: int, body: bytes, *, critical: bool = False) -> bytes:
    return bytes([len(body) + 1, kind | 0x80 * critical]) + body


def integer(value: bytes) -> bytes:
    value = value.lstrip(b"\0")
    return int.from_bytes(value, "big").bit_length().to_bytes(2, "big") + value


def created(at: int) -> bytes:
    return subpacket(2, at.to_bytes(4, "big"))


def expires_after(seconds: int, *, critical: bool = False) -> bytes:
    return subpacket(3, seconds.to_bytes(4, "big"), critical=critical)


def key_expires_after(seconds: int) -> bytes:
    return subpacket(9, seconds.to_bytes(4, "big"))


def flags(value: int) -> bytes:
    return subpacket(27, bytes([value]))


def notation(*, critical: bool = False) -> bytes:
    label, value = b"case@example.net", b"17"
    head = b"\x80\0\0\0" + len(label).to_bytes(2, "big") + len(value).to_bytes(2, "big")
    return subpacket(20, head + label + value, critical=critical)


class Key:
    """An Ed25519 key; the same seed and birth give the same key."""

    def __init__(self, seed: str, born: int = BIRTH_S) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())
        point = b"\x40" + self.private.public_key().public_bytes_raw()
        self.body = b"\x04" + born.to_bytes(4, "big") + b"\x16" + _OID + integer(point)
        self.subject = b"\x99" + len(self.body).to_bytes(2, "big") + self.body
        self.id = hashlib.sha1(self.subject, usedforsecurity=False).digest()

    @property
    def fingerprint(self) -> str:
        return self.id.hex().upper()

    @property
    def issuer(self) -> bytes:
        return subpacket(33, b"\x04" + self.id)

    @property
    def key_id(self) -> bytes:
        return subpacket(16, self.id[-8:])

    def sign(
        self,
        kind: int,
        subject: bytes,
        *subpackets: bytes,
        at: int | None = NOW_S - 60,
        issuer: bool = True,
        unhashed: bytes = b"",
        hash_algorithm: int = SHA512,
        algorithm: int = 22,
        digest_start: bytes | None = None,
    ) -> bytes:
        """Make the body of a signature packet.

        Creation time and issuer come first unless left out; where there is an issuer, its key id ends the
        unhashed area, as gpg writes it and, before 2.4, needs it.
        """
        unhashed += self.key_id * issuer
        hashed = (created(at) if at is not None else b"") + self.issuer * issuer + b"".join(subpackets)
        head = bytes([4, kind, algorithm, hash_algorithm]) + len(hashed).to_bytes(2, "big") + hashed
        covered = subject + head + b"\x04\xff" + len(head).to_bytes(4, "big")
        digest = hashlib.new(_HASHES.get(hash_algorithm, "sha512"), covered).digest()
        value = self.private.sign(digest)
        return (
            head
            + (len(unhashed).to_bytes(2, "big") + unhashed)
            + (digest[:2] if digest_start is None else digest_start)
            + (integer(value[:32]) + integer(value[32:]))
        )


ALICE, EVE, SUBKEY, OTHER_SUBKEY = Key("alice"), Key("eve"), Key("subkey"), Key("other subkey")
NAME = b"alice <alice@example.net>"


def name_subject(name: bytes = NAME, key: Key = ALICE) -> bytes:
    return key.subject + b"\xb4" + len(name).to_bytes(4, "big") + name


def signature(body: bytes) -> bytes:
    return packet(2, body)


def primary(key: Key = ALICE) -> bytes:
    return packet(6, key.body)


def name(octets: bytes = NAME) -> bytes:
    return packet(13, octets)


def certify(
    *subpackets: bytes,
    by: Key = ALICE,
    at: int | None = BIRTH_S,
    octets: bytes = NAME,
    kind: int = 0x13,
    **how: Any,
) -> bytes:
    """Make a certification of alice's user id: with flags to certify and sign, unless others are given."""
    return signature(by.sign(kind, name_subject(octets), *(subpackets or (flags(3),)), at=at, **how))


def direct(*subpackets: bytes, by: Key = ALICE, at: int = BIRTH_S, kind: int = 0x1F, **how: Any) -> bytes:
    return signature(by.sign(kind, ALICE.subject, *(subpackets or (flags(3),)), at=at, **how))


def subkey(key: Key = SUBKEY) -> bytes:
    return packet(14, key.body)


def back_signature(by: Key = SUBKEY, of: Key = SUBKEY, at: int = BIRTH_S, **how: Any) -> bytes:
    body = by.sign(0x19, ALICE.subject + of.subject, at=at, **how)
    return bytes([0xFF]) + (len(body) + 1).to_bytes(4, "big") + bytes([32]) + body


def bind(
    *subpackets: bytes,
    by: Key = ALICE,
    of: Key = SUBKEY,
    at: int = BIRTH_S,
    back: bytes | None = None,
    **how: Any,
) -> bytes:
    """Bind a subkey, to sign and with back-signature unless said otherwise."""
    back = back_signature(of, of) if back is None else back
    body = by.sign(
        0x18, ALICE.subject + of.subject, *(subpackets or (flags(2),)), at=at, unhashed=back, **how
    )
    return signature(body)


def revoke(*subpackets: bytes, by: Key = ALICE, **how: Any) -> bytes:
    return signature(by.sign(0x20, ALICE.subject, *subpackets, **how))


def revoke_subkey(by: Key = ALICE, of: Key = SUBKEY, **how: Any) -> bytes:
    return signature(by.sign(0x28, ALICE.subject + of.subject, **how))


def half(*parts: bytes) -> bytes:
    """Make a certificate of alice's primary key and what is given."""
    return primary() + b"".join(parts)


GOOD = half(name(), certify())
WITH_SUBKEY = GOOD + subkey() + bind()


def sign(*subpackets: bytes, by: Key = ALICE, kind: int = 0, **how: Any) -> bytes:
    """Make the packet of a document signature."""
    return signature(by.sign(kind, MESSAGE, *subpackets, **how))
