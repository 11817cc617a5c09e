"""Trust bundles: which of them count, and which do not."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.envelope import ACTION, TRUST, Envelope, Signature, decode_envelope, encode_envelope
from protocol.errors import InvalidInput
from protocol.trust import (
    Roots,
    decode_bundle,
    encode_bundle,
    make_keyring,
    make_roots,
    open_bundle,
    require_current,
    require_newer,
)
from tests.support.endpoint import make_bundle, sign_bundle, utc_now
from tests.support.gpg import Investigator, temporary_investigator


@pytest.fixture(scope="module")
def rita() -> Iterator[Investigator]:
    """A holder of a root key."""
    with temporary_investigator("Rita Root") as investigator:
        yield investigator


@pytest.fixture(scope="module")
def ruth() -> Iterator[Investigator]:
    """A second holder of a root key."""
    with temporary_investigator("Ruth Root") as investigator:
        yield investigator


def roots_of(*holders: Investigator, threshold: int = 1) -> Roots:
    keys, names = [root.public_key for root in holders], [root.fingerprint for root in holders]
    return make_roots(keys, names, threshold)


def refusal_of(body: bytes, roots: Roots) -> str:
    with pytest.raises(InvalidInput, match=r"^[a-z-]+: .") as caught:
        open_bundle(body, roots, utc_now())
    return caught.value.code


def test_a_bundle_in_order_gives_keys_acl_and_rights(
    ada: Investigator, bob: Investigator, rita: Investigator
) -> None:
    body = sign_bundle(make_bundle(3, ada, bob, manage=[bob.fingerprint]), rita)
    opened = open_bundle(body, roots_of(rita), utc_now())
    assert opened.bundle.version == 3
    assert opened.keyring.fingerprints == {ada.fingerprint, bob.fingerprint}
    assert opened.bundle.manage == (bob.fingerprint,)
    assert opened.signers == {rita.fingerprint}
    opened.acl.require("file", frozenset({ada.fingerprint}))
    again = decode_bundle(encode_bundle(opened.bundle))
    assert again == opened.bundle


def test_as_many_distinct_roots_as_configured_must_sign(
    ada: Investigator, rita: Investigator, ruth: Investigator
) -> None:
    roots, bundle = roots_of(rita, ruth, threshold=2), make_bundle(1, ada)
    assert open_bundle(sign_bundle(bundle, rita, ruth), roots, utc_now()).bundle.version == 1
    assert refusal_of(sign_bundle(bundle, rita), roots) == "unsigned"
    # The same root twice, with two good signatures, is one root.
    assert refusal_of(sign_bundle(bundle, rita, rita), roots) == "unsigned"
    # Neither does somebody else's count, nor one under a root's name.
    assert refusal_of(sign_bundle(bundle, rita, ada), roots) == "unsigned"
    envelope = decode_envelope(sign_bundle(bundle, rita, ada), TRUST)
    posing = Signature(ruth.fingerprint, envelope.signatures[1].sig)
    forged = encode_envelope(envelope._replace(signatures=(envelope.signatures[0], posing)))
    assert refusal_of(forged, roots) == "unsigned"


def test_without_roots_no_bundle_counts(ada: Investigator, rita: Investigator) -> None:
    assert refusal_of(sign_bundle(make_bundle(1, ada), rita), roots_of()) == "unsigned"
    assert refusal_of(sign_bundle(make_bundle(1, ada)), roots_of()) == "unsigned"


def test_a_bundle_changed_after_signing_is_refused(ada: Investigator, rita: Investigator) -> None:
    envelope = decode_envelope(sign_bundle(make_bundle(1, ada), rita), TRUST)
    changed = envelope._replace(payload=envelope.payload.replace(b'"version": 1', b'"version": 9'))
    assert changed.payload != envelope.payload
    assert refusal_of(encode_envelope(changed), roots_of(rita)) == "unsigned"


def test_a_root_that_signed_another_type_of_document_signed_no_bundle(
    ada: Investigator, rita: Investigator
) -> None:
    payload = decode_envelope(sign_bundle(make_bundle(1, ada), rita), TRUST).payload
    moved = Envelope(TRUST, payload, rita.sign(ACTION, payload).signatures)
    assert refusal_of(encode_envelope(moved), roots_of(rita)) == "unsigned"
    assert refusal_of(encode_envelope(rita.sign(ACTION, payload)), roots_of(rita)) == "wrong-type"


STRANGER = "0" * 40


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": 1},
        {"version": 0},
        {"version": 2**31},
        {"version": True},
        {"version": "1"},
        {"expires": "2026-01-01T00:00:00"},
        {"created": "2999-01-01T00:00:00Z"},
        {"investigators": []},
        {"acl": {}},
        {"acl": {"default": {"minimum_weight": 1, "investigators": {STRANGER: 1}}}},
        {"acl": {"default": {"minimum_weight": 1, "investigators": {}}}},
        {"manage": [STRANGER]},
    ],
    ids=str,
)
def test_a_signed_payload_that_is_not_exactly_a_usable_bundle_is_refused(
    changes: dict[str, Any], ada: Investigator, rita: Investigator
) -> None:
    assert refusal_of(sign_bundle(make_bundle(1, ada, **changes), rita), roots_of(rita)) == "bad-trust"


def test_an_acl_that_all_together_cannot_satisfy_is_refused(ada: Investigator, rita: Investigator) -> None:
    acl = {"default": {"minimum_weight": 2, "investigators": {ada.fingerprint: 1}}}
    assert refusal_of(sign_bundle(make_bundle(1, ada, acl=acl), rita), roots_of(rita)) == "bad-trust"


@pytest.mark.slow
def test_a_certificate_is_that_of_the_fingerprint_it_stands_under_and_stands_there_once(
    ada: Investigator, bob: Investigator, rita: Investigator
) -> None:
    bundle = make_bundle(1, ada, bob)
    bundle["investigators"][0]["certificate"] = bob.public_key.decode()
    assert refusal_of(sign_bundle(bundle, rita), roots_of(rita)) == "bad-trust"
    assert refusal_of(sign_bundle(make_bundle(1, ada, ada), rita), roots_of(rita)) == "bad-trust"
    bundle["investigators"][0]["certificate"] = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
    assert refusal_of(sign_bundle(bundle, rita), roots_of(rita)) == "bad-trust"


def test_a_bundle_is_current_until_it_expires(ada: Investigator) -> None:
    bundle = decode_bundle(sign_payload(make_bundle(1, ada)))
    require_current(bundle, bundle.expires - timedelta(seconds=1))
    with pytest.raises(InvalidInput, match="trust-expired"):
        require_current(bundle, bundle.expires)


def sign_payload(bundle: dict[str, Any]) -> bytes:
    return decode_envelope(sign_bundle(bundle), TRUST).payload


@pytest.mark.parametrize(("version", "digest"), [(7, "other"), (6, "same"), (6, "other"), (1, "x"), (0, "")])
def test_what_is_not_newer_is_refused(version: int, digest: str) -> None:
    with pytest.raises(InvalidInput, match="stale-trust"):
        require_newer(version, digest, 7, "same")


def test_what_is_newer_and_that_very_one_again_pass() -> None:
    require_newer(8, "x", 7, "same")
    require_newer(7, "same", 7, "same")


def test_roots_are_those_that_the_configuration_names(rita: Investigator, ruth: Investigator) -> None:
    with pytest.raises(InvalidInput, match="bad-config"):
        make_roots([rita.public_key], [ruth.fingerprint], 1)
    with pytest.raises(InvalidInput, match="bad-config"):
        make_roots([rita.public_key], [rita.fingerprint], 2)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_a_code_and_nothing_else(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"^(bad-json|bad-trust|too-large): "):
        decode_bundle(data)
    with pytest.raises(InvalidInput, match=r"^[a-z-]+: "):
        open_bundle(data, Roots(make_keyring_of_nobody(), 1), utc_now())


def make_keyring_of_nobody() -> Any:
    return make_roots([], [], 1).keyring


def test_a_newer_certificate_of_the_same_key_takes_the_place_of_the_old(
    ada: Investigator, rita: Investigator
) -> None:
    """What a later bundle holds counts: here a certificate that was revoked since."""
    with temporary_investigator("Carl Careless") as carl:
        before = decode_bundle(sign_payload(make_bundle(1, carl)))
        signed = carl.sign(ACTION, b"{}")
        assert make_keyring(before).signers(signed, utc_now()).fingerprints == {carl.fingerprint}
        revocation = (carl.home / "openpgp-revocs.d" / f"{carl.fingerprint}.rev").read_text()
        carl.gpg("--import", data=revocation.replace(":-----BEGIN", "-----BEGIN").encode())
        carl.public_key = carl.gpg("--armor", "--export", carl.fingerprint)
        after = decode_bundle(sign_payload(make_bundle(2, carl)))
        assert make_keyring(after).signers(signed, utc_now()).fingerprints == frozenset()
