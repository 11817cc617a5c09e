"""Results: what an agent may answer."""

from typing import Any

import msgspec
import pytest
from hypothesis import given

from protocol.errors import CODES, MAX_DETAIL, InvalidInput
from protocol.result import MAX_RESULT_BYTES, Problem, Result, decode_result
from tests.support.documents import AGENT, BAD_TIMES, RESULT, decode_or_refuse, encode, hostile

OPERATION = RESULT["results"][0]
PROBLEM = {"code": "expired", "step": 5, "detail": "it has expired"}


def test_a_result_is_decoded_and_encoded_to_the_same() -> None:
    for document in (RESULT, {**RESULT, "status": "refused", "results": [], "problem": PROBLEM}):
        result = decode_result(encode(document))
        assert decode_result(msgspec.json.encode(result)) == result
        assert result.agent == AGENT


@pytest.mark.parametrize(
    "change",
    {
        "unknown-member": {"signature": ""},
        "action-number": {"action": 1},
        "digest-short": {"action_sha256": "ab"},
        "digest-upper-case": {"action_sha256": "AB" * 32},
        "digest-with-line-break": {"action_sha256": "ab" * 32 + "\n"},
        "occurrence-long": {"occurrence": "1" * 65},
        "occurrence-with-line-break": {"occurrence": "\n"},
        "agent": {"agent": "someone"},
        "status": {"status": "pending"},
        "status-of-the-server": {"status": "expired"},
        "operation-status": {"results": [{**OPERATION, "status": "done"}]},
        "operation-with-more": {"results": [{**OPERATION, "errors": 1}]},
        "operation-without-found": {"results": [{"status": "ok"}]},
        "found-number": {"results": [{**OPERATION, "found": 1}]},
        "record-text": {"results": [{**OPERATION, "records": ["x"]}]},
        "note-number": {"results": [{**OPERATION, "notes": [1]}]},
        "problem-with-more": {"problem": {**PROBLEM, "trace": ""}},
        "problem-long": {"problem": {**PROBLEM, "detail": "x" * 2049}},
    }.values(),
)
def test_a_result_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"^bad-document: "):
        decode_result(encode({**RESULT, **change}))


@pytest.mark.parametrize("member", ["started", "finished"])
@pytest.mark.parametrize("time", BAD_TIMES)
def test_times_that_cannot_be_handled_are_refused(member: str, time: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^bad-document: "):
        decode_result(encode({**RESULT, member: time}))


def test_every_refusal_fits_into_a_problem() -> None:
    refusal = InvalidInput("bad-action", "\x1b" * MAX_DETAIL * 10)
    problem = Problem(code=refusal.code, step=4, detail=refusal.detail)
    result: Result = msgspec.structs.replace(decode_result(encode(RESULT)), problem=problem)
    assert decode_result(msgspec.json.encode(result)).problem == problem
    assert all(len(code) <= 64 for code in CODES)


def test_a_result_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidInput, match=rf"too-large: .* at most {MAX_RESULT_BYTES}"):
        decode_result(bytes(100 << 20))


@given(hostile(RESULT))
def test_any_bytes_give_a_result_or_a_refusal(data: bytes) -> None:
    result = decode_or_refuse(decode_result, data, "bad-json", "bad-document")
    if result is not None:
        assert decode_result(msgspec.json.encode(result)) == result
