"""Which agents' trust needs a person: it has expired, soon will, is lost, or lags behind."""

from datetime import timedelta

import pytest

from protocol.trust import TrustBundle
from server.oddities import warnings_for
from server.store import Store
from tests.server.test_store_trust import PUBLISHER, bundle_of
from tests.support.fleet import NOW, FleetAgent
from tests.support.gpg import Investigator

DAY = timedelta(days=1)


def warned(store: Store, agent: FleetAgent, time_later: timedelta = timedelta(0)) -> tuple[str, ...]:
    row = store.get_agent(agent.id)
    assert row is not None
    return warnings_for(store, [row], NOW + time_later)[agent.id]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, ()),
        ({"trust_version": 2, "trust_state": "in-force"}, ()),
        ({"trust_version": 2, "trust_state": "in-force", "trust_expires": NOW + 30 * DAY}, ()),
        (
            {"trust_version": 2, "trust_state": "in-force", "trust_expires": NOW + DAY},
            ("trust bundle 2 expires 2026-11-21T12:00:00Z, then it obeys nobody: publish a newer bundle",),
        ),
        (
            {"trust_version": 2, "trust_state": "expired", "trust_expires": NOW - DAY},
            ("it obeys nobody: trust bundle 2 expired 2026-11-19T12:00:00Z",),
        ),
        (
            {"trust_version": 0, "trust_state": "in-force", "trust_expires": NOW},
            ("it obeys nobody: what was baked into it expired 2026-11-20T12:00:00Z",),
        ),
        ({"trust_state": "missing"}, ("it obeys nobody: it waits for a trust bundle",)),
    ],
)
def test_what_an_agent_says_of_its_trust_becomes_a_warning(
    store: Store, said: dict[str, object], expected: tuple[str, ...]
) -> None:
    agent = FleetAgent(store)
    store.save_heartbeat(agent.heartbeat(NOW, **said), NOW)
    assert warned(store, agent) == expected


def test_an_agent_lags_behind_once_it_was_heard_well_after_the_publication(
    store: Store, ada: Investigator
) -> None:
    agent, away = FleetAgent(store), FleetAgent(store, "away")
    for one in (agent, away):
        store.save_heartbeat(one.heartbeat(NOW, trust_version=1), NOW)
    bundle: TrustBundle = bundle_of(2, ada)
    store.publish_trust(bundle, b"{}", "d2", PUBLISHER, NOW)
    assert warned(store, agent) == ()
    later = NOW + timedelta(hours=2)
    store.save_heartbeat(agent.heartbeat(later, trust_version=1), later)
    said = "it obeys trust bundle 1, while bundle 2 is published since 2026-11-20T12:00:00Z"
    assert warned(store, agent) == (said,)
    assert warned(store, away) == ()
    store.save_heartbeat(agent.heartbeat(later, trust_version=2), later)
    assert warned(store, agent) == ()


def test_what_a_revoked_agent_holds_is_of_no_interest(store: Store) -> None:
    agent = FleetAgent(store)
    store.save_heartbeat(agent.heartbeat(NOW, trust_state="missing"), NOW)
    store.revoke_agent(agent.id, NOW)
    assert warned(store, agent) == ()
