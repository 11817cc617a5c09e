from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.signing import Signer
from protocol.envelope import ACTION, Envelope, Signature
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.openpgp import parse_certificate, require_detached_signature
from tests.support.descriptors import lasting_descriptors
from tests.support.gpg import Investigator, temporary_investigator


def signer(person: Investigator, **changes: str) -> Signer:
    settings = {"fingerprint": person.fingerprint, "home": str(person.home), **changes}
    return Signer(**settings, is_interactive=False)


def test_two_investigators_sign_the_same_bytes(ada: Investigator, bob: Investigator) -> None:
    envelope = signer(bob).add_signature(signer(ada).sign(ACTION, b"payload"))
    assert [signature.keyid for signature in envelope.signatures] == [ada.fingerprint, bob.fingerprint]
    for person, signature in zip((ada, bob), envelope.signatures, strict=True):
        certificate = parse_certificate(person.public_key)
        require_detached_signature(certificate, signature.sig, envelope.signed_bytes, datetime.now(UTC))


def test_signing_again_replaces_the_signature_made_before(ada: Investigator) -> None:
    old = Envelope(ACTION, b"payload", (Signature(ada.fingerprint, b"old"), Signature("other", b"kept")))
    signatures = signer(ada).add_signature(old).signatures
    assert [signature.keyid for signature in signatures] == ["other", ada.fingerprint]
    assert signatures[1].sig != b"old"


@pytest.mark.parametrize("algorithm", ["nistp256", "nistp384", "nistp521"])
def test_keys_that_need_a_longer_digest_sign_too(algorithm: str) -> None:
    with temporary_investigator("Eve Curve", algorithm) as person:
        assert signer(person).sign(ACTION, b"payload").signatures[0].keyid == person.fingerprint


def test_a_key_that_gpg_does_not_have_is_named(ada: Investigator) -> None:
    with pytest.raises(EnvironmentFailure, match=f"key-missing: {'A' * 40} in {ada.home}: there is no such"):
        signer(ada, fingerprint="A" * 40).sign(ACTION, b"payload")


def test_a_gpg_that_is_not_installed_is_named(ada: Investigator) -> None:
    with pytest.raises(EnvironmentFailure, match="gpg-missing: no-such-gpg is not installed"):
        signer(ada, program="no-such-gpg").sign(ACTION, b"payload")


def test_a_gpg_that_makes_nothing_is_not_believed(ada: Investigator) -> None:
    with pytest.raises(EnvironmentFailure, match="gpg-failed"):
        signer(ada, program="true").sign(ACTION, b"payload")


def test_a_gpg_that_signs_something_else_is_not_believed(ada: Investigator, tmp_path: Path) -> None:
    program = tmp_path / "gpg"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *--detach-sign*) echo other | exec gpg "$@";; *) exec gpg "$@";; esac\n'
    )
    program.chmod(0o700)
    with pytest.raises(InvalidInput, match="bad-signature: the signature does not verify"):
        signer(ada, program=str(program)).sign(ACTION, b"payload")


def test_a_clock_that_agents_would_refuse_is_seen_before_anything_is_sent(ada: Investigator) -> None:
    with pytest.raises(InvalidInput, match="bad-signature"):
        signer(ada).sign(ACTION, b"payload", now=datetime.now(UTC) - timedelta(days=1))


def test_a_certificate_that_gpg_lacks_is_empty(ada: Investigator, bob: Investigator) -> None:
    assert signer(ada).export(bob.fingerprint) == b""
    assert parse_certificate(signer(ada).export(ada.fingerprint)).fingerprint == ada.fingerprint


def test_signing_leaves_no_descriptor_open(ada: Investigator) -> None:
    signer(ada).sign(ACTION, b"payload")
    before = lasting_descriptors()
    signer(ada).sign(ACTION, b"payload")
    assert lasting_descriptors() <= before
