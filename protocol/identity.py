"""Agents' identities: Ed25519 keys whose hash is the agent's id, and what they sign.

An agent's id is self-certifying: the first 32 hex digits of the SHA-256 of its raw public key. Whoever has
the public key and the id needs nobody's word to check a signature. Of cryptography only Ed25519 is loaded,
since the resident agent imports this module.
"""

import base64
import binascii
import hashlib
import struct
from typing import Callable, NamedTuple, Optional

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.enrolment import ID_BYTES, EnrolmentToken, token_id
from protocol.envelope import BROKER_LOGIN, ENROLMENT, Envelope, Signature, pae
from protocol.errors import InvalidInput

PUBLIC_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_NONCE_BYTES = 16
_HEAD = struct.Struct(f">{PUBLIC_KEY_BYTES}sQ{_NONCE_BYTES}s")
_PROOF = struct.Struct(f">{ID_BYTES}s{_SIGNATURE_BYTES}s")
_NO_TOKEN = bytes(ID_BYTES)
_NO_PROOF = bytes(_SIGNATURE_BYTES)
# Of what an agent says of itself in a login: enough for a host name and a few addresses.
MAX_SAID_BYTES = 512
# Given raw public key, signature and message; raises `InvalidInput` unless the one is of the others.
Verify = Callable[[bytes, bytes, bytes], None]


def agent_id(public_key: bytes) -> str:
    """Return the id of the agent that holds this raw Ed25519 public key (32 bytes)."""
    return hashlib.sha256(public_key).hexdigest()[:32]


def sign_envelope(private_key: Ed25519PrivateKey, kind: str, payload: bytes) -> Envelope:
    """Sign a payload that the caller composed; the key id is the agent's id."""
    public_key = private_key.public_key().public_bytes_raw()
    signature = private_key.sign(pae(kind, payload))
    return Envelope(kind, payload, (Signature(agent_id(public_key), signature),))


