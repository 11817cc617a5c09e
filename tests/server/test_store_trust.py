"""Trust bundles in the store, on every database."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from protocol.errors import InvalidInput
from protocol.trust import TrustBundle, decode_bundle
from server.store import Store
from tests.support.endpoint import make_bundle
from tests.support.fleet import FleetAgent
from tests.support.gpg import Investigator

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PUBLISHER = "A" * 40


def bundle_of(version: int, ada: Investigator) -> TrustBundle:
    return decode_bundle(json.dumps(make_bundle(version, ada)).encode())


def test_without_a_bundle_there_is_none_and_nobody_lags_behind(store: Store) -> None:
    agent = FleetAgent(store, "web1", now=NOW)
    assert store.newest_trust() is None
    assert store.agents_behind([agent.id]) == store.next_behind("", 10) == []


def test_versions_only_rise_and_the_newest_may_come_again(store: Store, ada: Investigator) -> None:
    assert store.publish_trust(bundle_of(3, ada), b'{"a":1}', "d3", PUBLISHER, NOW)
    assert not store.publish_trust(bundle_of(3, ada), b'{"a":1}', "d3", PUBLISHER, NOW)
    # The same bundle with one more signature.
    later = NOW + timedelta(minutes=1)
    assert store.publish_trust(bundle_of(3, ada), b'{"a":2}', "d3", PUBLISHER, later)
    for version, digest in ((3, "other"), (2, "d2")):
        with pytest.raises(InvalidInput, match="stale-trust"):
            store.publish_trust(bundle_of(version, ada), b"{}", digest, PUBLISHER, NOW)
    assert store.publish_trust(bundle_of(4, ada), b'{"b":1}', "d4", PUBLISHER, NOW)
    newest = store.newest_trust()
    assert newest is not None
    assert (newest.version, newest.digest, newest.envelope) == (4, "d4", b'{"b":1}')


def test_agents_lag_behind_until_they_say_that_they_hold_it(store: Store, ada: Investigator) -> None:
    silent, older, holding, pending = (
        FleetAgent(store, name, now=NOW, policy="approval" if name == "pending" else "open")
        for name in ("silent", "older", "holding", "pending")
    )
    store.save_heartbeat(older.heartbeat(NOW, trust_version=1), NOW)
    store.save_heartbeat(holding.heartbeat(NOW, trust_version=2), NOW)
    store.publish_trust(bundle_of(2, ada), b"{}", "d2", PUBLISHER, NOW)
    behind = sorted([silent.id, older.id])
    assert sorted(store.agents_behind([silent.id, older.id, holding.id, pending.id])) == behind
    assert store.next_behind("", 1) == behind[:1]
    assert store.next_behind(behind[0], 10) == behind[1:]
    shown = store.get_agent(holding.id)
    assert shown is not None
    assert shown.trust_version == 2


def test_a_publication_stands_in_the_audit_log(store: Store, ada: Investigator) -> None:
    store.publish_trust(bundle_of(2, ada), b"{}", "d2", PUBLISHER, NOW)
    (_, entry), *_ = reversed(store.list_audit(0, 100)[0])
    said = json.loads(entry)
    assert (said["kind"], said["who"]) == ("trust", [PUBLISHER])
    assert said["what"] == {"version": 2, "sha256": "d2"}
