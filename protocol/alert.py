"""Alerts: what an agent's persistent modules saw without being asked, signed by the agent.

Rules:
1. An alert is an answer like any other: what happened, and to what; never a file's content, a command line
   or a payload.
2. `seq` rises by one with each alert of an agent. What it could not keep, or would not send for its rate, it
   says itself, in the next one. So alerts that somebody on the way withholds leave a gap that nobody can
   fill.
3. An alert's identity is the SHA-256 of its payload: one that comes twice is told by it.

The composer lives with the agent (`agent.runtime.alerts`) and does without msgspec; this is the decoder.
"""

import base64
import binascii
from typing import Annotated, Any, Dict, Literal, NamedTuple, Tuple

import msgspec
from msgspec import Meta

from protocol.action import UtcTime, require_utc
from protocol.envelope import ALERT, decode_envelope
from protocol.errors import InvalidInput
from protocol.identity import Verify, require_agent_signature, require_ed25519
from protocol.result import AgentId
from protocol.strictjson import decode_json

MAX_ALERT_BYTES = 16384
MAX_SEQ = (1 << 63) - 1
Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: Tuple[Severity, ...] = ("low", "medium", "high", "critical")
ModuleName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}\Z")]
Kind = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,63}\Z")]
Count = Annotated[int, Meta(ge=0, le=MAX_SEQ)]


class Alert(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One alert.

    `module` is who saw it (`agent` is the agent itself), `kind` what it is to that module; `time` is when the
    agent kept it, by its own clock. `count` events stand behind it, from `first` to `last`: where it is more
    than one, `record` tells them together. Since the alert before, the agent has left `suppressed` events
    unsent for their rate, and `dropped` alerts that had a number, for want of room.
    """

    agent: AgentId
    seq: Annotated[int, Meta(ge=1, le=MAX_SEQ)]
    time: UtcTime
    module: ModuleName
    kind: Kind
    severity: Severity
    count: Annotated[int, Meta(ge=1, le=MAX_SEQ)]
    first: UtcTime
    last: UtcTime
    record: Dict[str, Any]
    suppressed: Count = 0
    dropped: Count = 0

    def __post_init__(self) -> None:
        """Refuse times that are not UTC."""
        require_utc(self.time, self.first, self.last)


class OpenedAlert(NamedTuple):
    """An alert that its agent signed, and its identity."""

    alert: Alert
    digest: str


def decode_alert(payload: bytes) -> Alert:
    """Decode an alert's payload; the caller has verified the agent's signature over it.

    Raises:
        InvalidInput: `too-large`, `bad-json` or `bad-document`.

    """
    try:
        return msgspec.convert(decode_json(payload, max_bytes=MAX_ALERT_BYTES), Alert)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-document", str(error)) from None


def open_alert(
    envelope: bytes, public_key: bytes, agent_id: str, verify: Verify = require_ed25519
) -> OpenedAlert:
    """Return what an agent signed: type, signature, by `verify`, and name are checked, in this order.

    Raises:
        InvalidInput: where it did not sign it, where it is no alert, or where it speaks for another agent.

    """
    decoded = decode_envelope(envelope, ALERT, max_payload_bytes=MAX_ALERT_BYTES)
    require_agent_signature(decoded, public_key, agent_id, verify)
    alert = decode_alert(decoded.payload)
    if alert.agent != agent_id:
        raise InvalidInput("forbidden", "the alert speaks for another agent than the one that signed it")
    return OpenedAlert(alert, decoded.digest)


def decode_public_key(text: str) -> bytes:
    """Return an agent's public key as documents carry it, in base64; the agent's id proves it.

    Raises:
        InvalidInput: `bad-document`.

    """
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidInput("bad-document", "a public key is not base64") from None
