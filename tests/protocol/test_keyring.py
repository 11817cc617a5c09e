"""Who signed an envelope: every investigator once, strangers never."""

import pytest

from protocol.envelope import ACTION, LOGIN, Envelope, Signature
from protocol.errors import InvalidInput
from protocol.keyring import Keyring
from protocol.openpgp import parse_certificate
from tests.support.openpgp_forge import (
    ALICE,
    EVE,
    GOOD,
    NOW,
    SUBKEY,
    WITH_SUBKEY,
    Key,
    flags,
    name,
    name_subject,
    packet,
    primary,
    signature,
)

BOB = Key("bob")
BOBS = primary(BOB) + name() + signature(BOB.sign(0x13, name_subject(key=BOB), flags(3)))
KEYRING = Keyring([parse_certificate(WITH_SUBKEY), parse_certificate(BOBS)])
EMPTY = Envelope(ACTION, b"{}", ())


def by(key: Key, keyid: str = "", kind: str = ACTION) -> Signature:
    made = signature(key.sign(0, Envelope(kind, b"{}", ()).signed_bytes))
    return Signature(keyid or key.fingerprint, made)


def test_every_investigator_who_signed_is_named() -> None:
    check = KEYRING.signers(EMPTY._replace(signatures=(by(ALICE), by(BOB))), NOW)
    assert check.fingerprints == {ALICE.fingerprint, BOB.fingerprint}
    assert check.refusals == ()


def test_who_signs_twice_counts_once() -> None:
    by_subkey = by(SUBKEY, ALICE.fingerprint)
    for signatures in ((by(ALICE), by(ALICE)), (by(ALICE), by_subkey), (by_subkey, by_subkey)):
        check = KEYRING.signers(EMPTY._replace(signatures=signatures), NOW)
        assert check.fingerprints == {ALICE.fingerprint}


@pytest.mark.parametrize(
    "keyid",
    [
        "",
        ALICE.fingerprint.lower(),
        ALICE.fingerprint[-16:],
        ALICE.fingerprint[-8:],
        "0x" + ALICE.fingerprint,
        ALICE.fingerprint + " ",
        SUBKEY.fingerprint,
        EVE.fingerprint,
        "*",
    ],
)
def test_nothing_but_a_primary_fingerprint_selects_a_key(keyid: str) -> None:
    made = Signature(keyid, by(ALICE).sig)
    check = KEYRING.signers(EMPTY._replace(signatures=(made,)), NOW)
    assert check.fingerprints == frozenset()
    assert check.refusals == ((keyid, "not the fingerprint of a trusted key"),)


def test_a_signature_counts_only_for_the_key_that_made_it() -> None:
    check = KEYRING.signers(EMPTY._replace(signatures=(by(ALICE, BOB.fingerprint), by(BOB))), NOW)
    assert check.fingerprints == {BOB.fingerprint}
    ((keyid, reason),) = check.refusals
    assert keyid == BOB.fingerprint
    assert f"made by the key {ALICE.fingerprint}" in reason


def test_a_signature_over_another_type_or_payload_counts_zero() -> None:
    login = by(ALICE, kind=LOGIN)
    assert KEYRING.signers(EMPTY._replace(signatures=(login,)), NOW).fingerprints == frozenset()
    changed = EMPTY._replace(payload=b"{ }", signatures=(by(ALICE),))
    assert KEYRING.signers(changed, NOW).fingerprints == frozenset()


def test_a_bad_signature_costs_a_good_one_nothing() -> None:
    bad = Signature(BOB.fingerprint, b"\xff" * 4096)
    check = KEYRING.signers(EMPTY._replace(signatures=(bad, by(ALICE))), NOW)
    assert check.fingerprints == {ALICE.fingerprint}


def test_an_empty_keyring_trusts_nobody_and_an_unsigned_envelope_is_nobodys() -> None:
    assert Keyring([]).signers(EMPTY._replace(signatures=(by(ALICE),)), NOW).fingerprints == frozenset()
    assert KEYRING.signers(EMPTY, NOW).fingerprints == frozenset()


def test_two_certificates_of_one_key_are_refused() -> None:
    padded = GOOD + packet(21, b"")
    with pytest.raises(InvalidInput, match=f"bad-key: two certificates of {ALICE.fingerprint}"):
        Keyring([parse_certificate(GOOD), parse_certificate(padded)])


def test_a_keyring_tells_whom_it_trusts() -> None:
    assert KEYRING.fingerprints == {ALICE.fingerprint, BOB.fingerprint}
