"""Keys and signatures that the gpg which is installed here makes, as investigators do."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from protocol.errors import InvalidInput
from protocol.openpgp import (
    parse_certificate,
    parse_signature_file,
    require_detached_signature,
    require_usable_certificate,
)
from tests.support.gpg import Investigator, temporary_investigator

pytestmark = pytest.mark.system
MESSAGE = b'{"name": "an action"}'


def exported(investigator: Investigator) -> bytes:
    return investigator.gpg("--armor", "--export", investigator.fingerprint)


def require_believed(investigator: Investigator, signature: bytes, message: bytes = MESSAGE) -> None:
    certificate = parse_certificate(exported(investigator))
    require_detached_signature(certificate, signature, message, datetime.now(UTC))


@pytest.fixture
def carol() -> Iterator[Investigator]:
    """An investigator whose key a test may change."""
    with temporary_investigator("Carol Investigator") as investigator:
        yield investigator


def test_what_gpg_signs_is_believed_armoured_or_not(carol: Investigator) -> None:
    require_believed(carol, carol.sign_bytes(MESSAGE))
    armoured = carol.gpg("--armor", "--detach-sign", data=MESSAGE)
    require_believed(carol, parse_signature_file(armoured))
    assert parse_certificate(exported(carol)).fingerprint == carol.fingerprint


@pytest.mark.parametrize("algorithm", ["secp256k1", "brainpoolP256r1", "rsa1024"])
def test_what_the_policy_does_not_know_is_refused_with_a_reason(algorithm: str) -> None:
    with (
        temporary_investigator("Dave Investigator", algorithm) as dave,
        pytest.raises(InvalidInput, match=r"another curve|RSA of 1024 bits"),
    ):
        require_believed(dave, dave.sign_bytes(MESSAGE))


def test_certifications_by_others_change_nothing(carol: Investigator, bob: Investigator) -> None:
    bob.gpg("--import", data=exported(carol))
    bob.gpg("--yes", "--quick-sign-key", carol.fingerprint)
    carol.gpg("--import", data=bob.gpg("--armor", "--export", carol.fingerprint))
    assert len(parse_certificate(exported(carol)).ids[0].signatures) == 2
    require_believed(carol, carol.sign_bytes(MESSAGE))


def test_a_revoked_key_is_refused_for_what_it_signed_before(carol: Investigator) -> None:
    signature = carol.sign_bytes(MESSAGE)
    require_believed(carol, signature)
    # gpg puts a colon before the block, so that nobody imports it by accident.
    revocation = (carol.home / "openpgp-revocs.d" / f"{carol.fingerprint}.rev").read_bytes()
    carol.gpg("--import", data=revocation.replace(b"\n:---", b"\n---"))
    with pytest.raises(InvalidInput, match="bad-signature: the primary key is revoked"):
        require_believed(carol, signature)
    with pytest.raises(InvalidInput, match="bad-key: the primary key is revoked"):
        require_usable_certificate(parse_certificate(exported(carol)), datetime.now(UTC))


def test_a_secret_key_is_never_taken_for_a_certificate(ada: Investigator) -> None:
    with pytest.raises(InvalidInput, match="bad-key: a secret key"):
        parse_certificate(ada.gpg("--passphrase", "", "--export-secret-keys"))
    with pytest.raises(InvalidInput, match="bad-key: an armoured PRIVATE KEY BLOCK"):
        parse_certificate(ada.gpg("--passphrase", "", "--armor", "--export-secret-keys"))


@pytest.mark.parametrize("arguments", [("--clear-sign",), ("--sign",), ("--textmode", "--detach-sign")])
def test_other_kinds_of_signature_are_refused(ada: Investigator, arguments: tuple[str, ...]) -> None:
    made = ada.gpg(*arguments, data=MESSAGE + b"\n")
    with pytest.raises(
        InvalidInput, match=r"bad-signature: (not an|a packet of indet|a signature of type 0x01)"
    ):
        require_believed(ada, made, MESSAGE + b"\n")
