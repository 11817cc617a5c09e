"""Decides which answers are believed.

Rules, for each answer that the server relays:
1. The envelope is of the type `result` and carries exactly one signature, by the agent that it is said to
   come from; the agent's id proves the public key, so nobody's word is taken for it.
2. The payload is read only then. It must answer the action that was signed, by id and by the digest of its
   signed bytes, in the name of the same agent, and give one result for each operation.
3. The agent must be one of those that the action was sent to, and the command's id the one that follows from
   action and agent.

What fails is a `hostile-answer`: counted and named, never shown as an answer.
"""

import base64
import binascii
from typing import NamedTuple

from client.documents import ResultItem
from client.screen import printable
from protocol.action import Action
from protocol.envelope import RESULT, Envelope, decode_envelope
from protocol.errors import InvalidInput
from protocol.identity import require_agent_signature
from protocol.names import command_id, is_agent_id
from protocol.result import Result, decode_result


class Question(NamedTuple):
    """What was asked, as far as an answer must agree with it."""

    action_id: str
    digest: str
    modules: tuple[str, ...]
    agents: frozenset[str]

    @classmethod
    def of(cls, action: Action, envelope: Envelope, agents: frozenset[str]) -> "Question":
        """Return the question that a signed action asks of these agents."""
        modules = tuple(operation.module for operation in action.operations)
        return cls(action.id, envelope.digest, modules, agents)


class Answer(NamedTuple):
    """A verified answer. The name is the server's word; the id is proved."""

    agent: str
    agent_name: str
    result: Result


def verify_answer(item: ResultItem, question: Question) -> Answer:
    """Return the verified answer, or raise.

    Raises:
        InvalidInput: `hostile-answer`, with the reason.

    """
    try:
        return _verify(item, question)
    except InvalidInput as error:
        who = f"{printable(item.agent_name, 64)} ({printable(item.agent, 32)})"
        raise InvalidInput("hostile-answer", f"{who}: {error.detail}") from None


def _verify(item: ResultItem, question: Question) -> Answer:
    if not is_agent_id(item.agent) or item.agent not in question.agents:
        raise InvalidInput("hostile-answer", "it is not one of the agents that were asked")
    if item.command != command_id(question.action_id, item.agent, ""):
        raise InvalidInput("hostile-answer", "the command's id does not follow from action and agent")
    envelope = decode_envelope(bytes(item.envelope), RESULT)
    try:
        public_key = base64.b64decode(item.public_key.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidInput("hostile-answer", "its public key is not base64") from None
    require_agent_signature(envelope, public_key, item.agent)
    result = decode_result(envelope.payload)
    if result.agent != item.agent:
        raise InvalidInput("hostile-answer", "the answer speaks for another agent")
    if (result.action, result.action_sha256, result.occurrence) != (question.action_id, question.digest, ""):
        raise InvalidInput("hostile-answer", "the answer belongs to another action")
    has_all = len(result.results) == len(question.modules)
    if not has_all and (result.results or result.status == "done"):
        raise InvalidInput("hostile-answer", "the answer does not have one result for each operation")
    if not has_all and result.problem is None:
        raise InvalidInput("hostile-answer", "the answer has neither results nor a reason")
    return Answer(item.agent, item.agent_name, result)
