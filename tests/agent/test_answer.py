"""Results that fit, and that every receiver can decode."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.answer import LEAST_BYTES, encode_result
from protocol.result import OperationResult
from protocol.strictjson import decode_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
RESULTS = st.builds(
    OperationResult,
    found=st.booleans(),
    status=st.sampled_from(["ok", "failed", "timed-out"]),
    records=st.lists(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), max_size=20).map(tuple),
    notes=st.lists(st.text(max_size=2000), max_size=20).map(tuple),
    statistics=st.dictionaries(st.text(max_size=8), VALUES, max_size=4),
    truncated=st.booleans(),
)


@pytest.mark.slow
@given(RESULTS, st.integers(LEAST_BYTES, 20_000))
def test_any_result_becomes_strict_json_that_fits(result: OperationResult, room_bytes: int) -> None:
    encoded = encode_result(result, room_bytes)
    assert len(encoded) <= room_bytes
    decoded = msgspec.convert(decode_json(encoded), OperationResult)
    if decoded.records != result.records and decoded.status != "failed":
        assert decoded.truncated or json.dumps(decoded.records) == json.dumps(_plain(result.records))


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def test_what_is_cut_says_so_and_keeps_the_first_records() -> None:
    records = tuple({"path": f"/{number:0200d}"} for number in range(1000))
    encoded = encode_result(OperationResult(found=True, status="ok", records=records), 50_000)
    decoded = msgspec.json.decode(encoded, type=OperationResult)
    assert decoded.status == "limit"
    assert decoded.truncated
    assert decoded.notes == ("the answer was cut to fit 50000 bytes",)
    assert 100 < len(decoded.records) < 250
    assert decoded.records == records[: len(decoded.records)]


def test_a_long_note_is_shortened() -> None:
    result = OperationResult(found=False, status="ok", notes=("x" * 100_000,))
    assert len(encode_result(result, LEAST_BYTES)) < 1000


def test_a_result_that_json_cannot_carry_fails_alone() -> None:
    for value in (1 << 63, "\ud800"):
        result = OperationResult(found=True, status="ok", records=({"value": value},))
        assert msgspec.json.decode(encode_result(result, LEAST_BYTES))["status"] == "failed"
