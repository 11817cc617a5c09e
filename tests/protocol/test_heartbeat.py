"""Heartbeats: what an agent may say of itself."""

from typing import Any

import pytest
from hypothesis import given

from protocol.errors import InvalidInput
from protocol.heartbeat import MAX_HEARTBEAT_BYTES, decode_heartbeat
from tests.support.documents import AGENT, BAD_TIMES, HEARTBEAT, decode_or_refuse, encode, hostile


def test_a_heartbeat_is_decoded() -> None:
    heartbeat = decode_heartbeat(encode({**HEARTBEAT, "commands": [AGENT]}))
    assert heartbeat.agent == AGENT
    assert heartbeat.commands == (AGENT,)
    assert decode_heartbeat(encode(HEARTBEAT)).commands == ()


@pytest.mark.parametrize(
    "change",
    {
        "unknown-member": {"mood": "good"},
        "agent-upper-case": {"agent": AGENT.upper()},
        "agent-with-line-break": {"agent": AGENT + "\n"},
        "no-name": {"name": ""},
        "long-name": {"name": "x" * 256},
        "tag-number": {"tags": {"a": 1}},
        "tags-many": {"tags": {str(n): "" for n in range(129)}},
        "tag-long": {"tags": {"a": "x" * 1025}},
        "tag-name-long": {"tags": {"x" * 129: ""}},
        "environment-nested": {"environment": {"a": {}}},
        "modules-many": {"modules": ["m"] * 257},
        "command-not-an-id": {"commands": ["x"]},
        "trust-state-unknown": {"trust_state": "well"},
        "trust-expiry-with-offset": {"trust_expires": "2026-12-01T00:00:00+05:00"},
        "trust-expiry-of-another-age": {"trust_expires": "9999-12-31T23:59:59Z"},
        "log-heads-fall": {"log_head": [3, "a" * 64], "log_heads": [[2, "b" * 64], [1, "c" * 64]]},
        "log-head-among-them": {"log_head": [2, "a" * 64], "log_heads": [[2, "a" * 64]]},
        "log-heads-without-a-head": {"log_heads": [[2, "b" * 64]]},
        "log-heads-many": {"log_head": [99, "a" * 64], "log_heads": [[n, "a" * 64] for n in range(1, 66)]},
        "commands-many": {"commands": [AGENT] * 257},
        "runs-no-command": {"running": [{"elapsed_s": 1}]},
        "runs-many": {"running": [{"command": AGENT, "elapsed_s": 1}] * 5},
        "runs-backwards": {"running": [{"command": AGENT, "elapsed_s": -1}]},
        "runs-for-ever": {"running": [{"command": AGENT, "elapsed_s": 1e10}]},
        "runs-what": {"running": [{"command": AGENT, "elapsed_s": 1, "operation": 64}]},
        "runs-text": {"running": [{"command": AGENT, "elapsed_s": 1, "statistics": {"a": "x"}}]},
        "runs-names": {"running": [{"command": AGENT, "elapsed_s": 1, "statistics": {"\x1b[2J": 1}}]},
        "runs-below-zero": {"running": [{"command": AGENT, "elapsed_s": 1, "statistics": {"a": -1}}]},
        "runs-counters": {
            "running": [{"command": AGENT, "elapsed_s": 1, "statistics": {f"n{n}": 1 for n in range(17)}}]
        },
    }.values(),
)
def test_a_heartbeat_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"^bad-document: "):
        decode_heartbeat(encode({**HEARTBEAT, **change}))


@pytest.mark.parametrize("member", ["time", "started"])
@pytest.mark.parametrize("time", BAD_TIMES)
def test_times_that_cannot_be_handled_are_refused(member: str, time: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^bad-document: "):
        decode_heartbeat(encode({**HEARTBEAT, member: time}))


def test_a_clock_that_is_wrong_by_years_can_still_be_told() -> None:
    assert decode_heartbeat(encode({**HEARTBEAT, "time": "1970-01-01T00:00:07Z"})).time.year == 1970


def test_a_heartbeat_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidInput, match=rf"too-large: .* at most {MAX_HEARTBEAT_BYTES}"):
        decode_heartbeat(bytes(MAX_HEARTBEAT_BYTES + 1))


@given(hostile(HEARTBEAT))
def test_any_bytes_give_a_heartbeat_or_a_refusal(data: bytes) -> None:
    heartbeat = decode_or_refuse(decode_heartbeat, data, "bad-json", "bad-document")
    assert heartbeat is None or heartbeat.agent == AGENT
