"""Signatures made by GnuPG and Sequoia, or crafted packet by packet, and what the policy must say of each."""

from datetime import UTC, datetime
from pathlib import Path

import pysequoia
import pytest

from protocol.errors import InvalidInput
from protocol.openpgp import parse_certificate, parse_signature_file, require_detached_signature

VECTORS = Path(__file__).parent / "vectors" / "openpgp"
# After the last signature was made and before the first good key expires.
NOW = datetime(2026, 12, 1, tzinfo=UTC)
CASES = dict(line.split("\t") for line in (VECTORS / "cases.tsv").read_text().splitlines()[1:])

# Where our policy refuses what Sequoia believes, and why.
STRICTER_THAN_SEQUOIA = {
    "key-expired-ed25519-sig-while-valid": "it judges the key at the time of the signature, we judge it now",
    "key-expired-nistp256-sig-while-valid": "the same",
    "key-expired-rsa2048-sig-while-valid": "the same",
    "text-sig-crlf-changed-msg": "text signatures do not cover line endings",
    "text-sig-lf": "the same",
    "text-sig-lone-cr": "the same",
    "good-dsa2048-22": "DSA is not supported",
    "good-dsa2048-24": "the same",
    "good-sq1.3-rfc9580-cv25519": "keys of version 6 are not supported",
    "good-sq1.3-rfc9580-rsa3k": "the same",
}


def refusal(case: str) -> InvalidInput | None:
    """Return why a case is refused; None where it is accepted."""
    folder = VECTORS / case
    try:
        certificate = parse_certificate((folder / "cert.asc").read_bytes())
        signature = parse_signature_file((folder / "sig.asc").read_bytes())
        require_detached_signature(certificate, signature, (folder / "msg").read_bytes(), NOW)
    except InvalidInput as error:
        return error
    return None


# Sequoia takes the time from the clock: its verdicts move when its own keys here expire, in November 2029.
def is_accepted_by_sequoia(case: str) -> bool:
    folder = VECTORS / case
    try:
        certificate = pysequoia.Cert.from_bytes((folder / "cert.asc").read_bytes())
        signature = pysequoia.Sig.from_bytes((folder / "sig.asc").read_bytes())
        pysequoia.verify((folder / "msg").read_bytes(), signature=signature, store=lambda _: [certificate])
    except Exception:  # noqa: BLE001  (its exceptions have no common base)
        return False
    return True


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_answered_as_its_table_says(case: str) -> None:
    why = refusal(case)
    if CASES[case] != "either":
        assert (why is None) == (CASES[case] == "accept"), why
    if why is not None:
        assert why.code in ("bad-key", "bad-signature")
        assert "cannot be checked" not in why.detail  # a reason, not an exception that nobody foresaw


@pytest.mark.parametrize(
    ("case", "reason"),
    {
        "clearsigned-as-detached": "exactly one armoured block",
        "critical-unknown-notation": "unknown critical notation",
        "good-dsa2048-22": "algorithm 17 is not supported",
        "good-sq1.3-rfc9580-rsa3k": "key of version 6",
        "key-expired-nistp256-sig-while-valid": "primary key has expired",
        "key-revoked-rsa2048": "primary key is revoked",
        "key-without-sign-flag": "not allowed to sign",
        "primary-expired-subkey-not": "primary key has expired",
        "sha1-self-signature": "hash algorithm 2 is too weak",
        "sig-before-key-creation": "created before the key",
        "sig-expired": "signature has expired",
        "sig-in-future": "from the future",
        "subkey-revoked": "subkey is revoked",
        "text-sig-lf": "type 0x01",
        "two-sigs-first-other-key": "more than 1 packet",
        "weak-rsa1024": "RSA of 1024 bits",
        "weak-sha1-sig": "hash algorithm 2",
        "x-foreign-subkey-no-binding": "no binding signature",
        "x-no-self-sig": "no self-signature",
        "x-sig-unhashed-creation-time-only": "no creation time",
        "x-truncated-30": "truncated",
    }.items(),
)
def test_a_refusal_says_what_is_wrong(case: str, reason: str) -> None:
    assert reason in str(refusal(case))


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_accepted_that_sequoia_refuses_and_every_other_difference_has_a_reason(case: str) -> None:
    differs = is_accepted_by_sequoia(case) != (refusal(case) is None)
    assert differs == (case in STRICTER_THAN_SEQUOIA)


def test_every_vector_is_in_the_table() -> None:
    assert {folder.name for folder in VECTORS.iterdir() if folder.is_dir()} == set(CASES)
