"""Which signatures are believed: rules 1 to 7 of the policy, against signatures made to break them."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidInput
from protocol.openpgp import (
    parse_certificate,
    parse_signature_file,
    require_detached_signature,
)
from tests.support.openpgp_forge import (
    ALICE,
    BIRTH_S,
    EVE,
    GOOD,
    MESSAGE,
    NAME,
    NOW,
    NOW_S,
    SHA1,
    SUBKEY,
    WITH_SUBKEY,
    bind,
    certify,
    created,
    direct,
    expires_after,
    name,
    name_subject,
    notation,
    old_packet,
    packet,
    primary,
    revoke_subkey,
    sign,
    signature,
    subkey,
    subpacket,
)

BY_SUBKEY = sign(by=SUBKEY)


def refusal(
    certificate: bytes, document_signature: bytes, message: bytes = MESSAGE, now: datetime = NOW
) -> str | None:
    """Return why the signature is refused; None where it is accepted."""
    try:
        require_detached_signature(parse_certificate(certificate), document_signature, message, now)
    except InvalidInput as error:
        return str(error)
    return None


def require_answer(certificate: bytes, document_signature: bytes, reason: str | None) -> None:
    why = refusal(certificate, document_signature)
    if reason is None:
        assert why is None
    else:
        assert why is not None
        assert reason in why


SIGNATURES = {
    "good": (sign(), None),
    "good-old-header": (old_packet(2, ALICE.sign(0, MESSAGE)), None),
    "good-sha256": (sign(hash_algorithm=8), None),
    "good-sha384": (sign(hash_algorithm=9), None),
    "good-by-subkey": (BY_SUBKEY, None),
    "good-key-id-beside-fingerprint": (sign(ALICE.key_id), None),
    "good-unhashed-key-id-of-another": (sign(unhashed=EVE.key_id), None),
    "good-unhashed-expiry": (sign(unhashed=expires_after(1)), None),
    "good-unhashed-second-creation-time": (sign(unhashed=created(1)), None),
    "good-never-expires": (sign(expires_after(0)), None),
    "good-expires-later": (sign(expires_after(61)), None),
    "good-ahead-5-minutes": (sign(at=NOW_S + 300), None),
    "good-notation": (sign(notation()), None),
    "rule-1-nothing": (b"", "no signature"),
    "rule-1-two": (sign() + sign(), "more than 1 packet"),
    "rule-1-trailing": (sign() + b"\0", "more than 1 packet"),
    "rule-1-key": (primary(), "packet of tag 6"),
    "rule-1-version-3": (packet(2, b"\x03" + bytes(40)), "version 3"),
    "rule-1-version-6": (packet(2, b"\x06" + bytes(40)), "version 6"),
    "rule-1-indeterminate": (old_packet(2, ALICE.sign(0, MESSAGE), 0), "indeterminate length"),
    "rule-1-partial": (bytes([0xC2, 0xE0]) + ALICE.sign(0, MESSAGE), "partial length"),
    "rule-1-large": (sign(unhashed=bytes([250, 20]) + bytes(249)) + bytes(4096), "at most 4096"),
    "rule-2-text": (sign(kind=0x01), "type 0x01"),
    "rule-2-certification": (signature(ALICE.sign(0x13, name_subject())), "type 0x13"),
    "rule-2-standalone": (signature(ALICE.sign(0x02, b"")), "type 0x02"),
    "rule-2-timestamp": (signature(ALICE.sign(0x40, b"")), "type 0x40"),
    "rule-2-confirmation": (signature(ALICE.sign(0x50, b"")), "type 0x50"),
    "rule-2-unknown": (sign(kind=0x60), "type 0x60"),
    "rule-3-md5": (sign(hash_algorithm=1), "hash algorithm 1"),
    "rule-3-sha1": (sign(hash_algorithm=SHA1), "hash algorithm 2"),
    "rule-3-sha3": (sign(hash_algorithm=12), "hash algorithm 12"),
    "rule-3-unknown": (sign(hash_algorithm=99), "hash algorithm 99"),
    "rule-3-digest-start": (sign(digest_start=b"\0\0"), "does not verify"),
    "rule-4-critical-subpacket": (sign(subpacket(100, b"", critical=True)), "critical subpacket of type 100"),
    "rule-4-critical-notation": (sign(notation(critical=True)), "critical notation"),
    "rule-4-critical-unhashed": (sign(unhashed=subpacket(101, b"", critical=True)), "critical subpacket"),
    "rule-4-malformed-hashed": (sign(b"\x09\x14"), "truncated"),
    "rule-4-malformed-unhashed": (sign(unhashed=b"\xfe"), "truncated"),
    "rule-4-empty-subpacket": (sign(b"\0"), "empty subpacket"),
    "rule-4-creation-time-long": (sign(subpacket(2, bytes(5)), at=None), "5 octets"),
    "rule-4-two-creation-times": (sign(created(NOW_S)), "two subpackets of type 2"),
    "rule-4-two-issuers": (sign(EVE.issuer), "two subpackets of type 33"),
    "rule-4-no-creation-time": (sign(at=None), "no creation time"),
    "rule-4-unhashed-creation-time": (sign(at=None, unhashed=created(NOW_S)), "no creation time"),
    "rule-4-future": (sign(at=NOW_S + 301), "from the future"),
    "rule-4-expired": (sign(expires_after(60)), "has expired"),
    "rule-4-expired-critical": (sign(expires_after(60, critical=True)), "has expired"),
    "rule-5-no-issuer": (sign(issuer=False), "no issuer fingerprint"),
    "rule-5-key-id-only": (sign(ALICE.key_id, issuer=False), "not that of its issuer"),
    "rule-5-unhashed-issuer": (sign(issuer=False, unhashed=ALICE.issuer), "no issuer fingerprint"),
    "rule-5-another-key-id": (sign(EVE.key_id), "not that of its issuer"),
    "rule-5-by-another": (sign(by=EVE), "not in the certificate"),
    "rule-5-claims-alice": (sign(ALICE.issuer, by=EVE, issuer=False), "does not verify"),
    "rule-5-version-5-fingerprint": (sign(subpacket(33, b"\x05" + bytes(32)), issuer=False), "version 4 key"),
    "rule-6-before-the-key": (sign(at=BIRTH_S - 1), "created before the key"),
    "rule-6-another-algorithm": (sign(algorithm=1), "another algorithm"),
    "rule-7-other-bytes": (signature(ALICE.sign(0, b"other bytes")), "does not verify"),
    "rule-7-trailing-in-packet": (signature(ALICE.sign(0, MESSAGE) + b"\0"), "does not verify"),
    "rule-7-truncated-values": (signature(ALICE.sign(0, MESSAGE)[:-1]), "does not verify"),
    "rule-7-oversized-values": (signature(ALICE.sign(0, MESSAGE)[:-1] + bytes(3)), "does not verify"),
}


@pytest.mark.parametrize("case", SIGNATURES)
def test_a_document_signature_is_believed_only_where_every_rule_holds(case: str) -> None:
    made, reason = SIGNATURES[case]
    require_answer(WITH_SUBKEY, made, reason)


def test_a_certificate_tells_its_fingerprint_and_names() -> None:
    certificate = parse_certificate(primary() + name() + name(b"\xff\xfe"))
    assert certificate.fingerprint == ALICE.fingerprint
    assert certificate.user_ids == (NAME.decode(), "��")


def test_a_time_without_zone_refuses() -> None:
    assert "no zone" in str(refusal(GOOD, sign(), now=NOW.replace(tzinfo=None)))


def test_whatever_else_goes_wrong_refuses() -> None:
    unforeseen: Any = "text where bytes belong"
    assert refusal(GOOD, sign(), unforeseen) == "bad-signature: cannot be checked (TypeError)"


def test_signatures_in_envelopes_are_never_armoured() -> None:
    armoured = b"-----BEGIN PGP SIGNATURE-----\n\nabcd\n-----END PGP SIGNATURE-----\n"
    with pytest.raises(InvalidInput, match="bad-signature: not an OpenPGP packet"):
        require_detached_signature(parse_certificate(GOOD), armoured, MESSAGE, NOW)
    with pytest.raises(InvalidInput, match="bad-signature: a signature of 8193 bytes"):
        parse_signature_file(bytes(8193))


@given(st.binary(min_size=1).filter(lambda changed: changed != MESSAGE))
def test_no_other_message_is_signed(message: bytes) -> None:
    assert "does not verify" in str(refusal(GOOD, sign(), message))


PACKETS = st.builds(packet, st.integers(0, 63), st.binary(max_size=80))
PIECES = st.sampled_from(
    [primary(), name(), certify(), direct(), subkey(), bind(), revoke_subkey(), sign(), sign(by=EVE)]
)


@given(
    st.one_of(st.binary(), st.lists(st.one_of(PACKETS, PIECES)).map(b"".join)),
    st.one_of(st.binary(), PACKETS),
)
def test_any_bytes_give_an_answer_and_nothing_but_good_ones_are_believed(
    certificate: bytes, made: bytes
) -> None:
    for candidate in (made, sign(by=EVE), BY_SUBKEY):
        why = refusal(certificate, candidate)
        if why is None:
            assert candidate == BY_SUBKEY
            assert primary() in certificate
            assert bind() in certificate
        else:
            assert why.startswith(("bad-key: ", "bad-signature: "))
            assert "cannot be checked" not in why
