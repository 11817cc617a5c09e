"""Which certificates may sign: rules 8 to 13 of the policy, against certificates made to break them."""

from datetime import timedelta

import pytest

from protocol.errors import InvalidInput
from protocol.openpgp import parse_certificate, require_usable_certificate
from tests.protocol.test_openpgp import require_answer
from tests.support.openpgp_forge import (
    ALICE,
    BIRTH_S,
    EVE,
    GOOD,
    MESSAGE,
    NAME,
    NOW,
    NOW_S,
    OTHER_SUBKEY,
    SHA1,
    SUBKEY,
    WITH_SUBKEY,
    YEAR_S,
    Key,
    back_signature,
    bind,
    certify,
    direct,
    expires_after,
    flags,
    half,
    key_expires_after,
    name,
    name_subject,
    packet,
    primary,
    revoke,
    revoke_subkey,
    sign,
    signature,
    subkey,
    subpacket,
)

LATER = BIRTH_S + YEAR_S
RECENT = NOW_S - 3600
FUTURE = Key("alice", born=NOW_S + 301)
B = b"b"  # a second user id
SHORT = key_expires_after(9)
CRITICAL = subpacket(99, b"", critical=True)
REVOKER = subpacket(12, b"\x80\x16" + EVE.id)


def old_signature(kind: int, by: Key) -> bytes:
    return packet(2, bytes([3, 5, kind]) + bytes(4) + by.id[-8:] + bytes(20))


def as_alice(maker: object, *subpackets: bytes, **how: object) -> bytes:
    """Make it with eve's key, naming alice as its issuer."""
    return maker(*subpackets, ALICE.issuer, ALICE.key_id, by=EVE, issuer=False, **how)  # type: ignore[operator, no-any-return]


SHAPES = {
    "good": (GOOD, None),
    "good-direct-key": (half(direct()), None),
    "good-both": (half(direct(), name(), certify()), None),
    "good-key-id": (half(name(), certify(flags(3), ALICE.key_id, issuer=False)), None),
    "good-no-issuer": (half(name(), certify(issuer=False)), None),
    "good-ignored": (half(packet(10, b"PGP"), name(), certify(), packet(12, b"x"), packet(21, b"y")), None),
    "good-picture": (GOOD + packet(17, b"picture") + certify(), None),
    "good-with-eves": (half(name(), certify(by=EVE), certify()), None),
    "good-with-version-6": (GOOD + packet(2, b"\x06" + bytes(40)), None),
    "good-with-subkey-6": (GOOD + packet(14, b"\x06" + bytes(40)), None),
    "good-with-unknown-subkey": (GOOD + packet(14, b"\x04" + bytes(4) + b"\x63xyz"), None),
    "nothing": (b"", "empty"),
    "two": (GOOD + primary(EVE), "more than one certificate"),
    "twice": (GOOD + GOOD, "more than one certificate"),
    "user-id-first": (name() + GOOD, "does not begin with a public key"),
    "secret-key": (packet(5, ALICE.body + b"\0secret"), "a secret key"),
    "secret-subkey": (GOOD + packet(7, SUBKEY.body + b"\0secret"), "a secret key"),
    "literal-data": (GOOD + packet(11, b"b\0\0\0\0\0"), "packet of tag 11"),
    "unknown-packet": (GOOD + packet(60, b""), "packet of tag 60"),
    "reserved-packet": (GOOD + packet(0, b""), "packet of tag 0"),
    "version-3": (packet(6, b"\x03" + ALICE.body[1:]), "key of version 3"),
    "version-6": (packet(6, b"\x06" + ALICE.body[1:]), "key of version 6"),
    "truncated": (GOOD[:-1], "truncated"),
    "trailing": (GOOD + b"x", "not an OpenPGP packet"),
    "many-packets": (GOOD + packet(12, b"") * 1022, "more than 1024 packets"),
    "large": (GOOD + packet(12, bytes(1 << 18)), "at most 262144"),
    "very-large": (GOOD + packet(12, bytes(1 << 20)), "at most 262144"),
    "long-user-id": (half(name(bytes(2049))), "user id of 2049 bytes"),
    "long-key": (packet(6, ALICE.body + bytes(65536)), "longer than its length field"),
}

