"""The payload of a login: strict, and the same both ways."""

import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidInput
from protocol.login import Login, decode_login, encode_login

LOGIN = Login(
    server="https://mig.example.net",
    fingerprint="A" * 40,
    nonce="0" * 64,
    time=datetime(2026, 11, 20, tzinfo=UTC),
)


def test_a_login_is_decoded_as_it_was_encoded() -> None:
    assert decode_login(encode_login(LOGIN)) == LOGIN


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"nonce": "0" * 63}, "bad-document: .*nonce"),
        ({"nonce": "0" * 64 + "\n"}, "bad-document: .*nonce"),
        ({"fingerprint": "a" * 40}, "bad-document: .*fingerprint"),
        ({"server": ""}, "bad-document: .*server"),
        ({"server": "x" * 5000}, "too-large"),
        ({"time": "2026-11-20T00:00:00"}, "bad-document: .*time"),
        ({"time": "0001-01-01T00:00:00+23:59"}, "bad-document: .*not UTC"),
        ({"time": 1}, "bad-document: .*time"),
        ({"admin": True}, "bad-document: .*unknown field `admin`"),
    ],
)
def test_a_login_of_another_shape_is_refused(changed: dict[str, object], refusal: str) -> None:
    payload = json.dumps({**json.loads(encode_login(LOGIN)), **changed}).encode()
    with pytest.raises(InvalidInput, match=refusal):
        decode_login(payload)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_login_or_refused(payload: bytes) -> None:
    with suppress(InvalidInput):
        assert isinstance(decode_login(payload), Login)
