"""Tests of alerts between their watcher and the broker: numbers, rate, room, crashes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.runtime.alerts import decode_report
from protocol.errors import EnvironmentFailure, InvalidInput, MigError
from tests.support.watching import MakeWatched, report


def test_alerts_are_numbered_signed_and_published_in_order(make_watched: MakeWatched) -> None:
    watched = make_watched()
    for kind in ("created", "changed", "removed"):
        assert watched.alerts.take("fswatch", report(kind))
    told = watched.told()
    assert [(alert.seq, alert.kind, alert.module) for alert in told] == [
        (1, "created", "fswatch"),
        (2, "changed", "fswatch"),
        (3, "removed", "fswatch"),
    ]
    assert watched.alerts.waiting == 0


def test_without_a_broker_alerts_wait_on_the_disk_and_come_after_a_restart(make_watched: MakeWatched) -> None:
    watched = make_watched()
    watched.is_ready = False
    watched.alerts.take("fswatch", report("created"))
    again = make_watched()
    again.key, again.public_key, again.agent_id = watched.key, watched.public_key, watched.agent_id
    again.alerts.publish_next()
    assert [alert.seq for alert in again.told()] == [1]
    again.alerts._agent_id = watched.agent_id
    again.alerts.take("fswatch", report("changed"))
    assert [alert.seq for alert in again.told()] == [1, 2]


def test_what_the_broker_refuses_stays_and_is_tried_again(make_watched: MakeWatched) -> None:
    watched = make_watched()
    watched.confirms = False
    watched.alerts.take("fswatch", report())
    assert watched.alerts.waiting == 1
    watched.confirms = True
    watched.alerts.publish_next()
    assert [alert.seq for alert in watched.told()] == [1]


def test_no_number_is_given_twice_even_where_all_were_sent_before_a_restart(
    make_watched: MakeWatched,
) -> None:
    make_watched().alerts.take("fswatch", report())
    again = make_watched()
    again.alerts.take("fswatch", report())
    assert [alert.seq for alert in again.told()] == [2]


def test_the_oldest_make_room_and_the_next_alert_says_how_many(make_watched: MakeWatched) -> None:
    watched = make_watched(max_kept=3)
    watched.is_ready = False
    for _ in range(5):
        watched.alerts.take("fswatch", report())
    watched.is_ready = True
    watched.alerts.publish_next()
    assert [(alert.seq, alert.dropped) for alert in watched.told()] == [(3, 0), (4, 1), (5, 1)]


def test_above_the_rate_events_are_counted_and_the_next_alert_says_how_many(
    make_watched: MakeWatched,
) -> None:
    now = [0.0]
    watched = make_watched(per_minute=2, monotonic=lambda: now[0])
    made = [watched.alerts.take("fswatch", report(count=10)) for _ in range(5)]
    assert made == [True, True, False, False, False]
    now[0] = 60.0
    watched.alerts.take("fswatch", report())
    assert [(alert.seq, alert.suppressed) for alert in watched.told()] == [(1, 0), (2, 0), (3, 30)]


def test_where_no_alert_follows_the_agent_says_itself_what_it_left_out(
    make_watched: MakeWatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runtime.alerts._OWN_AFTER_S", 0.01)
    watched = make_watched(per_minute=1)
    for _ in range(3):
        watched.alerts.take("fswatch", report())
    watched.run_until(lambda: bool(watched.told("suppressed")))
    [alert] = watched.told("suppressed")
    assert (alert.module, alert.severity, alert.suppressed) == ("agent", "high", 2)


def test_a_damaged_count_keeps_the_agent_from_giving_a_number_twice(
    make_watched: MakeWatched, tmp_path: Path
) -> None:
    make_watched().alerts.take("fswatch", report())
    (tmp_path / "state" / "alerts.json").write_text("{}")
    with pytest.raises(EnvironmentFailure, match="alerts.json is damaged"):
        make_watched()


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "Changed\n"},
        {"kind": 5},
        {"severity": "worst"},
        {"severity": ["high"]},
        {"count": 0},
        {"count": True},
        {"count": 1 << 70},
        {"record": []},
        {"first": "yesterday"},
        {"last": None},
        {"seq": 7},
        {"agent": "0" * 32},
    ],
)
def test_a_report_of_another_shape_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="bad-"):
        decode_report(report(**changes))  # type: ignore[arg-type]


def test_a_member_that_is_said_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="bad-json"):
        decode_report(report()[:-1] + b',"count":2}')


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_any_bytes_are_a_report_or_our_error(body: bytes) -> None:
    try:
        decode_report(body)
    except MigError:
        return
