"""Verdicts: what the child says is bounded and has the right shape, or is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.frames import MAX_BODY_BYTES, VERDICT
from agent.runtime.verdict import decode_verdict, encode_admitted, encode_refused
from protocol.errors import InvalidInput

ACTION_ID = "00000000-0000-7000-8000-000000000000"
ADMITTED: dict[str, Any] = {
    "action_id": ACTION_ID,
    "name": "a name",
    "signers": ["A" * 40],
    "modules": ["file"],
    "expireafter": 1_800_000_000,
    "sealed_to": ["B" * 40],
}


@given(st.text(st.characters()), st.integers(1, 10))
def test_a_refusal_crosses_whatever_its_detail_holds(detail: str, step: int) -> None:
    encoded = encode_refused(step=step, code="bad-action", detail=detail, action_id="")
    assert len(encoded) <= MAX_BODY_BYTES[VERDICT]
    verdict = decode_verdict(encoded)
    assert verdict.problem is not None
    assert (verdict.problem.step, verdict.problem.code) == (step, "bad-action")


@given(st.text(st.characters()))
def test_an_admission_crosses_whatever_its_name_holds(name: str) -> None:
    verdict = decode_verdict(encode_admitted(**{**ADMITTED, "name": name}))
    assert verdict.problem is None
    assert (verdict.action_id, verdict.signers) == (ACTION_ID, ("A" * 40,))
    assert verdict.sealed_to == ("B" * 40,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "0"),
        ("step", 11),
        ("step", -1),
        ("action_id", "../x"),
        ("action_id", None),
        ("name", 1),
        ("signers", ["a"]),
        ("signers", "A" * 40),
        ("sealed_to", None),
        ("sealed_to", ["b"]),
        ("modules", [1]),
        ("modules", ["m"] * 65),
        ("expireafter", "soon"),
        ("expireafter", 10**15),
    ],
)
def test_a_verdict_with_a_member_that_cannot_be_is_refused(name: str, value: Any) -> None:
    members = {"step": 0, **ADMITTED, name: value}
    with pytest.raises(InvalidInput, match="bad-document"):
        decode_verdict(json.dumps(members).encode())


@given(
    st.binary()
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=50),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["step", *ADMITTED]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_a_verdict_or_are_refused(body: bytes) -> None:
    try:
        decode_verdict(body)
    except InvalidInput as error:
        assert error.code in {"bad-json", "bad-document", "too-large"}  # noqa: PT017  (both are right)
