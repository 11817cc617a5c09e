"""Signatures made by GnuPG and Sequoia, or crafted packet by packet, and what the policy must say of each."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.openpgp_opinions import Case, refusal

VECTORS = Path(__file__).parent / "vectors" / "openpgp"
# After the last signature was made and before the first good key expires.
NOW = datetime(2026, 12, 1, tzinfo=UTC)
CASES = dict(line.split("\t") for line in (VECTORS / "cases.tsv").read_text().splitlines()[1:])


def read_vector(name: str) -> Case:
    """Read a case's three files."""
    folder = VECTORS / name
    return Case(*((folder / file).read_bytes() for file in ("cert.asc", "sig.asc", "msg")))


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_answered_as_its_table_says(case: str) -> None:
    why = refusal(read_vector(case), NOW)
    if CASES[case] != "either":
        assert (why is None) == (CASES[case] == "accept"), why
    if why is not None:
        assert why.startswith(("bad-key: ", "bad-signature: "))
        assert "cannot be checked" not in why  # a reason, not an exception that nobody foresaw


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
    assert reason in str(refusal(read_vector(case), NOW))


def test_every_vector_is_in_the_table() -> None:
    assert {folder.name for folder in VECTORS.iterdir() if folder.is_dir()} == set(CASES)