REVOCATIONS = {
    "first": (half(revoke(), name(), certify()), "is revoked"),
    "last": (GOOD + revoke(), "is revoked"),
    "superseded": (GOOD + revoke(subpacket(29, b"\1")), "is revoked"),
    "sha1": (GOOD + revoke(hash_algorithm=SHA1), "is revoked"),
    "sha3": (GOOD + revoke(hash_algorithm=12), "is revoked"),
    "in-the-future": (GOOD + revoke(at=NOW_S + YEAR_S), "is revoked"),
    "expired": (GOOD + revoke(expires_after(1)), "is revoked"),
    "without-time": (GOOD + revoke(at=None), "is revoked"),
    "malformed-subpackets": (GOOD + revoke(b"\xfe"), "is revoked"),
    "critical": (GOOD + revoke(CRITICAL), "is revoked"),
    "names-nobody": (GOOD + revoke(issuer=False), "is revoked"),
    "names-eve": (GOOD + revoke(EVE.issuer, issuer=False), "is revoked"),
    "digest-start": (GOOD + revoke(digest_start=b"\0\0"), "is revoked"),
    "by-eve": (GOOD + revoke(by=EVE), None),
    "by-eve-as-alice": (GOOD + as_alice(revoke), None),
    "of-another-key": (GOOD + signature(ALICE.sign(0x20, EVE.subject)), None),
    "another-algorithm": (GOOD + revoke(by=EVE, algorithm=1), None),
    "undecidable": (GOOD + revoke(hash_algorithm=3), "cannot be checked"),
    "undecidable-by-eve": (GOOD + revoke(by=EVE, hash_algorithm=3), None),
    "undecidable-by-nobody": (GOOD + revoke(by=EVE, hash_algorithm=3, issuer=False), "cannot be checked"),
    "undecidable-malformed": (
        GOOD + revoke(b"\xfe", by=EVE, hash_algorithm=3, issuer=False),
        "cannot be checked",
    ),
    "version-3": (GOOD + old_signature(0x20, ALICE), "revocation of version 3"),
    "version-3-by-eve": (GOOD + old_signature(0x20, EVE), None),
    "version-3-certification": (GOOD + old_signature(0x10, ALICE), None),
    "by-designated": (half(direct(REVOKER), revoke(by=EVE), name(), certify()), "designated revoker"),
    "not-by-designated": (half(direct(REVOKER), name(), certify()), None),
}

