"""Cancels: a signer of an action takes it back.

A cancel is a document of its own, signed as actions are. An agent drops what waits and stops what runs; where
it comes before the action, it stays as a tombstone until `expireafter`, which is the action's own. It counts
only where one of its signers signed the action too, or may manage: the agent decides that when it has both.
"""

from datetime import timedelta
from typing import Optional

import msgspec

from protocol.action import ActionId, ShortText, UtcTime, require_utc
from protocol.errors import InvalidInput
from protocol.result import Digest
from protocol.strictjson import decode_json

MAX_SKEW = timedelta(minutes=5)  # how far ahead of us the signer's clock may be, as for signatures


class Cancel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is taken back: the action's id, the digest of its signed bytes, and its `expireafter`."""

    action: ActionId
    action_sha256: Digest
    expireafter: UtcTime
    time: UtcTime
    reason: Optional[ShortText] = None

    def __post_init__(self) -> None:
        """Refuse times that are not UTC."""
        require_utc(self.expireafter, self.time)


def decode_cancel(payload: bytes) -> Cancel:
    """Decode a cancel's payload; the caller has verified its signatures.

    Raises:
        InvalidInput: `too-large`, `bad-json` or `bad-document`.

    """
    try:
        return msgspec.convert(decode_json(payload), Cancel)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-document", str(error)) from None


def encode_cancel(cancel: Cancel) -> bytes:
    """Encode to the payload bytes that are signed."""
    return msgspec.json.encode(cancel)
