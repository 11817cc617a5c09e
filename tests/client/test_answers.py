import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.action import Completion, complete_action
from client.answers import Question, verify_answer
from protocol.action import encode_action
from protocol.documents import ResultItem
from protocol.envelope import ACTION, HEARTBEAT, Envelope, Signature, encode_envelope
from protocol.errors import InvalidInput
from protocol.result import OperationResult, Problem
from tests.client.opponent import SimulatedAgent

TEMPLATE = {"name": "x", "operations": [{"module": "agentinfo", "parameters": {}}], "syntaxversion": 2}
ACTION_ASKED = complete_action(TEMPLATE, Completion(datetime.now(UTC))).action
ENVELOPE = Envelope(ACTION, encode_action(ACTION_ASKED), ())
OTHER = Envelope(ACTION, encode_action(complete_action(TEMPLATE, Completion(datetime.now(UTC))).action), ())
FOUND = OperationResult(found=True, status="ok", records=({"id": "x"},))
WEB1, WEB2 = SimulatedAgent("web1", FOUND), SimulatedAgent("web2", FOUND)
QUESTION = Question.of(ACTION_ASKED, ENVELOPE, frozenset({WEB1.id, WEB2.id}))


def typed(item: dict[str, Any]) -> ResultItem:
    return msgspec.json.decode(json.dumps(item), type=ResultItem)


def lie(**changes: Any) -> Envelope:
    return WEB1.sign(msgspec.structs.replace(WEB1.result(ENVELOPE), **changes))


def test_an_honest_answer_is_believed() -> None:
    answer = verify_answer(typed(WEB1.item(ENVELOPE)), QUESTION)
    assert (answer.agent, answer.agent_name) == (WEB1.id, "web1")
    assert answer.result.results == (FOUND,)


def test_a_refusal_with_its_reason_is_believed() -> None:
    problem = Problem(code="acl-refused", step=9, detail="no")
    item = WEB1.item(ENVELOPE, lie(status="refused", results=(), problem=problem))
    assert verify_answer(typed(item), QUESTION).result.problem == problem


def raw(envelope: Envelope) -> Any:
    return json.loads(encode_envelope(envelope))


HOSTILE: dict[str, Callable[[], dict[str, Any]]] = {
    "another agent signed it": lambda: WEB1.item(ENVELOPE, WEB2.sign(WEB1.result(ENVELOPE))),
    "it was moved to another agent": lambda: {
        **WEB2.item(ENVELOPE),
        "envelope": WEB1.item(ENVELOPE)["envelope"],
    },
    "the key was exchanged": lambda: WEB1.item(ENVELOPE, public_key=WEB2.item(ENVELOPE)["public_key"]),
    "the key is no base64": lambda: WEB1.item(ENVELOPE, public_key="ä"),
    "it answers another action": lambda: WEB1.item(ENVELOPE, WEB1.sign(WEB1.result(OTHER))),
    "it answers other bytes under the same id": lambda: WEB1.item(ENVELOPE, lie(action_sha256="0" * 64)),
    "it speaks for another agent": lambda: WEB1.item(ENVELOPE, lie(agent=WEB2.id)),
    "it belongs to another occurrence": lambda: WEB1.item(ENVELOPE, lie(occurrence="2026-11-20T12:00:00Z")),
    "operations are missing": lambda: WEB1.item(ENVELOPE, lie(results=())),
    "there are too many operations": lambda: WEB1.item(ENVELOPE, lie(results=(FOUND, FOUND))),
    "it fails without a reason": lambda: WEB1.item(ENVELOPE, lie(status="failed", results=())),
    "the command is another": lambda: WEB1.item(ENVELOPE, command="0" * 32),
    "the agent was not asked": lambda: SimulatedAgent("web9", FOUND).item(ENVELOPE),
    "the agent's id is none": lambda: WEB1.item(ENVELOPE, agent="../../x"),
    "it is a heartbeat": lambda: WEB1.item(ENVELOPE, WEB1.sign(WEB1.result(ENVELOPE), HEARTBEAT)),
    "it is unsigned": lambda: WEB1.item(ENVELOPE, WEB1.sign(WEB1.result(ENVELOPE))._replace(signatures=())),
    "it is signed twice": lambda: WEB1.item(
        ENVELOPE, (signed := WEB1.sign(WEB1.result(ENVELOPE)))._replace(signatures=signed.signatures * 2)
    ),
    "the signature is of other bytes": lambda: WEB1.item(
        ENVELOPE, WEB1.sign(WEB1.result(ENVELOPE))._replace(signatures=(Signature(WEB1.id, b"x" * 64),))
    ),
    "a member is twice in the payload": lambda: WEB1.item(
        ENVELOPE,
        envelope=raw(WEB1.sign(WEB1.result(ENVELOPE))._replace(payload=b'{"action":1,"action":2}')),
    ),
}


@pytest.mark.parametrize("envelope", [{"payload": ""}, 5, None, []])
def test_what_is_no_envelope_is_not_even_read(envelope: object) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.envelope"):
        typed(WEB1.item(ENVELOPE, envelope=envelope))


@pytest.mark.parametrize("name", HOSTILE)
def test_an_answer_is_not_believed_when(name: str) -> None:
    with pytest.raises(InvalidInput, match="hostile-answer"):
        verify_answer(typed(HOSTILE[name]()), QUESTION)


@given(st.binary(max_size=200))
def test_any_payload_that_an_agent_signs_is_an_answer_or_hostile(payload: bytes) -> None:
    envelope = WEB1.sign(WEB1.result(ENVELOPE))._replace(payload=payload)
    with pytest.raises(InvalidInput, match="hostile-answer"):
        verify_answer(typed(WEB1.item(ENVELOPE, envelope)), QUESTION)


def test_a_hostile_name_is_harmless_in_the_refusal() -> None:
    with pytest.raises(InvalidInput, match=r"\\x1b\[2J") as caught:
        verify_answer(typed(WEB1.item(ENVELOPE, agent_name="\x1b[2J", command="x")), QUESTION)
    assert "\x1b" not in str(caught.value)
