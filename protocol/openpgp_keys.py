"""The mathematics of OpenPGP signatures: which keys and hashes are known, and whether a value verifies.

Known keys: RSA from 2048 bits, Ed25519 (EdDSA, algorithm 22), ECDSA on P-256, P-384 and P-521; for all others
`load_key` refuses. `cryptography` (OpenSSL) does every computation; nothing is computed here.
Source: RFC 4880, sections 9 and 13; RFC 6637, sections 9 and 11; RFC 9580, section 9.
"""

import hashlib
from typing import Callable, Dict, NamedTuple, Type, Union

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from protocol.openpgp_packets import KeyPacket, Refusal, SignaturePacket, read_curve, read_integers

RSA, ECDSA, EDDSA = 1, 19, 22
MIN_RSA_BITS = 2048  # design: the policy; NIST SP 800-131A, 112 bits of security
_MAX_RSA_BITS = 8192  # the largest that gpg makes (--enable-large-rsa); bounds the time of one verification
_MIN_RSA_EXPONENT = 3
_MAX_RSA_EXPONENT = 1 << 32  # gpg and sq use 65537, older programs 17 or 41; bounds the time as well

_ED25519_POINT_BYTES = 33  # with the prefix 0x40 of a native point (RFC 9580, 11.2.1)
# The encodings of points of small order, without the sign bit: with such a key, signatures verify that nobody
# made. Source: libsodium, ed25519_ref10.c, ge25519_has_small_order.
_ED25519_SMALL_ORDER = frozenset(
    bytes.fromhex(octets)
    for octets in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
_ED25519_OID = bytes.fromhex("2b06010401da470f01")
_CURVES: Dict[bytes, Type[ec.EllipticCurve]] = {
    bytes.fromhex("2a8648ce3d030107"): ec.SECP256R1,
    bytes.fromhex("2b81040022"): ec.SECP384R1,
    bytes.fromhex("2b81040023"): ec.SECP521R1,
}


class Hash(NamedTuple):
    """A hash algorithm: its name in hashlib and in cryptography."""

    name: str
    algorithm: Type[hashes.HashAlgorithm]


STRONG_HASHES: Dict[int, Hash] = {
    8: Hash("sha256", hashes.SHA256),
    9: Hash("sha384", hashes.SHA384),
    10: Hash("sha512", hashes.SHA512),
}
# Good enough to believe a revocation, and for nothing else: believing one too many only refuses.
ALL_HASHES: Dict[int, Hash] = {
    1: Hash("md5", hashes.MD5),
    2: Hash("sha1", hashes.SHA1),
    **STRONG_HASHES,
    11: Hash("sha224", hashes.SHA224),
    12: Hash("sha3_256", hashes.SHA3_256),
    14: Hash("sha3_512", hashes.SHA3_512),
}


class RsaKey(NamedTuple):
    """An RSA key; signatures are PKCS#1 v1.5."""

    public: rsa.RSAPublicKey

    def verify(self, values: bytes, digest: bytes, algorithm: hashes.HashAlgorithm) -> None:
        """Raise InvalidSignature or Refusal unless the values are the signature of the digest."""
        (value,) = read_integers(values, 1)
        # Leading zeros are cut off in OpenPGP; PKCS#1 wants the length of the modulus.
        padded = value.rjust((self.public.key_size + 7) // 8, b"\0")
        self.public.verify(padded, digest, padding.PKCS1v15(), Prehashed(algorithm))


class Ed25519Key(NamedTuple):
    """An Ed25519 key; it signs the digest as its message."""

    public: Ed25519PublicKey

    def verify(self, values: bytes, digest: bytes, algorithm: hashes.HashAlgorithm) -> None:  # noqa: ARG002  (one shape for all keys)
        """Raise InvalidSignature or Refusal unless the values are the signature of the digest."""
        r, s = read_integers(values, 2)
        self.public.verify(r.rjust(32, b"\0") + s.rjust(32, b"\0"), digest)


class EcdsaKey(NamedTuple):
    """A key on one of the NIST curves."""

    public: ec.EllipticCurvePublicKey

    def verify(self, values: bytes, digest: bytes, algorithm: hashes.HashAlgorithm) -> None:
        """Raise InvalidSignature or Refusal unless the values are the signature of the digest."""
        r, s = (int.from_bytes(value, "big") for value in read_integers(values, 2))
        self.public.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(algorithm)))


