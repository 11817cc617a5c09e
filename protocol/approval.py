"""Approvals: an investigator's signed decision that some agents may take part, or may no longer.

Such a decision lets somebody with the right `manage` decide without the server's shell. It is for the server
alone and no agent ever reads one; a captured server can enrol whom it likes, which gives those no right to
command or to read anything but their own queue.
"""

from datetime import datetime, timedelta
from typing import Annotated, Literal, Tuple

import msgspec
from msgspec import Meta

from protocol.action import UtcTime, require_utc
from protocol.errors import InvalidInput
from protocol.result import AgentId
from protocol.strictjson import decode_json

MAX_AGENTS = 10_000
LIFE = timedelta(hours=24)  # a list may be signed on one machine and handed over by another
MAX_AHEAD = timedelta(minutes=5)

Decision = Literal["approve", "revoke"]


class Approval(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The payload of an approval.

    `server` is the server's URL as the investigator configured it; `agents` are ids, which are hashes of the
    agents' keys; `time` is the clock of whoever decides, UTC: the later of two decisions counts.
    """

    server: Annotated[str, Meta(min_length=1, max_length=1024)]
    decision: Decision
    agents: Annotated[Tuple[AgentId, ...], Meta(min_length=1, max_length=MAX_AGENTS)]
    time: UtcTime

    def __post_init__(self) -> None:
        """Refuse a time that is not UTC."""
        require_utc(self.time)

    def require_meant(self, server: str, now: datetime) -> None:
        """Raise unless the decision is for this server and was signed within the last day.

        Raises:
            InvalidInput: `forbidden`, `expired` or `not-yet-valid`.

        """
        if self.server.rstrip("/") != server.rstrip("/"):
            raise InvalidInput("forbidden", f"the approval is for another server than {server}")
        if now - self.time > LIFE:
            raise InvalidInput(
                "expired", f"the approval was signed at {self.time.isoformat()}, over a day ago"
            )
        if self.time - now > MAX_AHEAD:
            raise InvalidInput(
                "not-yet-valid", f"the approval was signed ahead of time, at {self.time.isoformat()}"
            )


def decode_approval(payload: bytes) -> Approval:
    """Decode an approval's payload; the caller has verified the signatures over it.

    Raises:
        InvalidInput: `too-large`, `bad-json` or `bad-document`.

    """
    try:
        return msgspec.convert(decode_json(payload), Approval)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-document", str(error)) from None


def encode_approval(approval: Approval) -> bytes:
    """Encode to the payload bytes that are signed."""
    return msgspec.json.encode(approval)
