"""What an agent tells of whom it obeys: the platform in heartbeats, the machine's owner in status and log."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import AgentLimits, Baked, decode_config
from agent.runtime.heartbeat import encode_heartbeat
from agent.runtime.trust_state import TrustState, parse_expiry, read_expiry, state_of_trust
from agent.runtime.trust_store import Held, Mark
from protocol.heartbeat import decode_heartbeat
from tests.support.endpoint import FACTS, sign_bundle

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
ROOT = "A" * 40


def baked(**trust: Any) -> Baked:
    table = {"relay": "amqp://127.0.0.1/mig", "broker": "mig", "acl": {"default": {"minimum_weight": 1}}}
    config = decode_config({**table, "limits": AgentLimits()._asdict(), "trust": trust})
    return Baked(config, (), "1", "test", config.acl, ())


def bundle(expires: datetime) -> bytes:
    return sign_bundle({"version": 3, "expires": expires.isoformat()})


def told(state: TrustState) -> tuple[int | None, datetime | None, str | None]:
    """Return what the server reads in a heartbeat that tells this."""
    payload = encode_heartbeat(FACTS, now=NOW, started=NOW, commands=[], trust=state)
    heartbeat = decode_heartbeat(payload)
    return heartbeat.trust_version, heartbeat.trust_expires, heartbeat.trust_state


def state(held: Held, refusal: str = "", **trust: Any) -> TrustState:
    return state_of_trust(baked(**trust), held, read_expiry(held.bundle), refusal, NOW)


SOON = NOW + timedelta(days=1)
PAST = NOW - timedelta(seconds=1)
LONG_AGO = "2020-01-01T00:00:00Z"
FRESH = Held(Mark(0, ""), b"")


@pytest.mark.parametrize(
    ("held", "trust", "expected"),
    [
        (FRESH, {}, (0, None, "in-force")),
        (FRESH, {"expires": "2026-12-02T12:00:00Z"}, (0, SOON, "in-force")),
        (FRESH, {"expires": "2026-12-01T12:00:00Z"}, (0, NOW, "expired")),
        (FRESH, {"roots": [ROOT], "expires": "2026-12-02T12:00:00Z"}, (0, SOON, "in-force")),
        (Held(Mark(3, "x"), bundle(SOON)), {"roots": [ROOT]}, (3, SOON, "in-force")),
        (Held(Mark(3, "x"), bundle(PAST)), {"roots": [ROOT]}, (3, PAST, "expired")),
        (Held(Mark(3, "x"), bundle(SOON)), {"roots": [ROOT], "expires": LONG_AGO}, (3, SOON, "in-force")),
        (Held(Mark(3, "x"), b""), {"roots": [ROOT]}, (None, None, "missing")),
        (Held(None, b""), {"roots": [ROOT]}, (None, None, "missing")),
    ],
)
def test_a_heartbeat_tells_the_bundle_its_expiry_and_whether_anybody_is_obeyed(
    held: Held, trust: dict[str, Any], expected: tuple[int | None, datetime | None, str]
) -> None:
    assert told(state(held, **trust)) == expected


def test_a_child_that_obeys_nobody_is_believed() -> None:
    said = state(Held(Mark(3, "x"), bundle(SOON)), "bundle 3 is not there or not good", roots=[ROOT])
    assert told(said) == (None, None, "missing")
    assert said.describe() == "nobody is obeyed: bundle 3 is not there or not good"


def test_the_owner_is_told_in_one_line() -> None:
    assert state(FRESH).describe() == "bundle 0, built in"
    held = Held(Mark(3, "x"), bundle(SOON))
    assert state(held, roots=[ROOT]).describe() == "bundle 3, good until 2026-12-02T12:00:00+00:00"
    expired = state(Held(Mark(3, "x"), bundle(PAST)), roots=[ROOT])
    assert expired.describe() == "nobody is obeyed: bundle 3 expired at 2026-12-01T11:59:59+00:00"


@pytest.mark.parametrize(
    "text", ["2026-12-02T12:00:00Z", "2026-12-02t12:00:00.123456789z", "2026-12-02 12:00:00+00:00"]
)
def test_every_spelling_of_a_time_that_a_bundle_may_have_is_read(text: str) -> None:
    assert parse_expiry(text) == SOON


@pytest.mark.parametrize(
    "text", ["", None, 5, "2026-13-02T12:00:00Z", "9999-12-31T23:59:59Z", "2026-12-02T12:00:00+05:00"]
)
def test_what_no_heartbeat_could_tell_is_not_told(text: object) -> None:
    assert parse_expiry(text) is None


@given(st.binary(max_size=200) | st.text().map(lambda text: sign_bundle({"expires": text})))
def test_a_stored_file_of_any_bytes_stops_no_heartbeat(data: bytes) -> None:
    expires = read_expiry(data)
    assert expires is None or told(TrustState(1, expires, "in-force"))[1] == expires
