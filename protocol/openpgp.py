"""The OpenPGP policy: which detached signature, by which certificate, over which bytes, is believed.

Any doubt refuses, with a reason. The signature:
 1. is exactly one version 4 signature packet of definite length, with nothing before or after it;
 2. has type 0x00 (binary): other types cover other bytes, or none at all;
 3. uses SHA-256, SHA-384 or SHA-512, and the digest begins as the packet announces;
 4. has well-formed subpackets, none of those that matter twice, no critical subpacket or notation that we do
    not know; its creation time is hashed and at most 5 minutes ahead of now; it has not expired;
 5. names its issuer by a hashed fingerprint, which in full is that of the primary key or of one subkey;
 6. was not created before the key that signed (which with 4 refuses a key from the future);
 7. verifies, with RSA from 2048 bits, Ed25519, or ECDSA on P-256, P-384 or P-521.
The certificate:
 8. is exactly one, of version 4, without secrets, within limits (`protocol.openpgp_certificate`);
 9. is not revoked: a 0x20 by its primary key that verifies revokes it for ever, whatever its hash, date or
    reason; one by another key is no revocation; one that cannot be decided refuses;
10. is self-signed by its primary key, directly or over a user id that was not revoked since, under the rules
    3, 4 and 6 and, where an issuer is named, by that key; what breaks them counts for nothing;
11. has not expired now, by the latest self-signature that says what the key is for, and any made after it;
12. where a subkey signed: no 0x28 by the primary key that verifies revokes it; the primary key bound it,
    under the rules 10 and 11; and it signed itself that it belongs to the primary key (back-signature);
13. allows the key that signed to sign: key flags, which must be there.

Not done here: a certificate is trusted because of who put it into the list (`protocol.keyring`), never
because of others' signatures on it. There is no I/O and the time is the caller's. A revocation that somebody
cut out of a certificate cannot be missed, so certificates must be kept whole.
"""

from contextlib import contextmanager
from datetime import datetime
from typing import Iterator, Optional

from protocol import openpgp_packets as packets
from protocol.errors import InvalidInput
from protocol.openpgp_certificate import Certificate, Subkey, read_certificate
from protocol.openpgp_keys import STRONG_HASHES, is_strongly_signed
from protocol.openpgp_packets import KeyPacket, Refusal, SignaturePacket
from protocol.openpgp_statement import Statement, read_document_statement
from protocol.openpgp_validity import Judge

__all__ = [
    "Certificate",
    "parse_certificate",
    "parse_signature_file",
    "refusing",
    "require_detached_signature",
    "require_usable_certificate",
    "unix_seconds",
]

MAX_SIGNATURE_BYTES = 4096  # that of an envelope; RSA-8192 with its subpackets needs 1,200
_MAX_ARMOURED_BYTES = 2 * MAX_SIGNATURE_BYTES

_BINARY = 0x00
_PANIC = "PanicException"


@contextmanager
def refusing(code: str) -> Iterator[None]:
    """Let nothing leave but `InvalidInput` with this code."""
    try:
        yield
    except Refusal as refusal:
        raise InvalidInput(code, str(refusal)) from None
    # Whatever hostile bytes make this code or a library do, the answer is a refusal. A panic in the Rust part
    # of cryptography (pyo3) is no Exception, unlike all else that may come from there.
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        raise InvalidInput(code, f"cannot be checked ({type(error).__name__})") from error


def parse_certificate(data: bytes) -> Certificate:
    """Take one certificate apart, armoured or binary (rule 8). It is judged when it is used.

    Raises:
        InvalidInput: `bad-key`, with the reason.

    """
    with refusing("bad-key"):
        return read_certificate(data)


def parse_signature_file(data: bytes) -> bytes:
    """Return the packets of a signature file, which people may have armoured; envelopes never are.

    Raises:
        InvalidInput: `bad-signature`, with the reason.

    """
    with refusing("bad-signature"):
        if len(data) > _MAX_ARMOURED_BYTES:
            raise Refusal(f"a signature of {len(data)} bytes, at most {MAX_SIGNATURE_BYTES} are read")
        return packets.remove_armour(data, "SIGNATURE")


