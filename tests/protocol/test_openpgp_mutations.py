"""Good signatures and certificates that somebody has changed: each is refused, or says what it said before.

What *the same* means here. A changed **signature** that is believed has the same hashed octets (so the same
issuer, time and type) and verifies over the same message and no other: only framing, the unhashed area and
the way in which its numbers are written are free, and with ECDSA the sign of one of them. A changed
**certificate** that is believed has the same fingerprint, and lets only keys sign that its owner bound, the
same message. So who signed and what was signed stays. The octets of a signature identify nothing, and
nobody here takes them for an identity: that is the payload's digest.

What can be done to a certificate is to cut: a revocation or a shortened life that is gone cannot be missed.
"""

from datetime import datetime
from typing import NamedTuple

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from protocol.errors import InvalidInput
from protocol.openpgp import parse_certificate, parse_signature_file
from protocol.openpgp_packets import parse_signature, remove_armour, split_packets
from tests.protocol.test_openpgp import refusal
from tests.protocol.test_openpgp_vectors import CASES as VECTORS
from tests.protocol.test_openpgp_vectors import NOW as VECTOR_NOW
from tests.protocol.test_openpgp_vectors import read_vector
from tests.support.examples import USUAL_EXAMPLES
from tests.support.openpgp_forge import (
    ALICE,
    EVE,
    GOOD,
    MESSAGE,
    NOW,
    SHA1,
    SUBKEY,
    WITH_SUBKEY,
    Key,
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
from tests.support.openpgp_mutate import mutate
from tests.support.openpgp_opinions import Case, is_accepted_by_gpg, is_accepted_by_sequoia
from tests.support.openpgp_opinions import refusal as refusal_of_files

EVES_SUBKEY = Key("eve's subkey")
EVES = primary(EVE) + name() + signature(EVE.sign(0x13, name_subject(key=EVE), flags(3)))
UNBOUND = Key("unbound")
# All that somebody without alice's keys could have at hand: eve's packets, and what alice has published.
FOREIGN = (
    primary(EVE),
    signature(EVE.sign(0x13, name_subject(key=EVE), flags(3))),
    certify(by=EVE),
    certify(flags(3), ALICE.issuer, ALICE.key_id, by=EVE, issuer=False),
    direct(by=EVE),
    subkey(EVES_SUBKEY),
    bind(by=EVE, of=EVES_SUBKEY),
    signature(EVE.sign(0x18, EVE.subject + EVES_SUBKEY.subject, flags(2))),
    bind(flags(2), ALICE.issuer, ALICE.key_id, by=EVE, of=EVES_SUBKEY, issuer=False),
    revoke(by=EVE),
    revoke_subkey(by=EVE),
    revoke_subkey(by=SUBKEY),
    sign(),
    sign(by=SUBKEY),
    sign(by=EVE),
    primary(),
    name(),
    name(b"mallory"),
    certify(),
    subkey(),
    bind(),
    subkey(UNBOUND),
    packet(10, b"PGP"),
    packet(12, b"trust"),
    packet(17, b"picture"),
    packet(21, b"padding"),
    packet(11, b"b\0\0\0\0\0" + MESSAGE),
    packet(5, ALICE.body + b"\0secret"),
    packet(60, b"unknown"),
    packet(2, b"\x03" + bytes(40)),
    packet(2, b"\x06" + bytes(40)),
)
# For a signature: nothing that is itself a signature over the message by the same person.
FOREIGN_TO_SIGNATURES = (
    *(made for made in FOREIGN if made not in (sign(), sign(by=SUBKEY))),
    signature(ALICE.sign(0, b"another message")),
    signature(SUBKEY.sign(0, b"another message")),
)
STRANGERS = (
    sign(by=EVE),
    sign(by=EVES_SUBKEY),
    sign(by=UNBOUND),
    sign(ALICE.issuer, by=EVE, issuer=False),
    sign(SUBKEY.issuer, by=EVES_SUBKEY, issuer=False),
)


class Good(NamedTuple):
    """A signature that is believed, binary, with its certificate and time."""

    case: Case
    now: datetime


def from_vector(case: str) -> Good:
    vector = read_vector(case)
    return Good(
        vector._replace(
            certificate=remove_armour(vector.certificate, "PUBLIC KEY BLOCK"),
            signature=parse_signature_file(vector.signature),
        ),
        VECTOR_NOW,
    )


BELIEVED = {
    "forged": Good(Case(GOOD, sign(), MESSAGE), NOW),
    "forged-by-subkey": Good(Case(WITH_SUBKEY, sign(by=SUBKEY), MESSAGE), NOW),
    **{
        case: from_vector(case)
        for case in (
            "good-ed25519-24",
            "good-rsa2048-22",
            "good-rsa4096-24",
            "good-rsa-signing-subkey-24",
            "good-signing-subkey-22",
            "good-nistp256-24",
            "good-nistp384-22",
            "good-sq1.3-rfc4880-cv25519",
            "one-uid-revoked",
        )
    },
}


def fingerprint_of(good: Good) -> str:
    return parse_certificate(good.case.certificate).fingerprint


def hashed_octets(octets: bytes) -> bytes:
    [only] = split_packets(octets, 1)
    return parse_signature(only.body).hashed_part


def with_exact_lengths(signature: bytes) -> bytes:
    """Return a signature whose integers announce their own numbers of bits.

    A number that is off by less than a byte changes nothing for us and for gpg, which itself writes such for
    a point that begins with zeros; Sequoia refuses it.
    """
    [only] = split_packets(signature, 1)
    parsed = parse_signature(only.body)
    integers, rest = b"", parsed.values
    while rest:
        size = (int.from_bytes(rest[:2], "big") + 7) // 8
        value, rest = rest[2 : 2 + size], rest[2 + size :]
        integers += int.from_bytes(value, "big").bit_length().to_bytes(2, "big") + value.lstrip(b"\0")
    body = only.body[: len(only.body) - len(parsed.values)] + integers
    return b"\xc2\xff" + len(body).to_bytes(4, "big") + body


@settings(max_examples=3 * USUAL_EXAMPLES)
@given(st.data())
def test_a_changed_signature_is_refused_or_says_the_same(data: st.DataObject) -> None:
    good = BELIEVED[data.draw(st.sampled_from(sorted(BELIEVED)), label="case")]
    changed = good.case._replace(signature=mutate(data, good.case.signature, FOREIGN_TO_SIGNATURES))
    why = refusal(*changed, good.now)
    event("refused" if why else "the same")
    if why is None:
        assert hashed_octets(changed.signature) == hashed_octets(good.case.signature)
        assert "does not verify" in str(refusal(*changed._replace(message=b"x"), good.now))
        assert is_accepted_by_sequoia(changed._replace(signature=with_exact_lengths(changed.signature)))
    else:
        assert "cannot be checked" not in why


@pytest.mark.parametrize("name", sorted(BELIEVED))
def test_an_integer_may_announce_a_bit_too_many_or_too_few_as_for_gpg(name: str) -> None:
    good = BELIEVED[name]
    [only] = split_packets(good.case.signature, 1)
    at = len(only.body) - len(parse_signature(only.body).values)
    bits = int.from_bytes(only.body[at : at + 2], "big")
    off_by_one = (bits + 1 if bits % 8 else bits - 1).to_bytes(2, "big")
    body = only.body[:at] + off_by_one + only.body[at + 2 :]
    changed = good.case._replace(signature=b"\xc2\xff" + len(body).to_bytes(4, "big") + body)
    assert refusal(*changed, good.now) is None
    assert is_accepted_by_gpg(changed, good.now)
    assert not is_accepted_by_sequoia(changed)
    assert is_accepted_by_sequoia(changed._replace(signature=with_exact_lengths(changed.signature)))


@settings(max_examples=3 * USUAL_EXAMPLES)
@given(st.data())
def test_a_changed_certificate_is_refused_or_is_the_same_persons(data: st.DataObject) -> None:
    good = BELIEVED[data.draw(st.sampled_from(sorted(BELIEVED)), label="case")]
    changed = good.case._replace(certificate=mutate(data, good.case.certificate, FOREIGN))
    why = refusal(*changed, good.now)
    event("refused" if why else "the same")
    if why is None:
        assert parse_certificate(changed.certificate).fingerprint == fingerprint_of(good)
        assert "does not verify" in str(refusal(*changed._replace(message=b"x"), good.now))
    else:
        assert "cannot be checked" not in why


@settings(max_examples=3 * USUAL_EXAMPLES)
@given(st.data())
def test_no_change_to_a_certificate_makes_a_stranger_believed(data: st.DataObject) -> None:
    certificate = mutate(data, data.draw(st.sampled_from([GOOD, WITH_SUBKEY]), label="of"), FOREIGN)
    try:
        parsed = parse_certificate(certificate)
    except InvalidInput:
        event("not a certificate")
        return
    for made in STRANGERS:
        why = refusal(certificate, made)
        event("believed" if why is None else "refused")
        # Eve is believed as eve, where all that is hers has taken the place of all that was alice's.
        assert why is not None or parsed.fingerprint == EVE.fingerprint


NEVER = {
    "certify-only": half(name(), certify(flags(1))),
    "expired": half(name(), certify(flags(3), key_expires_after(9))),
    "expired-self-signature": half(name(), certify(flags(3), expires_after(9))),
    "sha1-self-signature": half(name(), certify(hash_algorithm=SHA1)),
    "not-self-signed": half(name()),
    "critical": half(name(), certify(flags(3), subpacket(99, b"", critical=True))),
}
NEVER_SUBKEY = {
    "no-binding": GOOD + subkey(),
    "no-back-signature": GOOD + subkey() + bind(back=b""),
    "encrypts": GOOD + subkey() + bind(flags(0x0C)),
    "expired": GOOD + subkey() + bind(flags(2), key_expires_after(9)),
    "bound-by-eve": GOOD + subkey() + bind(by=EVE),
    "bound-with-sha1": GOOD + subkey() + bind(hash_algorithm=SHA1),
}
# Nothing that would make these certificates good may be at hand.
POWERLESS = tuple(made for made in FOREIGN if made not in (certify(), bind()))


@settings(max_examples=3 * USUAL_EXAMPLES)
@given(st.data())
def test_no_change_makes_a_key_sign_that_its_owner_did_not_allow_to(data: st.DataObject) -> None:
    case = data.draw(st.sampled_from(sorted(NEVER)), label="case")
    assert refusal(mutate(data, NEVER[case], POWERLESS), sign()) is not None
    case = data.draw(st.sampled_from(sorted(NEVER_SUBKEY)), label="case of a subkey")
    changed = mutate(data, NEVER_SUBKEY[case], POWERLESS)
    assert refusal(changed, sign(by=SUBKEY)) is not None


REVOKED = {
    "key": (WITH_SUBKEY, revoke()),
    "key-sha1": (WITH_SUBKEY, revoke(hash_algorithm=SHA1)),
    "key-for-a-reason": (WITH_SUBKEY, revoke(subpacket(29, b"\1superseded"))),
    "subkey": (WITH_SUBKEY, revoke_subkey()),
}


@settings(max_examples=3 * USUAL_EXAMPLES)
@given(st.data())
def test_a_revocation_holds_through_every_change_that_leaves_it_there(data: st.DataObject) -> None:
    good, revocation = REVOKED[data.draw(st.sampled_from(sorted(REVOKED)), label="case")]
    changed = mutate(data, good + revocation, FOREIGN)
    why = refusal(changed, sign(by=SUBKEY))
    if why is None:
        event("cut out")
        [revoking] = split_packets(revocation, 1)
        assert revoking not in split_packets(changed, 200)


@settings(max_examples=3 * USUAL_EXAMPLES)
@given(st.data())
def test_changed_armour_is_refused_or_says_the_same(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(set(BELIEVED) & set(VECTORS))), label="case")
    armoured, good = read_vector(name), BELIEVED[name]
    part = data.draw(st.sampled_from(["certificate", "signature"]), label="part")
    octets = bytearray(getattr(armoured, part))
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(
            st.sampled_from(b"\0\n\r =-:AZaz09+/\xff")
        )
    changed = armoured._replace(**{part: bytes(octets)})
    why = refusal_of_files(changed, good.now)
    event("refused" if why else "the same")
    if why is None:
        assert hashed_octets(parse_signature_file(changed.signature)) == hashed_octets(good.case.signature)
        assert parse_certificate(changed.certificate).fingerprint == fingerprint_of(good)
    else:
        assert "cannot be checked" not in why
