"""Which public keys and values the mathematics accepts."""

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.openpgp_keys import is_signed_at_all, is_strongly_signed, load_key
from protocol.openpgp_packets import KeyPacket, Refusal, SignaturePacket
from tests.support.openpgp_forge import MESSAGE, integer

RSA, ECDSA, EDDSA = 1, 19, 22
CURVES = {
    "P-256": (ec.SECP256R1(), bytes.fromhex("2a8648ce3d030107")),
    "P-384": (ec.SECP384R1(), bytes.fromhex("2b81040022")),
    "P-521": (ec.SECP521R1(), bytes.fromhex("2b81040023")),
}
ED25519 = bytes.fromhex("2b06010401da470f01")
HASHES = {8: hashes.SHA256(), 9: hashes.SHA384(), 10: hashes.SHA512()}
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def key_packet(algorithm: int, material: bytes) -> KeyPacket:
    return KeyPacket(0, algorithm, material, b"")


def rsa_packet(n: int, e: int) -> KeyPacket:
    return key_packet(RSA, integer(n.to_bytes(2048, "big")) + integer(e.to_bytes(2048, "big")))


def curve_packet(algorithm: int, oid: bytes, point: bytes) -> KeyPacket:
    return key_packet(algorithm, bytes([len(oid)]) + oid + integer(point))


def ecdsa_packet(private: ec.EllipticCurvePrivateKey, oid: bytes) -> KeyPacket:
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return curve_packet(ECDSA, oid, point)


def signed(private: Private, kind: int, hash_algorithm: int) -> SignaturePacket:
    """Sign MESSAGE as an OpenPGP document."""
    part = SignaturePacket(0, kind, hash_algorithm, b"\4\0\1\10\0\0", b"", b"", b"", b"")
    algorithm = HASHES[hash_algorithm]
    covered = part.digest_input(MESSAGE)
    if isinstance(private, rsa.RSAPrivateKey):
        values = integer(private.sign(covered, padding.PKCS1v15(), algorithm))
    else:
        r, s = decode_dss_signature(private.sign(covered, ec.ECDSA(algorithm)))
        values = integer(r.to_bytes(66, "big")) + integer(s.to_bytes(66, "big"))
    digest = hashlib.new(algorithm.name, covered).digest()
    return part._replace(values=values, digest_start=digest[:2])


@pytest.mark.parametrize("hash_algorithm", HASHES)
@pytest.mark.parametrize("curve", CURVES)
def test_ecdsa_signatures_verify_on_the_nist_curves(curve: str, hash_algorithm: int) -> None:
    kind, oid = CURVES[curve]
    private = ec.generate_private_key(kind)
    public = load_key(ecdsa_packet(private, oid))
    signature = signed(private, ECDSA, hash_algorithm)
    assert is_strongly_signed(public, signature, MESSAGE)
    assert not is_strongly_signed(public, signature, MESSAGE + b"!")
    for values in (b"", b"\0\0\0\0", signature.values[:-1], signature.values + b"\0", bytes(200)):
        assert not is_signed_at_all(public, signature._replace(values=values), MESSAGE)


@pytest.mark.parametrize("bits", [2048, 3072])
def test_rsa_signatures_verify_also_with_leading_zeros_cut_off(bits: int) -> None:
    private = rsa.generate_private_key(65537, bits)
    numbers = private.public_key().public_numbers()
    public = load_key(rsa_packet(numbers.n, numbers.e))
    signature = signed(private, RSA, 10)
    assert is_strongly_signed(public, signature, MESSAGE)
    padded = b"\0\1\0" + signature.values[2:]  # an octet of zeros in front makes it longer than the modulus
    assert not is_strongly_signed(public, signature._replace(values=padded), MESSAGE)
    assert not is_strongly_signed(public, signature._replace(hash_algorithm=8), MESSAGE)
    assert not is_strongly_signed(public, signature._replace(hash_algorithm=99), MESSAGE)


MODULUS = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
GENERATOR = (
    ec.derive_private_key(1, ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
)


@pytest.mark.parametrize(
    ("key", "reason"),
    {
        "rsa-1024": (rsa_packet(MODULUS >> 1024, 65537), "RSA of 1024 bits"),
        "rsa-2047": (rsa_packet(MODULUS >> 1, 65537), "RSA of 2047 bits"),
        "rsa-8193": (rsa_packet((1 << 8192) + 1, 65537), "RSA of 8193 bits"),
        "rsa-nothing": (rsa_packet(0, 65537), "RSA of 0 bits"),
        "rsa-exponent-1": (rsa_packet(MODULUS, 1), "unusual"),
        "rsa-exponent-even": (rsa_packet(MODULUS, 65536), "unusual"),
        "rsa-exponent-large": (rsa_packet(MODULUS, (1 << 32) + 1), "unusual"),
        "rsa-modulus-even": (rsa_packet(MODULUS + 1, 65537), "unusual"),
        "rsa-truncated": (key_packet(RSA, b"\x08\x00"), "truncated"),
        "rsa-trailing": (key_packet(RSA, rsa_packet(MODULUS, 3).material + b"x"), "trailing"),
        "rsa-encrypt-only": (key_packet(2, rsa_packet(MODULUS, 3).material), "algorithm 2 is not"),
        "dsa": (key_packet(17, b""), "algorithm 17 is not supported"),
        "elgamal": (key_packet(16, b""), "algorithm 16 is not supported"),
        "ed448": (key_packet(28, bytes(57)), "algorithm 28 is not supported"),
        "eddsa-another-curve": (curve_packet(EDDSA, b"\x2b\x65\x71", b"\x40" + bytes(57)), "another curve"),
        "eddsa-no-prefix": (curve_packet(EDDSA, ED25519, b"\x41" + bytes(32)), "not an Ed25519 point"),
        "eddsa-short": (curve_packet(EDDSA, ED25519, b"\x40" + bytes(31)), "not an Ed25519 point"),
        "eddsa-nothing": (key_packet(EDDSA, b""), "truncated"),
        "ecdsa-secp256k1": (curve_packet(ECDSA, bytes.fromhex("2b8104000a"), GENERATOR), "another curve"),
        "ecdsa-compressed": (
            curve_packet(ECDSA, CURVES["P-256"][1], b"\x02" + GENERATOR[1:33]),
            "compressed",
        ),
        "ecdsa-not-on-the-curve": (curve_packet(ECDSA, CURVES["P-256"][1], GENERATOR[:-1] + b"\0"), "on its"),
        "ecdsa-of-another-curve": (curve_packet(ECDSA, CURVES["P-384"][1], GENERATOR), "on its curve"),
        "ecdsa-infinity": (curve_packet(ECDSA, CURVES["P-256"][1], b""), "compressed"),
    }.values(),
)
def test_keys_that_the_policy_does_not_allow_are_refused(key: KeyPacket, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        load_key(key)