def require_ed25519(public_key: bytes, sig: bytes, message: bytes) -> None:
    """Raise unless `sig` is this raw public key's signature over `message`; by OpenSSL.

    Raises:
        InvalidInput: `bad-signature`.

    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(sig, message)
    except (InvalidSignature, ValueError):
        raise does_not_verify() from None


def does_not_verify() -> InvalidInput:
    """Return what is raised where a signature does not verify."""
    return InvalidInput("bad-signature", "the agent's signature does not verify")


def require_agent_signature(
    envelope: Envelope, public_key: bytes, expected_id: str, verify: Verify = require_ed25519
) -> None:
    """Raise unless exactly this agent signed the envelope.

    Args:
        envelope: decoded, of the expected type.
        public_key: raw Ed25519 key, 32 bytes, from any source: the id proves it.
        expected_id: the agent that is said to have signed.
        verify: does the mathematics.

    Raises:
        InvalidInput: `bad-signature`.

    """
    if len(envelope.signatures) != 1:
        raise InvalidInput("bad-signature", "an agent's document carries exactly one signature")
    signature = envelope.signatures[0]
    if signature.keyid != expected_id:
        raise InvalidInput("bad-signature", "signed by another agent than expected")
    require_signature(public_key, expected_id, signature.sig, envelope.signed_bytes, verify)


def require_signature(
    public_key: bytes, expected_id: str, sig: bytes, message: bytes, verify: Verify = require_ed25519
) -> None:
    """Raise unless `sig` is the Ed25519 signature over `message` by the agent `expected_id`.

    Raises:
        InvalidInput: `bad-signature`.

    """
    if len(public_key) != PUBLIC_KEY_BYTES or agent_id(public_key) != expected_id:
        raise InvalidInput("bad-signature", "the public key is not that of the agent's id")
    verify(public_key, sig, message)


class BrokerLogin(NamedTuple):
    """A decoded broker password: nothing in it is verified yet.

    `time` is in Unix seconds. `token` is the id of the enrolment token that the agent says it has, or empty;
    `name` and `addresses` are what it says of itself, hostile text of at most 512 bytes together.
    """

    public_key: bytes
    time: int
    nonce: bytes
    token: str
    proof: bytes
    name: str
    addresses: str
    sig: bytes

    @property
    def _head(self) -> bytes:
        return _HEAD.pack(self.public_key, self.time, self.nonce)

    @property
    def _signed(self) -> bytes:
        proof = _PROOF.pack(bytes.fromhex(self.token) or _NO_TOKEN, self.proof)
        return self._head + proof + f"{self.name}\n{self.addresses}".encode()

    def require_valid(self, agent: str, broker: str, vhost: str) -> None:
        """Raise unless the agent signed this login for this broker and virtual host.

        Raises:
            InvalidInput: `bad-signature`.

        """
        require_signature(
            self.public_key, agent, self.sig, _message(BROKER_LOGIN, broker, vhost, self._signed)
        )

    def require_token(self, public_key: bytes, broker: str, vhost: str) -> None:
        """Raise unless the agent holds the token with this public key.

        Raises:
            InvalidInput: `bad-token`.

        """
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(
                self.proof, _message(ENROLMENT, broker, vhost, self._head)
            )
        except (InvalidSignature, ValueError):
            raise InvalidInput("bad-token", "the proof of the enrolment token does not verify") from None


def _message(kind: str, broker: str, vhost: str, signed: bytes) -> bytes:
    fields = [broker.encode("utf-8"), vhost.encode("utf-8"), signed]
    return pae(kind, b"".join(b"%d:%b," % (len(field), field) for field in fields))


def make_broker_password(
    private_key: Ed25519PrivateKey,
    *,
    broker: str,
    vhost: str,
    time: int,
    nonce: bytes,
    token: Optional[EnrolmentToken] = None,
    name: str = "",
    addresses: str = "",
) -> str:
    """Make the password of one login attempt.

    base64url of: public key, time, nonce, id of the token, proof of the token, what the agent says of itself,
    and the agent's signature over all of it, with broker and virtual host. The proof is the token's signature
    over public key, time and nonce, so it is of use to nobody else and at no other time.

    260 to 940 characters; RabbitMQ takes PLAIN responses of more than 3,000 (its limit is the first frame, of
    4 KiB). `broker` is the name that agent and server agree on, `time` is in Unix seconds, `nonce` 16 random
    bytes.
    """
    public_key = private_key.public_key().public_bytes_raw()
    head = _HEAD.pack(public_key, time, nonce)
    known, proof = _NO_TOKEN, _NO_PROOF
    if token is not None:
        known = bytes.fromhex(token_id(token.public_key))
        proof = token.private_key.sign(_message(ENROLMENT, broker, vhost, head))
    said = f"{name}\n{addresses}".encode("utf-8", "replace")[:MAX_SAID_BYTES]
    signed = head + _PROOF.pack(known, proof) + said.decode("utf-8", "ignore").encode("utf-8")
    sig = private_key.sign(_message(BROKER_LOGIN, broker, vhost, signed))
    return base64.urlsafe_b64encode(signed + sig).decode("ascii")


def decode_broker_password(password: str) -> BrokerLogin:
    """Decode what `make_broker_password` made.

    Raises:
        InvalidInput: `bad-document`.

    """
    try:
        raw = base64.b64decode(password.encode("ascii"), altchars=b"-_", validate=True)
        signed, sig = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
        public_key, time, nonce = _HEAD.unpack_from(signed)
        known, proof = _PROOF.unpack_from(signed, _HEAD.size)
        said = signed[_HEAD.size + _PROOF.size :]
        name, newline, addresses = said.decode("utf-8").partition("\n")
    except (binascii.Error, UnicodeError, struct.error):
        raise InvalidInput("bad-document", "not a broker password") from None
    # Spare bits of the last character could be anything: one login has one spelling.
    is_canonical = base64.urlsafe_b64encode(raw).decode("ascii") == password
    if not newline or len(said) > MAX_SAID_BYTES or not is_canonical:
        raise InvalidInput("bad-document", "not a broker password")
    token = "" if known == _NO_TOKEN else known.hex()
    return BrokerLogin(public_key, time, nonce, token, proof, name, addresses, sig)