def require_detached_signature(
    certificate: Certificate, signature: bytes, message: bytes, now: datetime
) -> None:
    """Raise unless `signature` over `message` by this certificate is one that the policy believes.

    Args:
        certificate: the one certificate that may have signed.
        signature: the packet as it stands in an envelope, never armoured.
        message: the exact signed bytes.
        now: aware.

    Raises:
        InvalidInput: `bad-signature`, with the reason.

    """
    with refusing("bad-signature"):
        now_s = unix_seconds(now)
        parsed = _require_one_signature(signature)
        _require_binary_type(parsed)
        _require_strong_hash(parsed)
        statement = read_document_statement(parsed, now_s)
        subkey = _find_signing_subkey(certificate, statement)
        signer = subkey.key if subkey else certificate.primary
        _require_in_order(parsed, statement, signer)
        public = Judge(certificate, now_s).require_signer(subkey)
        if not is_strongly_signed(public, parsed, message):
            raise Refusal("the signature does not verify over these bytes")


def require_usable_certificate(certificate: Certificate, now: datetime) -> None:
    """Raise unless a key of the certificate could make an acceptable signature now (rules 8 to 13).

    For whoever takes a key into a list: the builder of the agent, the operator of the server.

    Raises:
        InvalidInput: `bad-key`, with the reason.

    """
    with refusing("bad-key"):
        judge = Judge(certificate, unix_seconds(now))
        reasons = []
        for subkey in (None, *certificate.subkeys):
            try:
                judge.require_signer(subkey)
            except Refusal as refusal:
                reasons.append(str(refusal))
            else:
                return
        raise Refusal("; ".join(dict.fromkeys(reasons)))  # what is wrong with the primary key once


def unix_seconds(now: datetime) -> int:
    """Return an aware time in Unix seconds; one without a zone raises `Refusal`."""
    if now.tzinfo is None:
        raise Refusal("the time of the check has no zone")
    return int(now.timestamp())


def _require_one_signature(data: bytes) -> SignaturePacket:
    """Rule 1."""
    if len(data) > MAX_SIGNATURE_BYTES:
        raise Refusal(f"a signature of {len(data)} bytes, at most {MAX_SIGNATURE_BYTES} are read")
    found = packets.split_packets(data, 1)
    if not found:
        raise Refusal("no signature")
    if found[0].tag != packets.SIGNATURE:
        raise Refusal(f"a packet of tag {found[0].tag} where a signature is expected")
    return packets.parse_signature(found[0].body)


def _require_binary_type(signature: SignaturePacket) -> None:
    """Rule 2."""
    if signature.type != _BINARY:
        raise Refusal(f"a signature of type 0x{signature.type:02x}, only 0x00 (binary) is allowed")


def _require_strong_hash(signature: SignaturePacket) -> None:
    """Rule 3; that the digest begins as announced is checked together with it."""
    if signature.hash_algorithm not in STRONG_HASHES:
        raise Refusal(f"hash algorithm {signature.hash_algorithm}, allowed are 8, 9, 10 (SHA-256, 384, 512)")


def _find_signing_subkey(certificate: Certificate, statement: Statement) -> Optional[Subkey]:
    """Rule 5: the subkey that is said to have signed, or None for the primary key."""
    if statement.issuer == certificate.fingerprint:
        return None
    found = [subkey for subkey in certificate.subkeys if subkey.key.fingerprint == statement.issuer]
    if not found:
        raise Refusal(f"made by the key {statement.issuer}, which is not in the certificate")
    if len(found) > 1:
        raise Refusal("the certificate holds the signing subkey twice")
    return found[0]


def _require_in_order(signature: SignaturePacket, statement: Statement, key: KeyPacket) -> None:
    """Rule 6; that the key is not from the future follows from rule 4."""
    if statement.created < key.created:
        raise Refusal("created before the key that signed")
    if signature.algorithm != key.algorithm:
        raise Refusal("made with another algorithm than the key's")
