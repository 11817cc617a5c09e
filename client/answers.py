"""Decides which answers are believed.

Rules, for each answer that the server relays:
1. The envelope is of the type `result` or `sealed-result` and carries exactly one signature, by the agent
   that it is said to come from; the agent's id proves the public key, so nobody's word is taken for it.
2. The payload is read only then. It must answer the action that was signed, by id and by the digest of its
   signed bytes, in the name of the same agent, and give one result for each operation.
3. The agent must be one of those that the action was sent to, and the command's id the one that follows from
   action, agent and occurrence. Of an action with a schedule the occurrence must be a real one of it.
4. What is sealed is opened only after it passed 1 to 3 by what stands outside. Inside must stand an envelope
   of the type `result` that passes all of them again, by the same key, and agrees with every outer member.
   Where the action names readers, an answer with results must be sealed, to all of these.

What fails is a `hostile-answer`: counted and named, never shown as an answer.
"""

import base64
import binascii
from typing import NamedTuple, Protocol

from client.screen import printable
from protocol.action import Action
from protocol.documents import ResultItem
from protocol.envelope import RESULT, SEALED_RESULT, Envelope, decode_envelope, decode_envelope_of
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.identity import require_agent_signature
from protocol.names import command_id, is_agent_id
from protocol.result import (
    ANSWER_LIMITS,
    MAX_RESULT_BYTES,
    Result,
    SealedResult,
    decode_result,
    decode_sealed_result,
)
from protocol.schedule import parse_occurrence


class Question(NamedTuple):
    """What was asked, as far as an answer must agree with it."""

    action_id: str
    digest: str
    modules: tuple[str, ...]
    agents: frozenset[str]
    sealed_to: frozenset[str] = frozenset()
    occurrence: str = ""

    @classmethod
    def of(
        cls, action: Action, envelope: Envelope, agents: frozenset[str], occurrence: str = ""
    ) -> "Question":
        """Return the question that a signed action asks of these agents, at one occurrence of its schedule.

        Raises:
            InvalidInput: `hostile-answer` where the schedule has no such occurrence.

        """
        require_occurrence(action, occurrence)
        modules = tuple(operation.module for operation in action.operations)
        return cls(action.id, envelope.digest, modules, agents, frozenset(action.sealed_to), occurrence)


class Answer(NamedTuple):
    """A verified answer. The name is the server's word; the id is proved."""

    agent: str
    agent_name: str
    result: Result


def require_occurrence(action: Action, occurrence: str) -> None:
    """Raise unless an action can have been asked at this occurrence; "" for one without a schedule.

    Raises:
        InvalidInput: `hostile-answer`.

    """
    calendar = action.calendar
    if calendar is None:
        if occurrence:
            raise InvalidInput("hostile-answer", "the action has no schedule, and so no occurrences")
        return
    moment = parse_occurrence(occurrence)
    if moment is None or moment not in calendar:
        raise InvalidInput("hostile-answer", f"the signed schedule has no occurrence {occurrence[:64]!r}")


class Opener(Protocol):
    """Opens what is sealed to one investigator, as `client.unsealing.Unsealer` does."""

    fingerprint: str

    def open(self, sealed: bytes) -> bytes:
        """Return the plaintext; raises as `Unsealer.open`."""


class UnreadableAnswer(EnvironmentFailure):
    """An answer that is in order outside, by an agent that was asked, and cannot be opened here."""

    def __init__(self, error: EnvironmentFailure, item: ResultItem, status: str) -> None:
        super().__init__(error.code, error.detail)
        self.agent = item.agent
        self.agent_name = item.agent_name
        self.status = status


def verify_answer(item: ResultItem, question: Question, opener: Opener | None = None) -> Answer:
    """Return the verified answer, or raise.

    Raises:
        InvalidInput: `hostile-answer`, with the reason.
        UnreadableAnswer: it is sealed to others, or gpg cannot open it here.

    """
    try:
        return _verify(item, question, opener)
    except InvalidInput as error:
        who = f"{printable(item.agent_name, 64)} ({printable(item.agent, 32)})"
        raise InvalidInput("hostile-answer", f"{who}: {error.detail}") from None


def _verify(item: ResultItem, question: Question, opener: Opener | None) -> Answer:
    if not is_agent_id(item.agent) or item.agent not in question.agents:
        raise InvalidInput("hostile-answer", "it is not one of the agents that were asked")
    if item.command != command_id(question.action_id, item.agent, question.occurrence):
        raise InvalidInput("hostile-answer", "the command's id does not follow from action and agent")
    envelope = decode_envelope_of(item.envelope.encode(), ANSWER_LIMITS)
    public_key = _public_key(item)
    require_agent_signature(envelope, public_key, item.agent)
    if envelope.payload_type == SEALED_RESULT:
        result = _open(decode_sealed_result(envelope.payload), item, question, opener)
    else:
        result = decode_result(envelope.payload)
        _require_asked(result, item, question)
        if question.sealed_to and result.results:
            raise InvalidInput("hostile-answer", "the action asked for a sealed answer, and it is not")
    _require_complete(result, question)
    return Answer(item.agent, item.agent_name, result)


def _public_key(item: ResultItem) -> bytes:
    try:
        return base64.b64decode(item.public_key.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidInput("hostile-answer", "its public key is not base64") from None


def _open(outer: SealedResult, item: ResultItem, question: Question, opener: Opener | None) -> Result:
    """Rule 4; the outer envelope is verified."""
    _require_asked(outer, item, question)
    if not question.sealed_to.issubset(outer.sealed_to):
        raise InvalidInput("hostile-answer", "it is not sealed to all whom the action names")
    if opener is None or opener.fingerprint not in outer.sealed_to:
        others = EnvironmentFailure("key-missing", f"sealed to others: {', '.join(outer.sealed_to)}")
        raise UnreadableAnswer(others, item, outer.status)
    try:
        text = opener.open(outer.sealed)
    except EnvironmentFailure as error:
        raise UnreadableAnswer(error, item, outer.status) from None
    envelope = decode_envelope(text, RESULT, max_payload_bytes=MAX_RESULT_BYTES)
    require_agent_signature(envelope, _public_key(item), item.agent)
    result = decode_result(envelope.payload)
    _require_asked(result, item, question)
    outer.require_holds(result)
    return result


def _require_asked(result: Result | SealedResult, item: ResultItem, question: Question) -> None:
    """Rule 2."""
    if result.agent != item.agent:
        raise InvalidInput("hostile-answer", "the answer speaks for another agent")
    asked = question.action_id, question.digest, question.occurrence
    if (result.action, result.action_sha256, result.occurrence) != asked:
        raise InvalidInput("hostile-answer", "the answer belongs to another action")


def _require_complete(result: Result, question: Question) -> None:
    has_all = len(result.results) == len(question.modules)
    if not has_all and (result.results or result.status == "done"):
        raise InvalidInput("hostile-answer", "the answer does not have one result for each operation")
    if not has_all and result.problem is None:
        raise InvalidInput("hostile-answer", "the answer has neither results nor a reason")