SELF_SIGNATURES = {
    "nothing": (primary(), "no self-signature"),
    "user-id-only": (half(name()), "no self-signature"),
    "by-eve": (half(name(), certify(by=EVE)), "no self-signature"),
    "by-eve-as-alice": (half(name(), as_alice(certify, flags(3))), "does not verify"),
    "of-another-user-id": (half(name(b"mallory"), certify()), "does not verify"),
    "of-a-picture": (half(packet(17, NAME), certify()), "no self-signature"),
    "sha1": (half(name(), certify(hash_algorithm=SHA1)), "hash algorithm 2 is too weak"),
    "sha1-direct": (half(direct(hash_algorithm=SHA1)), "hash algorithm 2 is too weak"),
    "another-type": (half(name(), certify(kind=0x18)), "no self-signature"),
    "binary": (half(name(), certify(kind=0x00)), "no self-signature"),
    "another-algorithm": (half(name(), certify(algorithm=1)), "another algorithm"),
    "expired": (half(name(), certify(flags(3), expires_after(YEAR_S))), "has expired"),
    "future": (half(name(), certify(at=NOW_S + 301)), "from the future"),
    "before-the-key": (half(name(), certify(at=BIRTH_S - 1)), "created before the key"),
    "without-time": (half(name(), certify(at=None)), "no creation time"),
    "critical": (half(name(), certify(flags(3), CRITICAL)), "unknown critical"),
    "names-eve": (half(name(), certify(flags(3), EVE.issuer, ALICE.key_id, issuer=False)), "another issuer"),
    "digest-start": (half(name(), certify(digest_start=b"\0\0")), "does not verify"),
    "revoked": (half(name(), certify(), certify(at=LATER, kind=0x30)), "user id is revoked"),
    "revoked-at-once": (half(name(), certify(), certify(kind=0x30)), "user id is revoked"),
    "revoked-sha1": (half(name(), certify(), certify(kind=0x30, hash_algorithm=SHA1)), "user id is revoked"),
    "revoked-undated": (half(name(), certify(at=RECENT), certify(kind=0x30, at=None)), "user id is revoked"),
    "revoked-and-certified": (half(name(), certify(), certify(kind=0x30), certify(at=LATER)), None),
    "revoked-by-eve": (half(name(), certify(), certify(by=EVE, at=LATER, kind=0x30)), None),
    "one-revoked": (half(name(), certify(), certify(kind=0x30), name(B), certify(octets=B)), None),
    "direct-key-revoked": (half(direct(), direct(at=LATER, kind=0x30)), "user id is revoked"),
}

LIFETIMES = {
    "over": (half(name(), certify(flags(3), key_expires_after(YEAR_S))), "primary key has expired"),
    "over-now": (half(name(), certify(flags(3), key_expires_after(2 * YEAR_S))), "has expired"),
    "over-in-a-second": (half(name(), certify(flags(3), key_expires_after(2 * YEAR_S + 1))), None),
    "never": (half(name(), certify(flags(3), key_expires_after(0))), None),
    "extended": (half(name(), certify(flags(3), SHORT), certify(at=LATER)), None),
    "shortened": (half(name(), certify(), certify(flags(3), SHORT, at=LATER)), "has expired"),
    "shortened-listed-first": (half(name(), certify(flags(3), SHORT, at=LATER), certify()), "has expired"),
    "shortened-on-another-user-id": (
        half(name(), certify(), name(B), certify(flags(3), SHORT, at=LATER, octets=B)),
        "has expired",
    ),
    "shortened-directly": (half(direct(flags(3), SHORT, at=LATER), name(), certify()), "has expired"),
    "shortened-without-flags": (half(direct(SHORT, at=LATER), name(), certify()), "has expired"),
    "two-in-one-second": (half(name(), certify(), certify(flags(3), SHORT)), "has expired"),
    "extension-forged": (
        half(name(), certify(flags(3), SHORT), as_alice(certify, flags(3), at=LATER)),
        "has expired",
    ),
    "extension-revoked": (
        half(name(), certify(flags(3), SHORT), name(B), certify(octets=B), certify(octets=B, kind=0x30)),
        "has expired",
    ),
    "extension-over": (
        half(name(), certify(flags(3), SHORT), certify(flags(3), expires_after(9), at=LATER)),
        "has expired",
    ),
    "revoker-added-later": (half(direct(REVOKER, at=LATER), name(), certify()), None),
}

FLAGS = {
    "none": (half(name(), certify(key_expires_after(0))), "what the primary key is for"),
    "certify": (half(name(), certify(flags(1))), "primary key is not allowed to sign"),
    "encrypt": (half(name(), certify(flags(0x0C))), "not allowed to sign"),
    "empty": (half(name(), certify(subpacket(27, b""))), "not allowed to sign"),
    "given-later": (half(name(), certify(flags(1)), certify(at=LATER)), None),
    "taken-later": (half(name(), certify(), certify(flags(1), at=LATER)), "not allowed to sign"),
    "two-in-one-second": (half(name(), certify(), certify(flags(1))), "not allowed to sign"),
    "twice": (half(name(), certify(flags(1), flags(3))), "two subpackets of type 27"),
}

