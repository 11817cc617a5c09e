"""Encrypts to investigators' keys: which keys may be encrypted to, and the message that gpg decrypts.

A recipient's key:
1. stands in a certificate that is judged as for signing (`protocol.openpgp`, rules 8 to 12): not revoked and
   not expired now, self-signed and bound by strong hashes; its key flags say that it is for encryption;
2. is RSA from 2048 bits, ECDH on Curve25519, or ECDH on P-256, P-384 or P-521 with a key derivation that uses
   SHA-256 or better and AES; of several keys the newest is taken, as gpg does, and one that may not be used
   is passed over.
A message:
3. is one session key packet of version 3 per recipient and one integrity-protected data packet of version 1
   with AES-256, holding one literal packet without name and date: nothing is compressed, so its length tells
   the plaintext's length and nothing more;
4. has a session key, and for each recipient an ephemeral key, that were used for nothing else.

Source: RFC 4880, 5.1, 5.13 and 5.9; RFC 6637, sections 7 to 10. `cryptography` (OpenSSL) does every
computation. Not done here: the message is not signed, since what is in it is.
"""

import hashlib
import os
from datetime import datetime
from typing import Dict, List, NamedTuple, Sequence, Tuple, Union

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.openpgp import refusing, unix_seconds
from protocol.openpgp_certificate import Certificate
from protocol.openpgp_keys import RSA, STRONG_HASHES, load_nist_point, load_rsa
from protocol.openpgp_packets import KeyPacket, Refusal, read_curve_and_rest
from protocol.openpgp_validity import Judge

ECDH = 18
_CURVE25519_OID = bytes.fromhex("2b060104019755010501")
_CURVE25519_POINT_BYTES = 33  # with the prefix 0x40 of a native point
_KDF_START = b"\x03\x01"  # length of what follows, and a reserved 1 (RFC 6637, section 9)
_KDF_BYTES = 4
_AES_BYTES: Dict[int, int] = {7: 16, 8: 24, 9: 32}
_AES_256 = 9
_BLOCK_BYTES = 16
_SESSION_KEY_BYTES = _AES_BYTES[_AES_256]
_SENDER = b"Anonymous Sender    "  # RFC 6637, section 8
_PADDED_TO = 8  # blocks of AES key wrap

_SESSION_KEY_PACKET, _LITERAL_PACKET, _PROTECTED_PACKET = 1, 11, 18
_INTEGRITY_PACKET = b"\xd3\x14"  # tag 19 and the length of SHA-1, as they are hashed (RFC 4880, 5.13)
_LITERAL_START = b"b\x00\x00\x00\x00\x00"  # binary, no file name, no date


class _RsaReader(NamedTuple):
    public: rsa.RSAPublicKey

    def wrap(self, secret: bytes) -> bytes:
        return _integer(self.public.encrypt(secret, padding.PKCS1v15()))


class _EcdhReader(NamedTuple):
    """`parameters` is what the key derivation binds: curve, algorithms and recipient."""

    public: Union[X25519PublicKey, ec.EllipticCurvePublicKey]
    hash_name: str
    kek_bytes: int
    parameters: bytes

    def wrap(self, secret: bytes) -> bytes:
        shared, ephemeral = self._agree()
        derived = hashlib.new(self.hash_name, b"\0\0\0\1" + shared + self.parameters).digest()
        missing = _PADDED_TO - len(secret) % _PADDED_TO
        wrapped = aes_key_wrap(derived[: self.kek_bytes], secret + bytes([missing]) * missing)
        return _integer(ephemeral) + bytes([len(wrapped)]) + wrapped

    def _agree(self) -> Tuple[bytes, bytes]:
        """Return the secret shared with a fresh key, and that key's public point."""
        if isinstance(self.public, X25519PublicKey):
            fresh = X25519PrivateKey.generate()
            return fresh.exchange(self.public), b"\x40" + fresh.public_key().public_bytes_raw()
        fresh_ec = ec.generate_private_key(self.public.curve)
        point = fresh_ec.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return fresh_ec.exchange(ec.ECDH(), self.public), point


_Reader = Union[_RsaReader, _EcdhReader]


class Recipient(NamedTuple):
    """A key that may be encrypted to: its certificate's fingerprint, its own key id, and the key."""

    fingerprint: str
    key_id: bytes
    algorithm: int
    reader: _Reader


