"""Alerts in the store, on each database."""

from datetime import timedelta
from typing import Any

import pytest

from server.rows import AlertFilter
from server.store import Store
from tests.support.fleet import NOW, FleetAgent


def numbers(store: Store, after: int = 0, limit: int = 100, **wanted: Any) -> list[int]:
    """Return the agents' own numbers of the alerts that are found."""
    found = store.list_alerts(after, limit, AlertFilter(**wanted))
    return [row.seq for row in found.rows]


def test_an_alert_is_stored_once_however_often_it_comes(store: Store) -> None:
    agent = FleetAgent(store)
    assert store.save_alerts([agent.alert(1), agent.alert(1)], NOW) == 1
    assert store.save_alerts([agent.alert(1), agent.alert(2)], NOW) == 1
    assert len(store.list_alerts(0, 10).rows) == 2


def test_alerts_are_given_page_by_page_in_the_order_of_their_coming(store: Store) -> None:
    agent = FleetAgent(store)
    store.save_alerts([agent.alert(number) for number in range(1, 6)], NOW)
    first = store.list_alerts(0, 2)
    assert (len(first.rows), first.next) == (2, first.rows[-1].seq)
    rest = store.list_alerts(first.rows[-1].seq, 10)
    assert (len(rest.rows), rest.next) == (3, None)
    assert [row.agent_name for row in rest.rows] == ["web1"] * 3


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({"modules": ("audit",)}, 1),
        ({"severities": ("low", "critical")}, 3),
        ({"since": NOW + timedelta(seconds=1)}, 0),
        ({"since": NOW}, 4),
        ({"agents": frozenset()}, 0),
        ({}, 4),
    ],
)
def test_alerts_are_found_by_what_is_asked_for(store: Store, wanted: dict[str, Any], count: int) -> None:
    agent = FleetAgent(store)
    alerts = [agent.alert(1), agent.alert(2, module="audit", severity="high")]
    alerts += [agent.alert(3, severity="low"), agent.alert(4)]
    store.save_alerts(alerts, NOW)
    assert len(numbers(store, **wanted)) == count


def test_alerts_of_some_agents_are_found_among_those_of_others(store: Store) -> None:
    one, other = FleetAgent(store, "web1"), FleetAgent(store, "web2")
    store.save_alerts([agent.alert(number) for number in range(1, 6) for agent in (one, other)], NOW)
    found = store.list_alerts(0, 3, AlertFilter(agents=frozenset({other.id})))
    assert [row.agent_name for row in found.rows] == ["web2"] * 3
    assert found.next == found.rows[-1].seq


def test_old_alerts_are_deleted_and_their_numbers_not_given_again(store: Store) -> None:
    agent = FleetAgent(store)
    store.save_alerts([agent.alert(number) for number in range(1, 4)], NOW)
    last = store.last_alert()
    assert store.delete_alerts(NOW + timedelta(seconds=1), NOW, 2) == 2
    assert store.delete_alerts(NOW + timedelta(seconds=1), NOW, 2) == 1
    store.save_alerts([agent.alert(4)], NOW)
    assert store.last_alert() > last


def test_alerts_are_counted_between_two_numbers(store: Store) -> None:
    agent = FleetAgent(store)
    assert store.last_alert() == 0
    store.save_alerts([agent.alert(1), agent.alert(2, severity="low"), agent.alert(3)], NOW)
    last = store.last_alert()
    assert store.count_alerts(0, last) == 3
    assert store.count_alerts(0, last, AlertFilter(severities=("low",))) == 1
    assert store.count_alerts(0, last, AlertFilter(modules=("audit",))) == 0
