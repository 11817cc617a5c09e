"""Notices: the server tells agents the head of its audit log, and agents say it again, signed.

The server signs a notice with a key of its own, made at its first start. Nobody trusts that key: it tells one
server's notices from another's, and makes what a server said attributable. What counts is that agents chain
the heads into their own logs and repeat them in heartbeats, under keys that the server has not: a server that
writes its history anew cannot make them forget what they saw.

Which of all heads an agent repeats, `protocol.audit.remember_head` says. Standard library and Ed25519 only:
the resident agent imports this module.
"""

import base64
import binascii
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.audit import Head, is_sha256
from protocol.envelope import NOTICE, Envelope, decode_envelope
from protocol.errors import InvalidInput
from protocol.identity import require_agent_signature, sign_envelope
from protocol.strictjson import decode_json, encode_json

MAX_NOTICE_BYTES = 4096
_MEMBERS = frozenset(("server", "public_key", "time", "seq", "sha256"))
_MAX_TEXT = 128


class Notice(NamedTuple):
    """A notice whose signature verifies by the key that it names; `key_id` is that key's hash."""

    server: str
    key_id: str
    time: str
    head: Head


def sign_notice(private_key: Ed25519PrivateKey, *, server: str, time: str, head: Head) -> Envelope:
    """Return a signed notice of the log's head; `server` is the server's name, `time` RFC 3339."""
    public_key = base64.b64encode(private_key.public_key().public_bytes_raw()).decode("ascii")
    members = {"server": server, "public_key": public_key, "time": time, "seq": head.seq}
    return sign_envelope(private_key, NOTICE, encode_json({**members, "sha256": head.sha256}))


def open_notice(body: bytes) -> Notice:
    """Decode a notice and check that the key which it names has signed it.

    The payload is parsed before the signature is checked, since it holds the key; nothing else is done with
    it until then.

    Raises:
        InvalidInput: `bad-signature`, or what is wrong with envelope or payload.

    """
    envelope = decode_envelope(body, NOTICE, max_payload_bytes=MAX_NOTICE_BYTES)
    members = decode_json(envelope.payload, max_bytes=MAX_NOTICE_BYTES)
    if not isinstance(members, dict) or frozenset(members) != _MEMBERS:
        raise InvalidInput("bad-document", "a notice has other members than a notice's")
    texts = [members["server"], members["time"], members["public_key"]]
    if not all(isinstance(text, str) and len(text) <= _MAX_TEXT for text in texts):
        raise InvalidInput("bad-document", "a notice's server, time or key is not a short text")
    if type(members["seq"]) is not int or members["seq"] < 1 or not is_sha256(members["sha256"]):
        raise InvalidInput("bad-document", "a notice names no head")
    try:
        public_key = base64.b64decode(members["public_key"].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidInput("bad-document", "a notice's key is not base64") from None
    if len(envelope.signatures) != 1:
        raise InvalidInput("bad-signature", "a notice carries exactly one signature")
    key_id = envelope.signatures[0].keyid
    require_agent_signature(envelope, public_key, key_id)
    return Notice(members["server"], key_id, members["time"], Head(members["seq"], members["sha256"]))