def require_recipient(certificate: Certificate, now: datetime) -> Recipient:
    """Return the key of a certificate that may be encrypted to now (rules 1 and 2).

    Raises:
        InvalidInput: `cannot-seal`, with the reason for each of its keys.

    """
    with refusing("cannot-seal"):
        judge = Judge(certificate, unix_seconds(now))
        reasons: List[str] = []
        newest_first = sorted(certificate.subkeys, key=lambda subkey: subkey.key.created, reverse=True)
        for subkey in (*newest_first, None):
            key = certificate.primary if subkey is None else subkey.key
            try:
                judge.require_reader(subkey)
                reader = _load_reader(key)
            except Refusal as refusal:
                reasons.append(str(refusal))
            else:
                key_id = bytes.fromhex(key.fingerprint[-16:])
                return Recipient(certificate.fingerprint, key_id, key.algorithm, reader)
        raise Refusal("; ".join(dict.fromkeys(reasons)))


def encrypt(plaintext: bytes, recipients: Sequence[Recipient]) -> bytes:
    """Return a binary OpenPGP message that each of the recipients, one at least, can decrypt (rules 3, 4).

    Raises:
        InvalidInput: `cannot-seal`: a key with which no secret can be agreed on.

    """
    if not recipients:
        raise ValueError("a message to nobody")
    with refusing("cannot-seal"):
        session_key = os.urandom(_SESSION_KEY_BYTES)
        secret = bytes([_AES_256]) + session_key + (sum(session_key) & 0xFFFF).to_bytes(2, "big")
        parts = [_wrap_session_key(recipient, secret) for recipient in recipients]
        parts.append(_protect(plaintext, session_key))
        return b"".join(parts)


def _wrap_session_key(recipient: Recipient, secret: bytes) -> bytes:
    start = b"\x03" + recipient.key_id + bytes([recipient.algorithm])
    return _packet(_SESSION_KEY_PACKET, start + recipient.reader.wrap(secret))


def _protect(plaintext: bytes, session_key: bytes) -> bytes:
    """Return the data packet: random block with its end repeated, literal packet, SHA-1 over both."""
    start = os.urandom(_BLOCK_BYTES)
    literal = _packet(_LITERAL_PACKET, _LITERAL_START + plaintext)
    covered = b"".join((start, start[-2:], literal, _INTEGRITY_PACKET))
    # SHA-1 under the cipher: it detects changes as the format has it, and proves nothing to anybody.
    check = hashlib.sha1(covered, usedforsecurity=False).digest()
    encryptor = Cipher(algorithms.AES(session_key), CFB(bytes(_BLOCK_BYTES))).encryptor()
    return _packet(_PROTECTED_PACKET, b"\x01" + encryptor.update(covered + check) + encryptor.finalize())


def _packet(tag: int, body: bytes) -> bytes:
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4, "big") + body


def _integer(value: bytes) -> bytes:
    """Write a multiprecision integer (RFC 4880, 3.2)."""
    stripped = value.lstrip(b"\0")
    return int.from_bytes(stripped, "big").bit_length().to_bytes(2, "big") + stripped


def _load_reader(key: KeyPacket) -> _Reader:
    if key.algorithm == RSA:
        return _RsaReader(load_rsa(key.material).public)
    if key.algorithm == ECDH:
        return _load_ecdh(key)
    raise Refusal(f"public-key algorithm {key.algorithm} is not one that encrypts here")


def _load_ecdh(key: KeyPacket) -> _EcdhReader:
    oid, point, kdf = read_curve_and_rest(key.material)
    if len(kdf) != _KDF_BYTES or not kdf.startswith(_KDF_START):
        raise Refusal("parameters of a key derivation that is not known")
    kind, kek_bytes = STRONG_HASHES.get(kdf[2]), _AES_BYTES.get(kdf[3])
    if kind is None or kek_bytes is None:
        raise Refusal(f"a key derivation with hash {kdf[2]} and cipher {kdf[3]}")
    bound = bytes([len(oid)]) + oid + bytes([ECDH]) + kdf + _SENDER + bytes.fromhex(key.fingerprint)
    return _EcdhReader(_load_point(oid, point), kind.name, kek_bytes, bound)


def _load_point(oid: bytes, point: bytes) -> Union[X25519PublicKey, ec.EllipticCurvePublicKey]:
    if oid != _CURVE25519_OID:
        return load_nist_point(oid, point)
    if len(point) != _CURVE25519_POINT_BYTES or not point.startswith(b"\x40"):
        raise Refusal("not a Curve25519 point")
    return X25519PublicKey.from_public_bytes(point[1:])
