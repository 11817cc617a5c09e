"""What agents sign of logs, in the store: what is kept, and what shows that an agent's own log changed."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from protocol.audit import Head, Landmarks
from protocol.errors import InvalidInput
from protocol.witness import open_witness
from server.oddities import LOG_WARNING, warnings_for
from server.rows import WitnessRow
from server.store import Store
from server.store_witnesses import EARLIER
from tests.support.fleet import LATER, NOW, FleetAgent

MINUTE = timedelta(minutes=1)


def of_log(length: int, changed_from: int = 1 << 40) -> dict[str, Any]:
    """Return what a heartbeat names of a log; two that were changed alike from an entry on are one log."""
    landmarks = Landmarks()
    for seq in range(1, length + 1):
        landmarks.add(Head(seq, f"{seq + (1 << 100) * (seq >= changed_from):064x}"))
    *before, newest = map(tuple, landmarks.heads())
    return {"log_head": newest, "log_heads": tuple(before)}


def save(store: Store, agent: FleetAgent, time: datetime, **heads: Any) -> list[tuple[str, str]]:
    heartbeat = agent.heartbeat(time, **heads)
    return store.save_witnesses([(heartbeat, agent.signed(heartbeat))], time)


def kept(store: Store, agent: FleetAgent) -> WitnessRow:
    [row] = [row for row in store.list_witnesses("", 10) if row.agent_id == agent.id]
    return row


def length_of(agent: FleetAgent, envelope: bytes | None) -> int:
    assert envelope is not None
    heartbeat = open_witness(envelope, agent.public_key, agent.id)
    return heartbeat.own_heads[-1].seq


def test_the_newest_heartbeat_that_names_heads_is_kept_for_each_agent(store: Store) -> None:
    one, two = FleetAgent(store, "web1"), FleetAgent(store, "web2")
    older, other, newer = one.heartbeat(NOW), two.heartbeat(NOW), one.heartbeat(LATER)
    store.save_witnesses(
        [(older, one.signed(older)), (other, two.signed(other)), (newer, one.signed(newer))], NOW
    )
    assert kept(store, one).envelope == one.signed(newer)
    assert (kept(store, two).envelope, kept(store, two).agent_name) == (two.signed(other), "web2")
    [behind] = store.list_witnesses(min(one.id, two.id), 10)
    assert behind.agent_id == max(one.id, two.id)


def test_an_earlier_heartbeat_of_up_to_a_week_stays_beside_the_newest(store: Store) -> None:
    agent = FleetAgent(store)
    for day in range(17):
        assert save(store, agent, NOW + timedelta(days=day), **of_log(10 + day)) == []
        row = kept(store, agent)
        assert length_of(agent, row.envelope) == 10 + day
        if day:
            assert row.earlier_received is None or row.received - row.earlier_received <= EARLIER + MINUTE
    assert length_of(agent, kept(store, agent).earlier) > 10


@pytest.mark.parametrize(
    ("then", "problem"),
    [
        (of_log(60), ""),
        (of_log(50), ""),
        (of_log(60, 51), ""),
        (of_log(49), "it ended at entry 50 and ends at 49 now: it went back"),
        (of_log(60, 40), "was written anew"),
        (of_log(2000, 1), ""),  # too far apart for two heads alone to meet: see the log itself
        ({}, "it ended at entry 50 and ends at 0 now: it went back"),
    ],
)
def test_an_own_log_that_does_not_go_on_is_told_once_and_both_heartbeats_stay(
    store: Store, then: dict[str, Any], problem: str
) -> None:
    agent = FleetAgent(store)
    save(store, agent, NOW, **of_log(50))
    told = save(store, agent, NOW + MINUTE, **then)
    assert [(agent_id, problem in said) for agent_id, said in told] == ([(agent.id, True)] if problem else [])
    assert store.find_contradicted([agent.id]) == ({agent.id} if problem else set())
    if not problem:
        return
    row = kept(store, agent)
    assert length_of(agent, row.contradicted) == 50
    assert row.contradicting == row.envelope
    assert save(store, agent, NOW + 2 * MINUTE, **then) == []
    assert save(store, agent, NOW + 3 * MINUTE, **of_log(55, 30)) == []
    assert kept(store, agent).contradicting == row.contradicting
    recorded = [json.loads(line) for _, line in store.list_audit(0, 100)[0] if b"agent-log" in line]
    assert [entry["what"]["agent"] for entry in recorded] == [agent.id]


def test_heartbeats_that_come_late_or_twice_show_nothing(store: Store) -> None:
    agent = FleetAgent(store)
    save(store, agent, NOW, **of_log(50))
    save(store, agent, NOW + MINUTE, **of_log(60))
    for seconds, length in ((0, 50), (60, 60), (30, 55)):
        assert save(store, agent, NOW + timedelta(seconds=seconds), **of_log(length)) == []
    assert length_of(agent, kept(store, agent).envelope) == 60
    assert save(store, agent, NOW + timedelta(seconds=30), **of_log(55, 40)) != []


def test_an_agent_whose_clock_was_set_back_is_followed(store: Store) -> None:
    agent = FleetAgent(store)
    save(store, agent, LATER, **of_log(50))
    assert save(store, agent, NOW, **of_log(60)) == []
    assert length_of(agent, kept(store, agent).envelope) == 60


def test_an_agent_is_warned_of_until_somebody_approves_it_again(store: Store) -> None:
    agent = FleetAgent(store)
    save(store, agent, NOW, **of_log(50))
    save(store, agent, NOW + MINUTE, **of_log(5))
    row = store.get_agent(agent.id)
    assert row is not None
    assert warnings_for(store, [row], NOW)[agent.id] == (LOG_WARNING,)
    store.approve_agent(agent.id, LATER)
    assert warnings_for(store, [row], NOW)[agent.id] == ()
    assert save(store, agent, LATER, **of_log(7)) == []


def test_what_another_version_kept_is_no_reason_to_lose_what_comes(store: Store) -> None:
    agent = FleetAgent(store)
    heartbeat = agent.heartbeat(NOW, **of_log(5))
    store.save_witnesses([(heartbeat, b"{}")], NOW)
    with pytest.raises(InvalidInput, match="bad-envelope"):
        open_witness(kept(store, agent).envelope, agent.public_key, agent.id)
    assert save(store, agent, NOW + MINUTE, **of_log(6)) == []
    assert length_of(agent, kept(store, agent).envelope) == 6
