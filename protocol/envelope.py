"""Signed envelopes: Dead Simple Signing Envelope v1 (DSSE), the only container that is ever signed.

Rules:
1. A receiver names the one payload type that it expects; any other is refused before anything is parsed.
2. The signature covers the pre-authentication encoding of type and exact payload bytes (`pae`).
3. The payload is parsed only after a signature over those same bytes was verified, by the caller.
4. A document's identity is the SHA-256 of its payload, never of the envelope.

Source: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md. Standard library only: the
resident agent imports this module.
"""

import base64
import binascii
import hashlib
from typing import Any, Dict, Mapping, NamedTuple, Tuple

from protocol.errors import InvalidInput
from protocol.strictjson import MAX_DOCUMENT_BYTES, decode_json, encode_json

MAX_SIGNATURES = 8
MAX_SIGNATURE_BYTES = 4096
_MAX_KEYID = 128
_MEMBERS = ("payloadType", "payload", "signatures")


def max_envelope_bytes(max_payload_bytes: int) -> int:
    """Return how large an envelope may be: base64 adds a third; the rest is for type and signatures."""
    return 1024 + 4 * max_payload_bytes // 3 + MAX_SIGNATURES * (256 + 4 * MAX_SIGNATURE_BYTES // 3)


MAX_ENVELOPE_BYTES = max_envelope_bytes(MAX_DOCUMENT_BYTES)


def payload_type(kind: str) -> str:
    """Return the media type of one kind of document, e.g. `application/vnd.mig.action+json`."""
    return f"application/vnd.mig.{kind}+json"


ACTION = payload_type("action")
LOGIN = payload_type("login")
HEARTBEAT = payload_type("heartbeat")
RESULT = payload_type("result")
SEALED_RESULT = payload_type("sealed-result")
BROKER_LOGIN = payload_type("broker-login")
CANCEL = payload_type("cancel")
TRUST = payload_type("trust")
NOTICE = payload_type("notice")
ENROLMENT = payload_type("enrolment")  # what a token signs; never an envelope
APPROVAL = payload_type("approval")
ALERT = payload_type("alert")


class Signature(NamedTuple):
    """One signature: `keyid` is a hint for finding the key, never proof; `sig` is raw bytes."""

    keyid: str
    sig: bytes


class Envelope(NamedTuple):
    """A decoded envelope whose signatures nobody has checked yet."""

    payload_type: str
    payload: bytes
    signatures: Tuple[Signature, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the payload, 64 hex digits: the document's identity."""
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def signed_bytes(self) -> bytes:
        """The bytes that every signature covers."""
        return pae(self.payload_type, self.payload)


def pae(kind: str, payload: bytes) -> bytes:
    """DSSE v1 pre-authentication encoding: `DSSEv1 LEN(type) type LEN(payload) payload`."""
    name = kind.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def _decode_base64(text: Any, where: str) -> bytes:
    if not isinstance(text, str):
        raise InvalidInput("bad-envelope", f"{where} is not a string")
    try:
        # DSSE allows either alphabet.
        standard = text.replace("-", "+").replace("_", "/").encode("ascii")
        data = binascii.a2b_base64(standard)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidInput("bad-envelope", f"{where} is not base64") from None
    # What is no base64 was passed over, and versions of Python differ in what padding they let pass.
    if base64.b64encode(data) != standard:
        raise InvalidInput("bad-envelope", f"{where} is not base64 as it is written")
    return data


def _require_members(value: Any, names: Tuple[str, ...], where: str) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput("bad-envelope", f"{where} is not an object")
    if set(value) != set(names):
        raise InvalidInput("bad-envelope", f"{where} must have exactly the members {', '.join(names)}")
    return value


def peek_type(data: bytes) -> str:
    """Return the type that an envelope claims, so that it can be handed to who expects that type.

    Raises:
        InvalidInput: `too-large`, `bad-json` or `bad-envelope`.

    """
    members = _require_members(decode_json(data, max_bytes=MAX_ENVELOPE_BYTES), _MEMBERS, "envelope")
    claimed = members["payloadType"]
    if not isinstance(claimed, str):
        raise InvalidInput("bad-envelope", "payloadType is not a string")
    return claimed


def decode_envelope(data: bytes, expect: str, *, max_payload_bytes: int = MAX_DOCUMENT_BYTES) -> Envelope:
    """Decode an envelope that must hold a document of type `expect`.

    Signatures are decoded, not verified.

    Raises:
        InvalidInput: `too-large`, `bad-json`, `bad-envelope` or `wrong-type`.

    """
    return decode_envelope_of(data, {expect: max_payload_bytes})


def decode_envelope_of(data: bytes, limits: Mapping[str, int]) -> Envelope:
    """Decode an envelope that must hold a document of one of these types, each with its limit in bytes.

    For a receiver that takes two forms of one thing; the type that it got decides how it reads the payload.

    Raises:
        InvalidInput: as `decode_envelope`.

    """
    max_bytes = max_envelope_bytes(max(MAX_DOCUMENT_BYTES, *limits.values()))
    members = _require_members(decode_json(data, max_bytes=max_bytes), _MEMBERS, "envelope")
    kind = members["payloadType"]
    if not isinstance(kind, str) or kind not in limits:
        raise InvalidInput("wrong-type", f"expected {' or '.join(limits)}")
    payload = _decode_base64(members["payload"], "payload")
    if len(payload) > limits[kind]:
        raise InvalidInput("too-large", f"payload of {len(payload)} bytes, at most {limits[kind]}")
    listed = members["signatures"]
    if not isinstance(listed, list):
        raise InvalidInput("bad-envelope", "signatures is not a list")
    if len(listed) > MAX_SIGNATURES:
        raise InvalidInput("bad-envelope", f"{len(listed)} signatures, at most {MAX_SIGNATURES} allowed")
    return Envelope(kind, payload, tuple(_decode_signature(entry) for entry in listed))


def _decode_signature(entry: Any) -> Signature:
    members = _require_members(entry, ("keyid", "sig"), "signature")
    keyid = members["keyid"]
    if not isinstance(keyid, str) or len(keyid) > _MAX_KEYID:
        raise InvalidInput("bad-envelope", "keyid is not a short string")
    sig = _decode_base64(members["sig"], "signature")
    if not 0 < len(sig) <= MAX_SIGNATURE_BYTES:
        raise InvalidInput("bad-envelope", f"signature of {len(sig)} bytes, at most {MAX_SIGNATURE_BYTES}")
    return Signature(keyid, sig)


def encode_envelope(envelope: Envelope) -> bytes:
    """Encode to the JSON that `decode_envelope` reads."""
    return encode_json(
        {
            "payloadType": envelope.payload_type,
            "payload": base64.b64encode(envelope.payload).decode("ascii"),
            "signatures": [
                {"keyid": signature.keyid, "sig": base64.b64encode(signature.sig).decode("ascii")}
                for signature in envelope.signatures
            ],
        }
    )
