"""Logins to the API: what an investigator signs to get a session. The client composes every byte of it."""

from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.acl import Fingerprint
from protocol.action import UtcTime, require_utc
from protocol.errors import InvalidInput
from protocol.strictjson import decode_json

NONCE_BYTES = 32
MAX_LOGIN_BYTES = 4096


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The payload of a login.

    `server` is the server's URL as the investigator configured it, so that one server cannot pass a login on
    to another; `nonce` is the server's challenge; `time` is the client's clock, UTC.
    """

    server: Annotated[str, Meta(min_length=1, max_length=1024)]
    fingerprint: Fingerprint
    nonce: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    time: UtcTime

    def __post_init__(self) -> None:
        """Refuse a time that is not UTC."""
        require_utc(self.time)


def decode_login(payload: bytes) -> Login:
    """Decode a login's payload; the caller has verified the signature over it.

    Raises:
        InvalidInput: `too-large`, `bad-json` or `bad-document`.

    """
    try:
        return msgspec.convert(decode_json(payload, max_bytes=MAX_LOGIN_BYTES), Login)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-document", str(error)) from None


def encode_login(login: Login) -> bytes:
    """Encode to the payload bytes that are signed."""
    return msgspec.json.encode(login)
