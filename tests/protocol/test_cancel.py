"""Cancels: their one shape."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.cancel import Cancel, decode_cancel, encode_cancel
from protocol.errors import InvalidInput

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CANCEL = Cancel(
    action="018f0000-0000-7000-8000-000000000000", action_sha256="a" * 64, expireafter=NOW, time=NOW
)


def test_a_cancel_is_read_as_it_was_written() -> None:
    assert decode_cancel(encode_cancel(CANCEL)) == CANCEL


@pytest.mark.parametrize(
    "changed",
    [
        {"action": "everything"},
        {"action_sha256": "A" * 64},
        {"action_sha256": ""},
        {"expireafter": "2026-11-20T12:00:00"},
        {"time": "2026-11-20T12:00:00+01:00"},
        {"reason": 1},
        {"target": "os = 'linux'"},
        {"time": None},
    ],
)
def test_what_is_no_cancel_is_refused(changed: dict[str, Any]) -> None:
    members = json.loads(encode_cancel(CANCEL)) | changed
    with pytest.raises(InvalidInput, match="bad-document"):
        decode_cancel(json.dumps(members).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_cancel_or_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"bad-json|bad-document"):
        decode_cancel(data)
