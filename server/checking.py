"""Judges what agents send, with nothing but the message and the agent's key: no database, no clock, no loop.

So it can be done in any process (`server.verifiers`). What is kept of an answer beside its signed bytes are
the few facts that the platform needs of it; what was found is read by the investigator's client alone.
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import msgspec

from protocol.envelope import SEALED_RESULT, decode_envelope_of
from protocol.errors import InvalidInput
from protocol.names import is_agent_id, result_key
from protocol.result import (
    ANSWER_LIMITS,
    Problem,
    Result,
    SealedResult,
    decode_result,
    decode_sealed_result,
)
from server.signatures import require_signed_by


class Sent(NamedTuple):
    """A message as the broker delivered it, with the key of the agent that it names: None where none is."""

    routing_key: str
    user_id: str
    body: bytes
    public_key: bytes | None


class AnswerFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the platform reads of an answer; what only the sealed part tells is None."""

    action: str
    action_sha256: str
    occurrence: str
    status: str
    found: bool | None = None
    started: datetime | None = None
    finished: datetime | None = None
    problem: Problem | None = None


class CheckedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that its agent signed; `digest` is of its payload."""

    digest: str
    facts: AnswerFacts


def facts_of(result: Result | SealedResult) -> AnswerFacts:
    """Return what the platform reads of an answer."""
    outside = AnswerFacts(
        action=result.action,
        action_sha256=result.action_sha256,
        occurrence=result.occurrence,
        status=result.status,
    )
    if isinstance(result, SealedResult):
        return outside
    return msgspec.structs.replace(
        outside,
        found=any(operation.found for operation in result.results),
        started=result.started,
        finished=result.finished,
        problem=result.problem,
    )


def require_sender(user_id: str, routing_key: str, key_of: Callable[[str], str]) -> str:
    """Return the id of the agent that sent a message under its own routing key.

    Raises:
        InvalidInput: `forbidden`.

    """
    if not is_agent_id(user_id) or routing_key != key_of(user_id):
        raise InvalidInput("forbidden", "user id and routing key do not name the same agent")
    return user_id


def require_key(public_key: bytes | None, agent_id: str) -> bytes:
    """Return an enrolled agent's key.

    Raises:
        InvalidInput: `forbidden`, where there is none.

    """
    if public_key is None:
        raise InvalidInput("forbidden", f"agent {agent_id} is not enrolled")
    return public_key


def require_own(named: str, agent_id: str) -> None:
    """Raise unless a document speaks for the agent that signed it.

    Raises:
        InvalidInput: `forbidden`.

    """
    if named != agent_id:
        raise InvalidInput("forbidden", "the document speaks for another agent than the one that signed it")


def check_answer(sent: Sent) -> CheckedAnswer:
    """Judge one answer: sender, signature, then the shape of the very bytes that were signed.

    Raises:
        InvalidInput: with the code under which the message is refused.

    """
    agent_id = require_sender(sent.user_id, sent.routing_key, result_key)
    envelope = decode_envelope_of(sent.body, ANSWER_LIMITS)
    require_signed_by(envelope, require_key(sent.public_key, agent_id), agent_id)
    is_sealed = envelope.payload_type == SEALED_RESULT
    result = decode_sealed_result(envelope.payload) if is_sealed else decode_result(envelope.payload)
    require_own(result.agent, agent_id)
    return CheckedAnswer(digest=envelope.digest, facts=facts_of(result))
