"""What is believed of alerts that agents send."""

import asyncio
from datetime import datetime, timedelta

import pytest

from protocol.names import alert_key, result_key
from server import alert_intake
from server.alert_intake import AlertIntake
from server.amqp import Delivery
from server.bell import Bell
from server.database import Database
from server.metrics import Meters
from server.store import Store
from tests.support.fleet import NOW, FleetAgent


class Desk:
    """The intake of one server over a database."""

    def __init__(self, database: Database) -> None:
        self.store = Store(database)
        self.meters = Meters()
        self.bell = Bell()
        self.rung = 0
        self.bell.also = self._count
        self.now: datetime = NOW
        self.intake = AlertIntake(
            database=database, store=self.store, bell=self.bell, clock=lambda: self.now, meters=self.meters
        )

    def _count(self) -> None:
        self.rung += 1

    def take(self, *deliveries: Delivery) -> list[str | None]:
        return [*asyncio.run(self.intake.handle(deliveries))]


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def delivery(agent: FleetAgent, body: bytes, *, user: str = "", key: str = "") -> Delivery:
    return Delivery(1, key or alert_key(agent.id), user or agent.id, body)


def test_an_alert_of_an_enrolled_agent_is_kept_counted_and_told(desk: Desk) -> None:
    agent = FleetAgent(desk.store)
    assert desk.take(delivery(agent, agent.alert(1).envelope)) == [None]
    [row] = desk.store.list_alerts(0, 10).rows
    assert (row.agent_id, row.digest, row.received) == (agent.id, agent.alert(1).digest, NOW)
    assert (desk.meters.received["alert"], desk.rung) == (1, 1)


def test_an_alert_that_comes_again_is_acknowledged_and_told_to_nobody(desk: Desk) -> None:
    agent = FleetAgent(desk.store)
    body = agent.alert(1).envelope
    assert desk.take(delivery(agent, body), delivery(agent, body)) == [None, None]
    assert desk.take(delivery(agent, body)) == [None]
    assert (len(desk.store.list_alerts(0, 10).rows), desk.rung) == (1, 1)


def test_broker_routing_key_signature_and_document_must_name_the_same_agent(desk: Desk) -> None:
    agent, other = FleetAgent(desk.store, "web1"), FleetAgent(desk.store, "web2")
    mine = agent.alert(1).envelope
    assert desk.take(
        delivery(agent, mine, user=other.id),
        delivery(agent, mine, key=alert_key(other.id)),
        delivery(agent, mine, key=result_key(agent.id)),
        delivery(other, mine),
        delivery(agent, agent.alert(1, agent=other.id).envelope),
        delivery(agent, mine[:-20]),
        delivery(agent, agent.alert(1, severity="worst").envelope),
    ) == [
        "forbidden",
        "forbidden",
        "forbidden",
        "bad-signature",
        "forbidden",
        "bad-json",
        "bad-document",
    ]
    assert desk.store.list_alerts(0, 10).rows == []
    assert desk.rung == 0


def test_an_alert_of_a_revoked_agent_is_refused(desk: Desk) -> None:
    agent = FleetAgent(desk.store)
    desk.store.revoke_agent(agent.id, NOW)
    assert desk.take(delivery(agent, agent.alert(1).envelope)) == ["forbidden"]


def test_an_agent_whose_owner_is_hostile_does_not_fill_the_database(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_intake, "MOST_PER_HOUR", 2)
    one, other = FleetAgent(desk.store, "web1"), FleetAgent(desk.store, "web2")
    told = [delivery(one, one.alert(number).envelope) for number in range(1, 4)]
    assert desk.take(*told, delivery(other, other.alert(1).envelope)) == [None, None, "rate-limited", None]
    desk.now += timedelta(hours=1)
    assert desk.take(told[2]) == [None]
