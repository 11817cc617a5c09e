"""Which public keys and values the mathematics accepts."""

import hashlib
from contextlib import suppress

import pytest
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol import openpgp_keys
from protocol.errors import InvalidInput
from protocol.openpgp import parse_certificate, require_detached_signature, require_usable_certificate
from protocol.openpgp_keys import PublicKey, is_signed_at_all, is_strongly_signed, load_key
from protocol.openpgp_packets import KeyPacket, Refusal, SignaturePacket, parse_signature, read_integers
from tests.support.openpgp_forge import ALICE, GOOD, MESSAGE, NOW, integer, sign

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


@pytest.mark.slow
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
        "rsa-exponent-nothing": (rsa_packet(MODULUS, 0), "unusual"),
        "rsa-exponent-huge": (rsa_packet(MODULUS, MODULUS - 2), "unusual"),
        "rsa-modulus-absent": (key_packet(RSA, b"\x00\x00"), "truncated"),
        "rsa-modulus-short": (key_packet(RSA, b"\xff\xff" + bytes(9)), "truncated"),
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
        "eddsa-infinity": (curve_packet(EDDSA, ED25519, b"\x40\x01" + bytes(31)), "small order"),
        "eddsa-long": (curve_packet(EDDSA, ED25519, b"\x40" + b"\1" * 33), "not an Ed25519 point"),
        "eddsa-short": (curve_packet(EDDSA, ED25519, b"\x40" + bytes(31)), "not an Ed25519 point"),
        "eddsa-nothing": (key_packet(EDDSA, b""), "truncated"),
        "ecdsa-secp256k1": (curve_packet(ECDSA, bytes.fromhex("2b8104000a"), GENERATOR), "another curve"),
        "ecdsa-compressed": (
            curve_packet(ECDSA, CURVES["P-256"][1], b"\x02" + GENERATOR[1:33]),
            "compressed",
        ),
        "ecdsa-not-on-the-curve": (curve_packet(ECDSA, CURVES["P-256"][1], GENERATOR[:-1] + b"\0"), "on its"),
        "ecdsa-of-another-curve": (curve_packet(ECDSA, CURVES["P-384"][1], GENERATOR), "on its curve"),
        "ecdsa-nothing": (curve_packet(ECDSA, CURVES["P-256"][1], b"\x04" + bytes(64)), "on its curve"),
        "ecdsa-too-large": (curve_packet(ECDSA, CURVES["P-521"][1], b"\x04" + b"\xff" * 132), "on its curve"),
        "ecdsa-long": (curve_packet(ECDSA, CURVES["P-256"][1], GENERATOR + b"\0"), "on its curve"),
        "ecdsa-hybrid": (curve_packet(ECDSA, CURVES["P-256"][1], b"\x06" + GENERATOR[1:]), "compressed"),
        "ecdsa-no-curve": (key_packet(ECDSA, b"\0" + integer(GENERATOR)), "another curve"),
        "ecdsa-curve-truncated": (key_packet(ECDSA, b"\xff\x2a"), "truncated"),
        "ecdsa-infinity": (curve_packet(ECDSA, CURVES["P-256"][1], b""), "compressed"),
    }.values(),
)
def test_keys_that_the_policy_does_not_allow_are_refused(key: KeyPacket, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        load_key(key)


# As the numbers of a signature: nothing, one, all bits, what goes beyond every modulus and curve.
HOSTILE = [b"", b"\1", b"\xff" * 32, b"\xff" * 66, b"\xff" * 256, b"\xff" * 1024]
ORDERS = {
    "P-256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "P-384": (1 << 384) - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
    "P-521": (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}
ED25519_ORDER = (1 << 252) + 0x14DEF9DEA2F79CD65812631A5CF5D3ED


def number(value: int) -> bytes:
    return value.to_bytes(66, "big")


def require_none_verifies(public: PublicKey, signature: SignaturePacket, values: list[bytes]) -> None:
    for value in values:
        assert not is_strongly_signed(public, signature._replace(values=value), MESSAGE)
        assert not is_signed_at_all(public, signature._replace(values=value), MESSAGE)


@pytest.mark.parametrize("curve", CURVES)
def test_hostile_numbers_never_verify_with_ecdsa(curve: str) -> None:
    kind, oid = CURVES[curve]
    private = ec.generate_private_key(kind)
    signature = signed(private, ECDSA, 10)
    r, s = read_integers(signature.values, 2)
    order = number(ORDERS[curve])
    pairs = [(first, second) for first in (r, order, *HOSTILE) for second in (s, order, *HOSTILE)]
    require_none_verifies(
        load_key(ecdsa_packet(private, oid)),
        signature,
        [integer(first) + integer(second) for first, second in pairs if (first, second) != (r, s)],
    )


def test_an_ecdsa_signature_has_a_twin_that_says_the_same() -> None:
    kind, oid = CURVES["P-256"]
    private = ec.generate_private_key(kind)
    signature = signed(private, ECDSA, 8)
    r, s = read_integers(signature.values, 2)
    twin = signature._replace(values=integer(r) + integer(number(ORDERS["P-256"] - int.from_bytes(s, "big"))))
    public = load_key(ecdsa_packet(private, oid))
    assert is_strongly_signed(public, twin, MESSAGE)
    assert not is_strongly_signed(public, twin, MESSAGE + b"!")


def test_hostile_numbers_never_verify_with_ed25519() -> None:
    body = ALICE.body[6:]
    document = parse_signature(ALICE.sign(0, MESSAGE))
    r, s = read_integers(document.values, 2)
    beyond = (int.from_bytes(s, "little") + ED25519_ORDER).to_bytes(32, "little")
    pairs = [(first, second) for first in (r, *HOSTILE) for second in (s, beyond, *HOSTILE)]
    values = [integer(first) + integer(second) for first, second in pairs if (first, second) != (r, s)]
    require_none_verifies(load_key(key_packet(EDDSA, body)), document, values)


def test_hostile_numbers_never_verify_with_rsa() -> None:
    private = rsa.generate_private_key(65537, 2048)
    n = private.public_key().public_numbers().n
    signature = signed(private, RSA, 8)
    (value,) = read_integers(signature.values, 1)
    beyond = int.from_bytes(value, "big") + n
    hostile = [
        *HOSTILE,
        *((n + more).to_bytes(260, "big") for more in (-1, 0, 1)),
        beyond.to_bytes(260, "big"),
    ]
    require_none_verifies(load_key(rsa_packet(n, 65537)), signature, [integer(octets) for octets in hostile])


SHORT_VALUES = [
    b"",
    b"\0",
    b"\0\0",
    b"\0\1",
    b"\0\0\0",
    b"\0\x09\1",
    b"\xff\xff",
    b"\xff\xff" + bytes(40),
    bytes(4),
]


@pytest.mark.parametrize("algorithm", [RSA, ECDSA, EDDSA])
def test_numbers_that_are_cut_short_never_verify(algorithm: int) -> None:
    keys = {
        RSA: rsa_packet(MODULUS, 65537),
        ECDSA: curve_packet(ECDSA, CURVES["P-256"][1], GENERATOR),
        EDDSA: key_packet(EDDSA, ALICE.body[6:]),
    }
    for hash_algorithm, kind in HASHES.items():
        part = SignaturePacket(0, algorithm, hash_algorithm, b"\4\0\1\10\0\0", b"", b"", b"", b"")
        digest = hashlib.new(kind.name, part.digest_input(MESSAGE)).digest()
        require_none_verifies(load_key(keys[algorithm]), part._replace(digest_start=digest[:2]), SHORT_VALUES)


@pytest.mark.parametrize("encoded", sorted(openpgp_keys._ED25519_SMALL_ORDER))
@pytest.mark.parametrize("sign_bit", [0, 0x80])
def test_a_point_with_which_anything_verifies_is_no_key(encoded: bytes, sign_bit: int) -> None:
    point = encoded[:-1] + bytes([encoded[-1] | sign_bit])
    with pytest.raises(Refusal, match="small order"):
        load_key(curve_packet(EDDSA, ED25519, b"\x40" + point))
    # This is why: a signature that nobody made, over one of the first few messages.
    with suppress(ValueError):  # an encoding that this OpenSSL does not read
        public = Ed25519PublicKey.from_public_bytes(point)
        assert any(_verifies(public, b"\1" + bytes(63), b"%d" % number) for number in range(300))


def _verifies(public: Ed25519PublicKey, value: bytes, message: bytes) -> bool:
    try:
        public.verify(value, message)
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize(
    "error",
    [ValueError, TypeError, OverflowError, UnsupportedAlgorithm, RecursionError, MemoryError, RuntimeError],
)
def test_what_a_library_raises_is_a_refusal_with_its_name(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    require_refusal_where_the_library_raises(monkeypatch, error)


def test_a_panic_of_a_library_is_a_refusal_but_the_end_of_the_program_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # pyo3_runtime.PanicException cannot be imported; it has this name and this base.
    require_refusal_where_the_library_raises(monkeypatch, type("PanicException", (BaseException,), {}))
    with pytest.raises(KeyboardInterrupt):
        require_refusal_where_the_library_raises(monkeypatch, KeyboardInterrupt)


def require_refusal_where_the_library_raises(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """Have a library that breaks read alice's key."""

    def break_down(_material: bytes) -> PublicKey:
        raise error("broken")

    monkeypatch.setitem(openpgp_keys._LOADERS, EDDSA, break_down)
    certificate = parse_certificate(GOOD)
    name = rf"\(.*{error.__name__}\)"
    with pytest.raises(InvalidInput, match=rf"bad-signature: cannot be checked {name}"):
        require_detached_signature(certificate, sign(), MESSAGE, NOW)
    with pytest.raises(InvalidInput, match=rf"bad-key: cannot be checked {name}"):
        require_usable_certificate(certificate, NOW)
