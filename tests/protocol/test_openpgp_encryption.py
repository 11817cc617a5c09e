"""Which keys answers may be sealed to: certificates made octet by octet, right and wrong."""

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidInput
from protocol.openpgp import parse_certificate
from protocol.openpgp_encryption import encrypt, require_recipient
from protocol.openpgp_packets import split_packets
from tests.support import openpgp_forge as forge
from tests.support.openpgp_forge import ALICE, BIRTH_S, EVE, GOOD, NOW, YEAR_S, flags, key_expires_after

CURVE25519 = bytes.fromhex("0a2b060104019755010501")
KDF = b"\x03\x01\x08\x07"


class ReaderKey(forge.Key):
    """An ECDH subkey on Curve25519."""

    def __init__(
        self, *, born: int = BIRTH_S, point: bytes | None = None, curve: bytes = CURVE25519, kdf: bytes = KDF
    ) -> None:
        super().__init__("reader", born)
        public = X25519PrivateKey.generate().public_key().public_bytes_raw() if point is None else point
        material = curve + forge.integer(b"\x40" + public) + kdf
        self.body = b"\x04" + born.to_bytes(4, "big") + b"\x12" + material
        self.subject = b"\x99" + len(self.body).to_bytes(2, "big") + self.body
        self.id = hashlib.sha1(self.subject, usedforsecurity=False).digest()


READER = ReaderKey()


def bound(key: forge.Key = READER, *subpackets: bytes, **how: Any) -> bytes:
    """Return a subkey that is bound for encryption, unless the test says otherwise."""
    return forge.subkey(key) + forge.bind(*(subpackets or (flags(0x0C),)), of=key, back=b"", **how)


def recipient_of(data: bytes) -> bytes:
    return require_recipient(parse_certificate(data), NOW).key_id


@pytest.mark.parametrize("use", [0x04, 0x08, 0x0C])
def test_a_bound_subkey_for_encryption_is_taken(use: int) -> None:
    assert recipient_of(GOOD + bound(READER, flags(use))) == READER.id[-8:]


def test_of_several_keys_the_newest_that_may_be_used_is_taken() -> None:
    old, new = ReaderKey(born=BIRTH_S + 10), ReaderKey(born=BIRTH_S + 20)
    bindings = [bound(key, at=BIRTH_S + 30) for key in (old, new)]
    assert recipient_of(GOOD + b"".join(bindings)) == new.id[-8:]
    assert recipient_of(GOOD + b"".join(reversed(bindings))) == new.id[-8:]
    revoked = GOOD + bindings[0] + bindings[1] + forge.revoke_subkey(of=new)
    assert recipient_of(revoked) == old.id[-8:]


REFUSED = {
    "sign-only": (GOOD, "not for encryption"),
    "subkey-that-signs": (forge.WITH_SUBKEY, "not for encryption"),
    "ecdh-subkey-said-to-sign": (GOOD + bound(READER, flags(2)), "not for encryption"),
    "no-flags": (GOOD + bound(READER, forge.created(BIRTH_S)), "two subpackets|key flags"),
    "flags-unsaid": (GOOD + bound(READER, key_expires_after(9 * YEAR_S)), "key flags"),
    "unbound": (GOOD + forge.subkey(READER), "no binding"),
    "bound-by-another": (GOOD + bound(by=EVE), "no binding"),
    "bound-with-sha1": (GOOD + bound(hash_algorithm=forge.SHA1), "hash algorithm 2 is too weak"),
    "subkey-expired": (GOOD + bound(READER, flags(0x0C), key_expires_after(YEAR_S)), "subkey has expired"),
    "subkey-revoked": (GOOD + bound() + forge.revoke_subkey(of=READER), "subkey is revoked"),
    "certificate-revoked": (GOOD + bound() + forge.revoke(), "primary key is revoked"),
    "certificate-expired": (
        forge.half(forge.name(), forge.certify(flags(3), key_expires_after(YEAR_S))) + bound(),
        "primary key has expired",
    ),
    "self-signed-with-sha1": (
        forge.half(forge.name(), forge.certify(hash_algorithm=forge.SHA1)) + bound(),
        "hash algorithm 2 is too weak",
    ),
    "primary-that-cannot-encrypt": (
        forge.half(forge.name(), forge.certify(flags(0x0F))),
        "algorithm 22 is not one that encrypts",
    ),
    "curve-unknown": (
        GOOD + bound(ReaderKey(curve=b"\x09" + bytes.fromhex("2b2403030208010107"))),
        "another curve",
    ),
    "point-short": (GOOD + bound(ReaderKey(point=bytes(31) + b"")), "not a Curve25519 point"),
    "kdf-with-sha1": (GOOD + bound(ReaderKey(kdf=b"\x03\x01\x02\x07")), "key derivation with hash 2"),
    "kdf-with-3des": (GOOD + bound(ReaderKey(kdf=b"\x03\x01\x08\x02")), "cipher 2"),
    "kdf-missing": (GOOD + bound(ReaderKey(kdf=b"")), "key derivation that is not known"),
    "kdf-long": (GOOD + bound(ReaderKey(kdf=KDF + b"x")), "key derivation that is not known"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_key_that_may_not_be_encrypted_to_is_refused_with_its_reason(case: str) -> None:
    data, reason = REFUSED[case]
    with pytest.raises(InvalidInput, match=reason) as caught:
        recipient_of(data)
    assert caught.value.code == "cannot-seal"


def test_a_point_with_which_no_secret_can_be_agreed_on_is_refused() -> None:
    recipient = require_recipient(parse_certificate(GOOD + bound(ReaderKey(point=bytes(32)))), NOW)
    with pytest.raises(InvalidInput, match="cannot-seal"):
        encrypt(b"secret", [recipient])


def test_a_message_to_nobody_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="nobody"):
        encrypt(b"secret", [])


def test_the_same_text_is_never_encrypted_alike_and_its_length_is_all_that_shows() -> None:
    recipient = require_recipient(parse_certificate(GOOD + bound()), NOW)
    first, second = (encrypt(b"the same secret", [recipient, recipient]) for _ in range(2))
    assert b"secret" not in first
    assert [packet.tag for packet in split_packets(first, 3)] == [1, 1, 18]
    bodies = [packet.body for message in (first, second) for packet in split_packets(message, 3)]
    assert len(set(bodies)) == len(bodies)
    assert len(encrypt(bytes(1000), [recipient])) == len(encrypt(b"x" * 1000, [recipient]))


GOOD_READER = GOOD + bound()


@given(st.integers(0, len(GOOD_READER) - 1), st.integers(1, 255))
def test_any_changed_octet_gives_the_same_key_or_a_refusal(at: int, change: int) -> None:
    data = bytearray(GOOD_READER)
    data[at] ^= change
    outcome: object
    try:
        recipient = require_recipient(parse_certificate(bytes(data)), NOW)
        outcome = (recipient.fingerprint, recipient.key_id)
    except InvalidInput as refusal:
        outcome = "cannot be checked" in refusal.detail
    assert outcome in (False, (ALICE.fingerprint, READER.id[-8:]))


def test_the_forged_subkey_really_is_another_kind_than_the_primary() -> None:
    assert isinstance(ALICE.private, Ed25519PrivateKey)
    assert parse_certificate(GOOD + bound()).subkeys[0].key.algorithm == 18
