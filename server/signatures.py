"""How the server checks agents' signatures: Ed25519 by libsodium, in half of the time that OpenSSL takes.

Rules:
1. It accepts nothing that `protocol.identity` refuses, so what the server has taken verifies at every client.
   It refuses more: keys and signatures of small order, and keys that are not written in the one way there is
   (`docs/threat-model.md`). No key that was generated is one of those.
2. Agent and client keep OpenSSL, by way of `cryptography`, which they have anyway.

Source: libsodium, crypto_sign/ed25519/ref10/open.c; RFC 8032 section 5.1.7.
"""

from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from protocol.envelope import Envelope
from protocol.identity import does_not_verify, require_agent_signature


def require_verified(public_key: bytes, sig: bytes, message: bytes) -> None:
    """Raise unless `sig` is this raw public key's Ed25519 signature over `message`.

    Raises:
        InvalidInput: `bad-signature`.

    """
    try:
        VerifyKey(public_key).verify(message, sig)
    except CryptoError:  # ValueError and TypeError, of another length, are such ones too
        raise does_not_verify() from None


def require_signed_by(envelope: Envelope, public_key: bytes, agent_id: str) -> None:
    """Raise unless exactly this agent signed the envelope; as `protocol.identity.require_agent_signature`.

    Raises:
        InvalidInput: `bad-signature`.

    """
    require_agent_signature(envelope, public_key, agent_id, require_verified)