BINDINGS = {
    "good": (WITH_SUBKEY, None),
    "good-hashed-back-signature": (GOOD + subkey() + bind(flags(2), back_signature(), back=b""), None),
    "good-primary-only-certifies": (half(name(), certify(flags(1)), subkey(), bind()), None),
    "good-another-is-revoked": (
        WITH_SUBKEY + subkey(OTHER_SUBKEY) + bind(of=OTHER_SUBKEY) + revoke_subkey(of=OTHER_SUBKEY),
        None,
    ),
    "twice": (WITH_SUBKEY + subkey() + bind(), "holds the signing subkey twice"),
    "primary-revoked": (WITH_SUBKEY + revoke(), "primary key is revoked"),
    "primary-not-self-signed": (half(name(), subkey(), bind()), "no self-signature"),
    "primary-expired": (half(name(), certify(flags(3), SHORT), subkey(), bind()), "primary key has expired"),
    "none": (GOOD + subkey(), "no binding signature"),
    "by-eve": (GOOD + subkey() + bind(by=EVE), "no binding signature"),
    "by-eve-as-alice": (GOOD + subkey() + as_alice(bind, flags(2)), "does not verify"),
    "of-another": (GOOD + subkey() + bind(of=OTHER_SUBKEY), "does not verify"),
    "elsewhere": (GOOD + bind() + subkey(), "no binding signature"),
    "sha1": (GOOD + subkey() + bind(hash_algorithm=SHA1), "hash algorithm 2 is too weak"),
    "over": (GOOD + subkey() + bind(flags(2), expires_after(9)), "has expired"),
    "future": (GOOD + subkey() + bind(at=NOW_S + 301), "from the future"),
    "before-the-key": (GOOD + subkey() + bind(at=BIRTH_S - 1), "created before the key"),
    "critical": (GOOD + subkey() + bind(flags(2), CRITICAL), "unknown critical"),
    "revoked": (WITH_SUBKEY + revoke_subkey(), "subkey is revoked"),
    "revoked-sha1": (WITH_SUBKEY + revoke_subkey(hash_algorithm=SHA1), "subkey is revoked"),
    "revoked-before-bound": (WITH_SUBKEY + revoke_subkey(at=BIRTH_S - 1), "subkey is revoked"),
    "revoked-elsewhere": (half(revoke_subkey(), name(), certify(), subkey(), bind()), "subkey is revoked"),
    "revoked-and-bound": (WITH_SUBKEY + revoke_subkey() + bind(at=NOW_S), "subkey is revoked"),
    "revoked-by-eve": (WITH_SUBKEY + revoke_subkey(by=EVE), None),
    "revoked-by-itself": (WITH_SUBKEY + revoke_subkey(by=SUBKEY), None),
    "expired": (GOOD + subkey() + bind(flags(2), SHORT), "subkey has expired"),
    "extended": (GOOD + subkey() + bind(flags(2), SHORT) + bind(at=LATER), None),
    "shortened": (WITH_SUBKEY + bind(flags(2), SHORT, at=LATER), "subkey has expired"),
    "no-flags": (GOOD + subkey() + bind(key_expires_after(0)), "what the subkey is for"),
    "encrypts": (GOOD + subkey() + bind(flags(0x0C)), "subkey is not allowed to sign"),
    "authenticates": (GOOD + subkey() + bind(flags(0x20)), "subkey is not allowed to sign"),
    "signed-once": (WITH_SUBKEY + bind(flags(0x0C), at=LATER), "subkey is not allowed to sign"),
}


def bound_with(*back: bytes) -> bytes:
    return GOOD + subkey() + bind(back=b"".join(back))


