"""Results: what an agent answers, signed by the agent, never raw data.

`found nothing` is an answer only together with its coverage, so every operation's result carries notes
and statistics, and says when it is incomplete.
"""

from typing import Annotated, Any, Dict, Literal, Mapping, Optional, Tuple

import msgspec
from msgspec import Meta

from protocol.action import ActionId, Fingerprint, UtcTime, require_utc
from protocol.envelope import RESULT, SEALED_RESULT
from protocol.errors import InvalidInput
from protocol.sealing import MAX_READERS, MAX_SEALED_BYTES, MAX_SEALED_RESULT_BYTES
from protocol.strictjson import decode_json

MAX_RESULT_BYTES = 1 << 20

AgentId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Occurrence = Annotated[str, Meta(pattern=r"^[0-9A-Za-z:.+-]{0,64}\Z")]  # "" for an action without a schedule
# An answer comes in one of two forms; each has its limit in bytes.
ANSWER_LIMITS: Mapping[str, int] = {RESULT: MAX_RESULT_BYTES, SEALED_RESULT: MAX_SEALED_RESULT_BYTES}
OperationStatus = Literal[
    "ok",
    "refused",
    "unsupported",
    "invalid-parameters",
    "failed",
    "limit",
    "timed-out",
    "cancelled",
    "skipped",  # not run, since an earlier operation did not end as its `when` says
]
# How the command as a whole ended on the endpoint; these are end states of `protocol.command`.
ResultStatus = Literal["done", "failed", "refused", "timed-out", "cancelled"]


class OperationResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one operation answers.

    `records` have the shape that the module declares; `notes` say in words what was skipped or could not be
    looked at; `truncated` is true where a limit cut the records; `statistics` give the coverage.
    """

    found: bool
    status: OperationStatus
    records: Tuple[Dict[str, Any], ...] = ()
    notes: Tuple[str, ...] = ()
    statistics: Dict[str, Any] = {}
    truncated: bool = False


class Problem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a command did not run: a code of `protocol.errors`, the gate's step (0 outside of it), one line."""

    code: Annotated[str, Meta(max_length=64)]
    step: int
    detail: Annotated[str, Meta(max_length=2048)]


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An agent's answer to one command.

    `action_sha256` is the digest of the signed payload that was run, so an answer cannot be moved to another
    action; `results` stand in the order of the operations and are empty where `problem` says why.
    """

    action: ActionId
    action_sha256: Digest
    occurrence: Occurrence
    agent: AgentId
    started: UtcTime
    finished: UtcTime
    status: ResultStatus
    problem: Optional[Problem] = None
    results: Tuple[OperationResult, ...] = ()

    def __post_init__(self) -> None:
        """Refuse times that are not UTC."""
        require_utc(self.started, self.finished)


class SealedResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent's answer that the platform cannot read: `sealed` is an OpenPGP message to `sealed_to`.

    It holds the agent's signed `Result`, with which the members here must agree. Only what has results is
    sealed, so the status is `done`, or `cancelled` where it was stopped with what it had found.
    """

    action: ActionId
    action_sha256: Digest
    occurrence: Annotated[str, Meta(max_length=64)]
    agent: AgentId
    status: Literal["done", "cancelled"]
    sealed_to: Annotated[Tuple[Fingerprint, ...], Meta(min_length=1, max_length=MAX_READERS)]
    sealed: Annotated[bytes, Meta(min_length=1, max_length=MAX_SEALED_BYTES)]

    def require_holds(self, result: Result) -> None:
        """Raise unless what was decrypted is the answer that the outer members announce.

        Raises:
            InvalidInput: `hostile-answer`.

        """
        for name in ("action", "action_sha256", "occurrence", "agent", "status"):
            if getattr(result, name) != getattr(self, name):
                raise InvalidInput("hostile-answer", f"inside of the seal stands another {name} than outside")


def decode_result(payload: bytes) -> Result:
    """Decode a result's payload; the caller has verified the agent's signature over it.

    Raises:
        InvalidInput: `too-large`, `bad-json` or `bad-document`.

    """
    try:
        return msgspec.convert(decode_json(payload, max_bytes=MAX_RESULT_BYTES), Result)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-document", str(error)) from None


def decode_sealed_result(payload: bytes) -> SealedResult:
    """Decode a sealed result's payload; the caller has verified the agent's signature over it.

    Raises:
        InvalidInput: `too-large`, `bad-json` or `bad-document`.

    """
    try:
        return msgspec.convert(decode_json(payload, max_bytes=MAX_SEALED_RESULT_BYTES), SealedResult)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-document", str(error)) from None
