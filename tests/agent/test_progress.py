"""How far a command is: what leaves the child, and what the resident makes of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.progress import (
    MAX_PROGRESS_BYTES,
    Progress,
    Reporter,
    RunningCommand,
    decode_progress,
)
from agent.runtime.heartbeat import encode_heartbeat
from protocol.heartbeat import decode_heartbeat
from protocol.strictjson import encode_json
from tests.support.endpoint import FACTS, utc_now

COUNTERS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True),
    st.integers(0, (1 << 63) - 1) | st.floats(0, 1e18),
    max_size=16,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def told(statistics: dict[str, Any]) -> Progress | None:
    """Return what arrives of some statistics, when a second is over."""
    clock, written = Clock(), list[bytes]()
    reporter = Reporter(written.append, clock)
    clock.now = 1.0
    reporter.report(3, statistics)
    (body,) = written
    assert len(body) <= MAX_PROGRESS_BYTES
    return decode_progress(body)


@given(COUNTERS)
def test_what_a_module_counts_arrives(statistics: dict[str, float]) -> None:
    assert told(statistics) == Progress(3, statistics)


def test_only_numbers_leave_the_child() -> None:
    counted = {"files_seen": 7, "duration_s": 0.5}
    others = {"name": "x", "skipped": {"fifo": 1}, "is": True, "No": 1, "minus": -1, "nan": float("nan")}
    assert told({**counted, **others}) == Progress(3, counted)


def test_of_very_many_counters_the_first_arrive() -> None:
    progress = told({f"n{number}": number for number in range(1000)})
    assert progress is not None
    assert [*progress.statistics] == [f"n{number}" for number in range(16)]


def test_a_child_speaks_at_most_once_a_second_however_often_its_module_does() -> None:
    clock, written = Clock(), list[bytes]()
    reporter = Reporter(written.append, clock)
    for tick in range(350):
        clock.now = tick / 100
        reporter.report(0, {"files_seen": tick})
    seen = [progress.statistics["files_seen"] for body in written if (progress := decode_progress(body))]
    assert seen == [100, 200, 300]


def json_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.binary(max_size=200) | st.fixed_dictionaries({"operation": JSON, "statistics": JSON}).map(json_bytes)
)
def test_any_bytes_are_progress_or_nothing(said: bytes) -> None:
    progress = decode_progress(said)
    assert progress is None or isinstance(progress, Progress)


@pytest.mark.parametrize(
    "said",
    [
        {"operation": 0},
        {"operation": -1, "statistics": {}},
        {"operation": 64, "statistics": {}},
        {"operation": True, "statistics": {}},
        {"operation": 0, "statistics": []},
        {"operation": 0, "statistics": {}, "more": 1},
        {"operation": 0, "statistics": {"a": "text"}},
        {"operation": 0, "statistics": {"a": -1}},
        {"operation": 0, "statistics": {"a\n": 1}},
        {"operation": 0, "statistics": {"a" * 65: 1}},
        {"operation": 0, "statistics": {f"n{number}": 1 for number in range(17)}},
    ],
)
def test_what_has_not_the_shape_of_progress_is_none(said: Any) -> None:
    assert decode_progress(encode_json(said)) is None


@given(COUNTERS, st.floats(0, 1e9))
def test_what_the_resident_takes_the_server_takes_too(statistics: dict[str, float], elapsed_s: float) -> None:
    running = RunningCommand("ab" * 16, elapsed_s, Progress(63, statistics))
    payload = encode_heartbeat(FACTS, now=utc_now(), started=utc_now(), commands=(), running=running)
    (heard,) = decode_heartbeat(payload).running
    assert (heard.command, heard.operation, heard.statistics) == ("ab" * 16, 63, statistics)


def test_a_command_whose_child_says_nothing_runs_all_the_same() -> None:
    running = RunningCommand("ab" * 16, 2.5, None)
    payload = encode_heartbeat(FACTS, now=utc_now(), started=utc_now(), commands=(), running=running)
    (heard,) = decode_heartbeat(payload).running
    assert (heard.elapsed_s, heard.statistics) == (2.5, {})
    assert b"running" not in encode_heartbeat(FACTS, now=utc_now(), started=utc_now(), commands=())
