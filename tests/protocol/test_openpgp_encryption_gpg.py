"""What is encrypted here, decrypted by the gpg that is installed; and keys as gpg changes them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from protocol.errors import InvalidInput
from protocol.openpgp import parse_certificate
from protocol.openpgp_encryption import Recipient, encrypt, require_recipient
from tests.support.gpg import Investigator, temporary_investigator

pytestmark = pytest.mark.system


def recipient(investigator: Investigator, after: timedelta = timedelta()) -> Recipient:
    certificate = parse_certificate(investigator.gpg("--export", investigator.fingerprint))
    return require_recipient(certificate, datetime.now(UTC) + after)


@pytest.fixture
def carol() -> Iterator[Investigator]:
    """An investigator who can be encrypted to, and whose key a test may change."""
    with temporary_investigator("Carol Investigator") as investigator:
        investigator.add_encryption_key()
        yield investigator


@pytest.mark.parametrize(
    ("primary", "algorithm"),
    [
        ("ed25519", "cv25519"),
        ("rsa3072", "rsa3072"),
        ("ed25519", "rsa2048"),
        ("nistp256", "nistp256"),
        ("nistp384", "nistp384"),
        ("nistp521", "nistp521"),
    ],
)
def test_gpg_decrypts_what_was_encrypted_to_two(primary: str, algorithm: str, carol: Investigator) -> None:
    text = bytes(range(256)) * 300
    with temporary_investigator("Dave Investigator", primary) as dave:
        dave.add_encryption_key(algorithm)
        message = encrypt(text, [recipient(carol), recipient(dave)])
        for reader in (carol, dave):
            assert reader.gpg("--decrypt", data=message) == text


def test_gpg_decrypts_with_an_rsa_primary_key_that_is_for_everything() -> None:
    with temporary_investigator("Dave Investigator", "rsa2048/cert,sign,encr") as dave:
        assert dave.gpg("--decrypt", data=encrypt(b"x", [recipient(dave)])) == b"x"


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 4096, (1 << 20) + 1])
def test_texts_of_every_length_come_out_whole(length: int, carol: Investigator) -> None:
    text = b"\xff" * length
    assert carol.gpg("--decrypt", data=encrypt(text, [recipient(carol)])) == text


@pytest.mark.parametrize("algorithm", ["rsa1024", "brainpoolP256r1", "elg2048"])
def test_keys_that_the_policy_does_not_know_are_not_encrypted_to(algorithm: str) -> None:
    with temporary_investigator("Dave Investigator") as dave:
        dave.add_encryption_key(algorithm)
        with pytest.raises(InvalidInput, match=r"RSA of 1024 bits|another curve|algorithm 16"):
            recipient(dave)


def test_a_revoked_certificate_is_not_encrypted_to(carol: Investigator) -> None:
    recipient(carol)
    revocation = (carol.home / "openpgp-revocs.d" / f"{carol.fingerprint}.rev").read_bytes()
    carol.gpg("--import", data=revocation.replace(b":-----BEGIN", b"-----BEGIN"))
    with pytest.raises(InvalidInput, match="primary key is revoked"):
        recipient(carol)


def test_an_expired_subkey_is_not_encrypted_to_and_an_older_one_steps_in() -> None:
    with temporary_investigator("Dave Investigator") as dave:
        dave.add_encryption_key(expires="2d")
        recipient(dave)
        with pytest.raises(InvalidInput, match="subkey has expired"):
            recipient(dave, timedelta(days=3))
        lasting = recipient(dave)
        dave.add_encryption_key()
        assert recipient(dave, timedelta(days=3)).key_id != lasting.key_id
