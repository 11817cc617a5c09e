"""Signed decisions on agents."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.approval import Approval, decode_approval, encode_approval
from protocol.errors import InvalidInput

APPROVAL = Approval(
    server="https://mig.example",
    decision="approve",
    agents=("0" * 32,),
    time=datetime(2026, 11, 20, tzinfo=UTC),
)


def test_a_decision_is_read_as_it_was_written() -> None:
    assert decode_approval(encode_approval(APPROVAL)) == APPROVAL


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"approve"', b'"enrol"'),
        (b'["' + b"0" * 32 + b'"]', b"[]"),
        (b"0" * 32, b"0" * 31),
        (b"0" * 32, b"*"),
        (b'"time":"2026-11-20T00:00:00Z"', b'"time":"2026-11-20T00:00:00"'),
        (b'"server"', b'"more":1,"server"'),
        (b'"server":"https://mig.example",', b""),
    ],
    ids=["decision", "nobody", "short id", "wildcard", "no zone", "unknown member", "no server"],
)
def test_what_is_no_decision_is_refused(old: bytes, new: bytes) -> None:
    written = encode_approval(APPROVAL)
    assert old in written
    with pytest.raises(InvalidInput, match="bad-document"):
        decode_approval(written.replace(old, new))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_decision_or_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="bad-json|bad-document"):
        decode_approval(data)
