"""Notices: heads of the server's audit log, signed, and which of them an agent goes on repeating."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.audit import MAX_HEADS, Head, remember_head
from protocol.envelope import NOTICE, RESULT, encode_envelope
from protocol.errors import InvalidInput
from protocol.identity import agent_id, sign_envelope
from protocol.notice import open_notice, sign_notice

KEY = Ed25519PrivateKey.generate()
HEAD = Head(7, "a" * 64)


def make(**changes: Any) -> bytes:
    """Return a signed notice with some members changed."""
    members = json.loads(sign_notice(KEY, server="mig", time="2026-11-20T12:00:00Z", head=HEAD).payload)
    return encode_envelope(sign_envelope(KEY, NOTICE, json.dumps({**members, **changes}).encode()))


def test_a_notice_names_server_key_and_head() -> None:
    notice = open_notice(make())
    assert (notice.server, notice.head, notice.time) == ("mig", HEAD, "2026-11-20T12:00:00Z")
    assert notice.key_id == agent_id(KEY.public_key().public_bytes_raw())


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 0},
        {"seq": True},
        {"seq": "7"},
        {"sha256": "a" * 63},
        {"sha256": None},
        {"server": "x" * 200},
        {"server": 1},
        {"time": []},
        {"public_key": "*"},
        {"public_key": "\u00e9"},
        {"more": 1},
    ],
)
def test_a_notice_of_another_shape_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="bad-document"):
        open_notice(make(**changes))


def test_a_notice_that_another_key_signed_is_refused() -> None:
    other = base64.b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    with pytest.raises(InvalidInput, match="bad-signature"):
        open_notice(make(public_key=other))
    with pytest.raises(InvalidInput, match="bad-signature"):
        open_notice(make(public_key=""))


def test_another_document_is_no_notice() -> None:
    with pytest.raises(InvalidInput, match="wrong-type"):
        open_notice(encode_envelope(sign_envelope(KEY, RESULT, b"{}")))


def test_the_newest_head_and_older_ones_at_doubling_distances_are_repeated() -> None:
    heads: list[Head] = []
    for seq in range(1, 2001):
        heads = remember_head(heads, Head(seq, "a" * 64))
    assert heads[-1].seq == 2000
    assert len(heads) <= MAX_HEADS
    assert heads[0].seq < 1500


def test_a_head_that_contradicts_another_does_not_replace_it() -> None:
    heads = remember_head([Head(5, "a" * 64)], Head(5, "b" * 64))
    assert heads == [Head(5, "a" * 64), Head(5, "b" * 64)]
    assert Head(5, "a" * 64) in remember_head([Head(5, "a" * 64)], Head(2, "b" * 64))


@given(st.lists(st.builds(Head, st.integers(1, 10**6), st.sampled_from(["a" * 64, "b" * 64])), min_size=1))
def test_what_is_repeated_is_bounded_and_holds_the_highest_head(seen: list[Head]) -> None:
    heads: list[Head] = []
    for head in seen:
        heads = remember_head(heads, head)
        assert len(heads) <= MAX_HEADS
        assert set(heads) <= set(seen)
    assert max(seen).seq == heads[-1].seq