BACK_SIGNATURES = {
    "none": (bound_with(), "no back-signature"),
    "by-eve": (bound_with(back_signature(by=EVE)), "names another issuer"),
    "by-alice": (bound_with(back_signature(by=ALICE)), "names another issuer"),
    "by-eve-as-subkey": (bound_with(back_signature(by=EVE, issuer=False)), "does not verify"),
    "of-another": (bound_with(back_signature(of=OTHER_SUBKEY)), "does not verify"),
    "sha1": (bound_with(back_signature(hash_algorithm=SHA1)), "hash algorithm 2 is too weak"),
    "before-the-key": (bound_with(back_signature(at=BIRTH_S - 1)), "created before the key"),
    "garbage": (bound_with(subpacket(32, b"\x04\x19garbage")), "truncated"),
    "of-another-type": (bound_with(subpacket(32, SUBKEY.sign(0x00, MESSAGE))), "no back-signature"),
    "second-is-good": (bound_with(back_signature(by=EVE), back_signature()), None),
    "only-in-an-older-binding": (WITH_SUBKEY + bind(at=LATER, back=b""), "no back-signature"),
}

BY_PRIMARY = {
    f"{group}/{case}": answer
    for group, cases in {
        "shape": SHAPES,
        "revocation": REVOCATIONS,
        "self-signature": SELF_SIGNATURES,
        "lifetime": LIFETIMES,
        "flags": FLAGS,
    }.items()
    for case, answer in cases.items()
}
BY_SUBKEY = {
    f"{group}/{case}": answer
    for group, cases in {"binding": BINDINGS, "back-signature": BACK_SIGNATURES}.items()
    for case, answer in cases.items()
}


@pytest.mark.parametrize("case", BY_PRIMARY)
def test_a_primary_key_may_sign_only_where_every_rule_holds(case: str) -> None:
    certificate, reason = BY_PRIMARY[case]
    require_answer(certificate, sign(), reason)


@pytest.mark.parametrize("case", BY_SUBKEY)
def test_a_subkey_may_sign_only_where_every_rule_holds(case: str) -> None:
    certificate, reason = BY_SUBKEY[case]
    require_answer(certificate, sign(by=SUBKEY), reason)


def test_a_key_from_the_future_has_signed_nothing_yet() -> None:
    subject = name_subject(key=FUTURE)
    certificate = primary(FUTURE) + name() + signature(FUTURE.sign(0x13, subject, flags(3), at=NOW_S + 300))
    require_answer(certificate, sign(by=FUTURE, at=NOW_S + 300), "created before the key that signed")
    young = Key("young", born=NOW_S + 301)
    certificate = GOOD + subkey(young) + bind(of=young, at=NOW_S + 300)
    require_answer(certificate, sign(by=young, at=NOW_S + 300), "created before the key that signed")


@pytest.mark.parametrize(
    "certificate",
    [GOOD, WITH_SUBKEY, half(name(), certify(flags(1)), subkey(), bind())],
    ids=["primary", "both", "subkey"],
)
def test_a_certificate_is_usable_where_one_of_its_keys_may_sign(certificate: bytes) -> None:
    require_usable_certificate(parse_certificate(certificate), NOW)


def test_a_certificate_that_is_not_usable_says_why_of_each_of_its_keys() -> None:
    with pytest.raises(InvalidInput, match=r"bad-key: the primary key is not allowed .*; the subkey has no"):
        require_usable_certificate(parse_certificate(half(name(), certify(flags(1)), subkey())), NOW)
    with pytest.raises(InvalidInput, match="bad-key: the primary key has expired"):
        require_usable_certificate(parse_certificate(half(name(), certify(flags(3), SHORT))), NOW)


def test_a_key_that_is_not_born_yet_is_not_usable_until_then() -> None:
    subject = name_subject(key=FUTURE)
    certificate = parse_certificate(
        primary(FUTURE) + name() + signature(FUTURE.sign(0x13, subject, flags(3), at=NOW_S + 301))
    )
    with pytest.raises(InvalidInput, match=r"bad-key: .* \(the last one: a signature from the future\)"):
        require_usable_certificate(certificate, NOW)
    require_usable_certificate(certificate, NOW + timedelta(seconds=1))
