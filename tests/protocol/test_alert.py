"""Tests of alerts as documents: their shape, and whose word they are."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.alert import MAX_ALERT_BYTES, decode_alert, decode_public_key, open_alert
from protocol.envelope import ALERT, RESULT, encode_envelope
from protocol.errors import InvalidInput, MigError
from protocol.identity import agent_id, sign_envelope

KEY = Ed25519PrivateKey.generate()
PUBLIC_KEY = KEY.public_key().public_bytes_raw()
AGENT = agent_id(PUBLIC_KEY)


def members(**changes: Any) -> dict[str, Any]:
    """Return an alert's members, with some changed."""
    return {
        "agent": AGENT,
        "seq": 1,
        "time": "2026-11-20T12:00:00Z",
        "module": "fswatch",
        "kind": "changed",
        "severity": "critical",
        "count": 1,
        "first": "2026-11-20T12:00:00Z",
        "last": "2026-11-20T12:00:00Z",
        "record": {"path": "/etc/passwd"},
        **changes,
    }


def signed(envelope_kind: str = ALERT, /, **changes: Any) -> bytes:
    """Return the envelope of an alert, with some members changed."""
    return encode_envelope(sign_envelope(KEY, envelope_kind, json.dumps(members(**changes)).encode()))


def test_an_alert_is_read_under_its_agents_signature_and_known_by_its_digest() -> None:
    opened = open_alert(signed(), PUBLIC_KEY, AGENT)
    assert (opened.alert.kind, opened.alert.record) == ("changed", {"path": "/etc/passwd"})
    assert len(opened.digest) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"agent": "x"},
        {"seq": 0},
        {"seq": 1 << 63},
        {"time": "2026-11-20T12:00:00+02:00"},
        {"first": "2026-11-20T12:00:00"},
        {"module": "../etc"},
        {"kind": "a b"},
        {"severity": "worst"},
        {"count": 0},
        {"record": "text"},
        {"suppressed": -1},
        {"more": 1},
    ],
)
def test_an_alert_of_another_shape_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="bad-"):
        open_alert(signed(**changes), PUBLIC_KEY, AGENT)


def test_an_alert_above_its_size_is_refused() -> None:
    with pytest.raises(InvalidInput, match="too-large"):
        open_alert(signed(record={"path": "x" * MAX_ALERT_BYTES}), PUBLIC_KEY, AGENT)


def test_what_the_agent_signed_as_something_else_is_no_alert() -> None:
    with pytest.raises(InvalidInput, match="wrong-type"):
        open_alert(signed(RESULT), PUBLIC_KEY, AGENT)


def test_an_alert_counts_for_no_other_agent() -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(InvalidInput, match="bad-signature"):
        open_alert(signed(), other, agent_id(other))
    with pytest.raises(InvalidInput, match="bad-signature"):
        open_alert(signed(), other, AGENT)


def test_an_agent_speaks_for_no_other_agent() -> None:
    with pytest.raises(InvalidInput, match="speaks for another agent"):
        open_alert(signed(agent="0" * 32), PUBLIC_KEY, AGENT)


@pytest.mark.parametrize("text", ["!", "é", "AAA"])
def test_a_public_key_that_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not base64"):
        decode_public_key(text)


@given(st.binary(max_size=400))
def test_any_bytes_are_an_alert_or_our_error(payload: bytes) -> None:
    try:
        decode_alert(payload)
    except MigError:
        return
