"""Which alerts are believed, shown, and missed."""

from typing import Any

import msgspec
import pytest

from client.alerts import Seen, SeenAlert, verify_alert
from protocol.alert_documents import AlertItem
from protocol.documents import EnvelopeSignature
from protocol.errors import InvalidInput
from server.api.alerts import alert_document
from server.database import Database
from server.store import Store
from tests.support.database import migrated_database
from tests.support.fleet import NOW, FleetAgent


@pytest.fixture
def store(tmp_path: Any) -> Any:
    database: Database = migrated_database(f"sqlite:///{tmp_path / 'mig.sqlite'}")
    yield Store(database)
    database.close()


def shown(store: Store, agent: FleetAgent, *seqs: int, **changed: Any) -> list[AlertItem]:
    """Return alerts as the API shows them."""
    store.save_alerts([agent.alert(seq, **changed) for seq in seqs], NOW)
    return [alert_document(row) for row in store.list_alerts(0, 100).rows]


def test_an_alert_is_believed_by_its_agents_signature(store: Store) -> None:
    agent = FleetAgent(store)
    [item] = shown(store, agent, 1)
    seen = verify_alert(item)
    assert (seen.alert.agent, seen.agent_name, seen.digest) == (agent.id, "web1", item.digest)


def test_what_the_server_changed_made_or_moved_is_not_believed(store: Store) -> None:
    agent, other = FleetAgent(store, "web1"), FleetAgent(store, "web2")
    [item] = shown(store, agent, 1)
    [_, foreign] = shown(store, other, 1)
    forged = msgspec.structs.replace(
        item.envelope, signatures=(EnvelopeSignature(keyid=agent.id, sig="AAAA"),)
    )
    wrong = [
        msgspec.structs.replace(item, agent=other.id),
        msgspec.structs.replace(item, agent=other.id, public_key=foreign.public_key),
        msgspec.structs.replace(item, public_key=foreign.public_key),
        msgspec.structs.replace(item, public_key="?"),
        msgspec.structs.replace(item, agent="web1"),
        msgspec.structs.replace(item, envelope=forged),
        msgspec.structs.replace(item, envelope=msgspec.structs.replace(item.envelope, signatures=())),
        msgspec.structs.replace(
            item, envelope=msgspec.structs.replace(item.envelope, payload=foreign.envelope.payload)
        ),
    ]
    for one in wrong:
        with pytest.raises(InvalidInput, match="hostile-answer"):
            verify_alert(one)


def seen(store: Store, agent: FleetAgent, seq: int, **changed: Any) -> SeenAlert:
    return next(
        alert
        for alert in map(verify_alert, shown(store, agent, seq, **changed))
        if (alert.alert.seq, alert.alert.agent) == (seq, agent.id)
    )


def test_an_alert_that_is_shown_again_is_seen_once(store: Store) -> None:
    agent, ours = FleetAgent(store), Seen()
    assert [ours.is_new(seen(store, agent, 1)) for _ in range(2)] == [True, False]


def test_alerts_that_are_withheld_leave_a_gap_that_is_told(store: Store) -> None:
    agent, other, ours = FleetAgent(store, "web1"), FleetAgent(store, "web2"), Seen()
    for number in (3, 4, 7):
        ours.is_new(seen(store, agent, number))
    for number in (1, 2):
        ours.is_new(seen(store, other, number))
    assert list(ours.missing()) == [
        f"2 alerts of agent {agent.id} are missing between those shown: they are withheld"
    ]


def test_what_the_agent_itself_dropped_is_no_gap(store: Store) -> None:
    agent, ours = FleetAgent(store), Seen()
    for number, dropped in ((1, 9), (4, 0), (5, 2)):
        ours.is_new(seen(store, agent, number, dropped=dropped))
    assert list(ours.missing()) == []
