"""Agents' identities: Ed25519 keys whose hash is the agent's id, and what they sign.

An agent's id is self-certifying: the first 32 hex digits of the SHA-256 of its raw public key. Whoever has
the public key and the id needs nobody's word to check a signature. Of cryptography only Ed25519 is loaded,
since the resident agent imports this module.
"""

import base64
import binascii
import hashlib
import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.envelope import BROKER_LOGIN, Envelope, Signature, pae
from protocol.errors import InvalidInput

PUBLIC_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_NONCE_BYTES = 16
_LOGIN = struct.Struct(f">{PUBLIC_KEY_BYTES}sQ{_NONCE_BYTES}s{_SIGNATURE_BYTES}s")


def agent_id(public_key: bytes) -> str:
    """Return the id of the agent that holds this raw Ed25519 public key (32 bytes)."""
    return hashlib.sha256(public_key).hexdigest()[:32]


def sign_envelope(private_key: Ed25519PrivateKey, kind: str, payload: bytes) -> Envelope:
    """Sign a payload that the caller composed; the key id is the agent's id."""
    public_key = private_key.public_key().public_bytes_raw()
    signature = private_key.sign(pae(kind, payload))
    return Envelope(kind, payload, (Signature(agent_id(public_key), signature),))


def require_agent_signature(envelope: Envelope, public_key: bytes, expected_id: str) -> None:
    """Raise unless exactly this agent signed the envelope.

    Args:
        envelope: decoded, of the expected type.
        public_key: raw Ed25519 key, 32 bytes, from any source: the id proves it.
        expected_id: the agent that is said to have signed.

    Raises:
        InvalidInput: `bad-signature`.

    """
    if len(envelope.signatures) != 1:
        raise InvalidInput("bad-signature", "an agent's document carries exactly one signature")
    signature = envelope.signatures[0]
    if signature.keyid != expected_id:
        raise InvalidInput("bad-signature", "signed by another agent than expected")
    require_signature(public_key, expected_id, signature.sig, envelope.signed_bytes)


def require_signature(public_key: bytes, expected_id: str, sig: bytes, message: bytes) -> None:
    """Raise unless `sig` is the Ed25519 signature over `message` by the agent `expected_id`.

    Raises:
        InvalidInput: `bad-signature`.

    """
    if len(public_key) != PUBLIC_KEY_BYTES or agent_id(public_key) != expected_id:
        raise InvalidInput("bad-signature", "the public key is not that of the agent's id")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(sig, message)
    except (InvalidSignature, ValueError):
        raise InvalidInput("bad-signature", "the agent's signature does not verify") from None


class BrokerLogin(NamedTuple):
    """A decoded broker password: nothing in it is verified yet. `time` is in Unix seconds."""

    public_key: bytes
    time: int
    nonce: bytes
    sig: bytes

    def require_valid(self, agent: str, broker: str, vhost: str) -> None:
        """Raise unless the agent signed this login for this broker and virtual host.

        Raises:
            InvalidInput: `bad-signature`.

        """
        message = _login_message(broker, vhost, self.time, self.nonce)
        require_signature(self.public_key, agent, self.sig, message)


def _login_message(broker: str, vhost: str, time: int, nonce: bytes) -> bytes:
    fields = [broker.encode("utf-8"), vhost.encode("utf-8"), b"%d" % time, nonce]
    return pae(BROKER_LOGIN, b"".join(b"%d:%b," % (len(field), field) for field in fields))


def make_broker_password(
    private_key: Ed25519PrivateKey, *, broker: str, vhost: str, time: int, nonce: bytes
) -> str:
    """Make the password of one login attempt: base64url of public key, time, nonce and signature.

    160 characters; PLAIN cuts off long ones. `broker` is the name that agent and server agree on, `time` is
    in Unix seconds, `nonce` 16 random bytes.
    """
    public_key = private_key.public_key().public_bytes_raw()
    sig = private_key.sign(_login_message(broker, vhost, time, nonce))
    return base64.urlsafe_b64encode(_LOGIN.pack(public_key, time, nonce, sig)).decode("ascii")


def decode_broker_password(password: str) -> BrokerLogin:
    """Decode what `make_broker_password` made.

    Raises:
        InvalidInput: `bad-document`.

    """
    try:
        raw = base64.b64decode(password.encode("ascii"), altchars=b"-_", validate=True)
        return BrokerLogin(*_LOGIN.unpack(raw))
    except (binascii.Error, UnicodeEncodeError, struct.error):
        raise InvalidInput("bad-document", "not a broker password") from None
