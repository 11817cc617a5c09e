"""Tests of public keys as they travel: kinds that no tool makes without hardware, and weak ones."""

import base64
from math import prod
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.platform import ssh_blobs
from agent.platform.ssh_blobs import packed, packed_number, parse_public
from tests.agent.platform.ssh_samples import said_of
from tests.support.examples import USUAL_EXAMPLES


@pytest.mark.system
@pytest.mark.parametrize(
    ("fields", "bits"),
    [
        ((b"sk-ssh-ed25519@openssh.com", b"\x07" * 32, b"ssh:"), 256),
        (
            (
                b"sk-ecdsa-sha2-nistp256@openssh.com",
                b"nistp256",
                bytes.fromhex(
                    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
                    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
                ),
                b"ssh:",
            ),
            256,
        ),
    ],
)
def test_a_key_of_a_hardware_token_is_told(tmp_path: Path, fields: tuple[bytes, ...], bits: int) -> None:
    blob = packed(*fields)
    path = tmp_path / "key.pub"
    path.write_bytes(fields[0] + b" " + base64.b64encode(blob) + b" token\n")
    key = parse_public(blob)
    assert (key.bits, key.sha256) == said_of(path)
    assert (key.bits, key.weak) == (bits, ())


def rsa(modulus: int, exponent: int = 65537) -> bytes:
    return packed(b"ssh-rsa", packed_number(exponent), packed_number(modulus))


@pytest.mark.parametrize(
    ("modulus", "exponent", "weak"),
    [
        ((1 << 2047) + 1, 65537, ()),
        ((1 << 2046) + 1, 65537, ("short",)),
        ((1 << 2047) + 1, 1, ("exponent",)),
        ((1 << 2047) + 1, 4, ("exponent",)),
        (0, 3, ("short",)),
    ],
)
def test_a_weak_key_of_rsa_says_why(modulus: int, exponent: int, weak: tuple[str, ...]) -> None:
    assert parse_public(rsa(modulus, exponent)).weak == weak


def test_a_modulus_of_the_flawed_form_is_recognised() -> None:
    product = prod(ssh_blobs._ROCA_PRIMES)
    modulus = (1 << 2047) // product * product + product + pow(65537, 12345, product)
    assert parse_public(rsa(modulus)).weak == ("roca",)
    assert parse_public(rsa(modulus + 2)).weak == ()


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        packed(b"ssh-new", b"x"),
        packed(b"ssh-ed25519"),
        packed(b"ssh-ed25519", b"x", b"more"),
        packed(b"ssh-rsa", b"x"),
        b"\xff\xff\xff\xffssh",
        packed(b"ssh-ed25519-cert-v01@openssh.com", b"n", b"k") + b"\0" * 9,
    ],
)
def test_a_key_of_no_known_form_is_refused(blob: bytes) -> None:
    with pytest.raises(ValueError, match="a key is"):
        parse_public(blob)


@settings(max_examples=USUAL_EXAMPLES, deadline=None)
@given(
    st.sampled_from(sorted(ssh_blobs.ALGORITHMS)),
    st.lists(st.binary(max_size=40), max_size=8),
    st.binary(max_size=20),
)
def test_any_fields_are_a_key_or_are_refused(name: bytes, fields: list[bytes], rest: bytes) -> None:
    try:
        key = parse_public(packed(name, *fields) + rest)
    except ValueError:
        return
    assert key.sha256.startswith("SHA256:")
