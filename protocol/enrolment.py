"""Enrolment tokens: what lets a new agent take part, and is never sent.

A token is the seed of an Ed25519 key, in words that can be pasted. The server keeps the public key only: who
reads its database can enrol nobody. An agent shows that it has a token by a signature over the login that it
makes at that moment (`protocol.identity`), so neither the broker nor its log ever sees one.

A token says who may ask to take part, no more. Of cryptography only Ed25519 is loaded, since the resident
agent imports this module.
"""

import base64
import binascii
import hashlib
import re
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import InvalidInput
from protocol.names import TOKEN_SHAPE

SEED_BYTES = 32
ID_BYTES = 8
_PREFIX = "mig-token-"
TOKEN_ID = re.compile(r"[0-9a-f]{16}\Z")


class EnrolmentToken(NamedTuple):
    """A token as its holder has it."""

    private_key: Ed25519PrivateKey

    @property
    def public_key(self) -> bytes:
        """The raw public key, 32 bytes: all that the server keeps."""
        return self.private_key.public_key().public_bytes_raw()


def token_id(public_key: bytes) -> str:
    """Return what a token is called by: the first 16 hex digits of the SHA-256 of its public key."""
    return hashlib.sha256(public_key).hexdigest()[: 2 * ID_BYTES]


def is_token_id(text: str) -> bool:
    """Tell whether `text` has the shape of a token's id: 16 lower-case hex digits."""
    return TOKEN_ID.match(text) is not None


def encode_token(seed: bytes) -> str:
    """Return the text of a token, 53 characters, from 32 random bytes."""
    return _PREFIX + base64.urlsafe_b64encode(seed).decode("ascii").rstrip("=")


def decode_token(text: str) -> EnrolmentToken:
    """Decode a token's text.

    Raises:
        InvalidInput: `bad-token`; the text is not repeated.

    """
    try:
        if TOKEN_SHAPE.match(text):
            seed = base64.urlsafe_b64decode(text[len(_PREFIX) :] + "=")
            if encode_token(seed) == text:
                return EnrolmentToken(Ed25519PrivateKey.from_private_bytes(seed))
    except (binascii.Error, ValueError):
        pass  # said below
    raise InvalidInput("bad-token", f"an enrolment token is {_PREFIX} and 43 letters and digits")