PublicKey = Union[RsaKey, Ed25519Key, EcdsaKey]


def load_rsa(material: bytes) -> RsaKey:
    """Make an RSA key; a size or exponent out of bounds raises `Refusal`."""
    n, e = (int.from_bytes(value, "big") for value in read_integers(material, 2))
    if not MIN_RSA_BITS <= n.bit_length() <= _MAX_RSA_BITS:
        raise Refusal(f"RSA of {n.bit_length()} bits; allowed are {MIN_RSA_BITS} to {_MAX_RSA_BITS}")
    if not _MIN_RSA_EXPONENT <= e < _MAX_RSA_EXPONENT or e % 2 == 0 or n % 2 == 0:
        raise Refusal("RSA with an unusual exponent or modulus")
    return RsaKey(rsa.RSAPublicNumbers(e, n).public_key())


def _load_ed25519(material: bytes) -> Ed25519Key:
    oid, point = read_curve(material)
    if oid != _ED25519_OID:
        raise Refusal("EdDSA on another curve than Ed25519")
    if len(point) != _ED25519_POINT_BYTES or not point.startswith(b"\x40"):
        raise Refusal("not an Ed25519 point")
    if point[1:-1] + bytes([point[-1] & 0x7F]) in _ED25519_SMALL_ORDER:
        raise Refusal("an Ed25519 point of small order")
    return Ed25519Key(Ed25519PublicKey.from_public_bytes(point[1:]))


def load_nist_point(oid: bytes, point: bytes) -> ec.EllipticCurvePublicKey:
    """Return the point of a key on P-256, P-384 or P-521; any other raises `Refusal`."""
    curve = _CURVES.get(oid)
    if curve is None:
        raise Refusal("another curve than P-256, P-384 and P-521")
    if point[:1] != b"\x04":  # uncompressed, RFC 6637, section 6
        raise Refusal("a compressed point")
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(curve(), point)
    except ValueError:
        raise Refusal("a point that is not on its curve") from None


def _load_ecdsa(material: bytes) -> EcdsaKey:
    return EcdsaKey(load_nist_point(*read_curve(material)))


_LOADERS: Dict[int, Callable[[bytes], PublicKey]] = {RSA: load_rsa, EDDSA: _load_ed25519, ECDSA: _load_ecdsa}


def load_key(key: KeyPacket) -> PublicKey:
    """Make a key of its packet.

    Raises:
        Refusal: an algorithm, curve or size that the policy does not allow.

    """
    loader = _LOADERS.get(key.algorithm)
    if loader is None:
        raise Refusal(f"public-key algorithm {key.algorithm} is not supported")
    return loader(key.material)


def is_strongly_signed(key: PublicKey, signature: SignaturePacket, subject: bytes) -> bool:
    """Tell whether `key` made the signature over `subject`, with a strong hash and the digest it announces.

    The caller has seen to it that the signature's algorithm is the key's.
    """
    kind = STRONG_HASHES.get(signature.hash_algorithm)
    if kind is None:
        return False
    digest = _digest(kind, signature, subject)
    return digest[:2] == signature.digest_start and _verifies(key, signature.values, digest, kind)


def is_signed_at_all(key: PublicKey, signature: SignaturePacket, subject: bytes) -> bool:
    """Tell whether `key` made the signature over `subject`, with whatever hash: for revocations only."""
    kind = ALL_HASHES.get(signature.hash_algorithm)
    return kind is not None and _verifies(key, signature.values, _digest(kind, signature, subject), kind)


def _digest(kind: Hash, signature: SignaturePacket, subject: bytes) -> bytes:
    return hashlib.new(kind.name, signature.digest_input(subject)).digest()


def _verifies(key: PublicKey, values: bytes, digest: bytes, kind: Hash) -> bool:
    try:
        key.verify(values, digest, kind.algorithm())
    except (InvalidSignature, Refusal):
        return False
    return True
