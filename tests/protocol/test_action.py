"""Actions: what decodes, and what nobody may sign."""

from typing import Any

import pytest
from hypothesis import given

from protocol.action import MAX_OPERATIONS, MAX_TARGET, Description, decode_action, encode_action
from protocol.errors import InvalidInput
from tests.support.documents import ACTION, BAD_TIMES, decode_or_refuse, encode, hostile

OPERATION = ACTION["operations"][0]


def test_a_complete_action_is_decoded_and_encoded_to_the_same() -> None:
    described = {
        **ACTION,
        "description": {"author": "Ada", "revision": 201409031800},
        "threat": {"level": "alert"},
    }
    for document in (ACTION, described):
        action = decode_action(encode(document))
        assert decode_action(encode_action(action)) == action
    assert action.description == Description(author="Ada", revision=201409031800)
    assert action.operations[0].module == "agentinfo"


@pytest.mark.parametrize(
    "change",
    {
        "unknown-member": {"comment": "ignored by nobody"},
        "old-syntax": {"syntaxversion": 1},
        "syntax-as-text": {"syntaxversion": "2"},
        "syntax-as-float": {"syntaxversion": 2.5},
        "id-upper-case": {"id": ACTION["id"].upper()},
        "id-with-line-break": {"id": ACTION["id"] + "\n"},
        "id-number": {"id": 1},
        "no-name": {"name": ""},
        "long-name": {"name": "x" * 2049},
        "no-target": {"target": ""},
        "long-target": {"target": "x" * (MAX_TARGET + 1)},
        "no-operations": {"operations": []},
        "many-operations": {"operations": [OPERATION] * (MAX_OPERATIONS + 1)},
        "operation-without-parameters": {"operations": [{"module": "file"}]},
        "operation-with-more": {"operations": [{**OPERATION, "as": "root"}]},
        "condition-of-the-first": {"operations": [{**OPERATION, "when": "found"}]},
        "condition-of-a-later-one": {"operations": [OPERATION, {**OPERATION, "when": "found", "of": 2}]},
        "condition-of-itself": {"operations": [OPERATION, {**OPERATION, "when": "found", "of": 1}]},
        "condition-of-none-before": {"operations": [OPERATION, {**OPERATION, "when": "found", "of": -1}]},
        "condition-unknown": {"operations": [OPERATION, {**OPERATION, "when": "failed"}]},
        "of-without-when": {"operations": [OPERATION, {**OPERATION, "of": 0}]},
        "module-path": {"operations": [{**OPERATION, "module": "../file"}]},
        "module-upper-case": {"operations": [{**OPERATION, "module": "File"}]},
        "module-with-line-break": {"operations": [{**OPERATION, "module": "file\n"}]},
        "description-with-more": {"description": {"phone": "1"}},
        "description-null": {"description": None},
        "threat-long": {"threat": {"level": "x" * 1025}},
        "never-open": {"expireafter": ACTION["validfrom"]},
        "closed-before-open": {"expireafter": "2026-11-30T00:00:00Z"},
    }.values(),
)
def test_an_action_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"^bad-action: "):
        decode_action(encode({**ACTION, **change}))


def test_an_operation_depends_on_the_one_before_it_or_on_the_one_that_it_names() -> None:
    conditions = [OPERATION, {**OPERATION, "when": "found"}, {**OPERATION, "when": "not-found", "of": 0}]
    action = decode_action(encode({**ACTION, "operations": conditions}))
    needed = [operation.depends_on(index) for index, operation in enumerate(action.operations)]
    assert needed == [None, 0, 0]
    assert decode_action(encode_action(action)) == action
    # An operation without a condition is encoded as ever.
    assert b"when" not in encode_action(decode_action(encode(ACTION)))


@pytest.mark.parametrize("member", ["validfrom", "expireafter"])
@pytest.mark.parametrize("time", BAD_TIMES)
def test_times_that_cannot_be_handled_are_refused(member: str, time: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^bad-action: "):
        decode_action(encode({**ACTION, member: time}))


@pytest.mark.parametrize("member", ACTION)
def test_every_member_is_needed(member: str) -> None:
    with pytest.raises(InvalidInput, match=rf"bad-action: .*missing required field `{member}`"):
        decode_action(encode({key: value for key, value in ACTION.items() if key != member}))


def test_a_refusal_quotes_hostile_names_in_one_short_line() -> None:
    with pytest.raises(InvalidInput, match=r"unknown field `\\x1b\[31m\\n") as refusal:
        decode_action(encode({**ACTION, "\x1b[31m\n" + "x" * 100_000: 1}))
    assert len(str(refusal.value)) < 2048


@given(hostile(ACTION))
def test_any_bytes_give_an_action_or_a_refusal(data: bytes) -> None:
    action = decode_or_refuse(decode_action, data, "bad-json", "bad-action")
    if action is not None:
        assert decode_action(encode_action(action)) == action
