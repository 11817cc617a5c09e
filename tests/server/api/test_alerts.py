"""Alerts over HTTP: pages, filters, the stream, and who may read."""

import json
from datetime import timedelta
from typing import Any

import pytest

from tests.support.api import ApiServer
from tests.support.fleet import FleetAgent
from tests.support.gpg import Investigator


def listed(api: ApiServer, token: str, **query: Any) -> list[str]:
    """Return the digests of the alerts that are found."""
    return [one["digest"] for one in api.ask("GET", "/api/v1/alerts", token=token, **query).json["alerts"]]


def test_alerts_are_given_page_by_page_with_what_proves_them(api: ApiServer, token: str) -> None:
    agent = FleetAgent(api.store, now=api.now())
    alerts = [agent.alert(number) for number in range(1, 4)]
    api.store.save_alerts(alerts, api.now())
    page = api.ask("GET", "/api/v1/alerts", token=token, limit=2).json
    assert [one["digest"] for one in page["alerts"]] == [one.digest for one in alerts[:2]]
    assert (page["alerts"][0]["agent"], page["alerts"][0]["agent_name"]) == (agent.id, "web1")
    rest = api.ask("GET", "/api/v1/alerts", token=token, after=page["next"]).json
    assert ([one["digest"] for one in rest["alerts"]], rest["next"]) == ([alerts[2].digest], None)
    assert rest["last"] == rest["alerts"][0]["seq"]


def test_alerts_are_found_by_target_module_severity_and_time(api: ApiServer, token: str) -> None:
    one, other = (FleetAgent(api.store, name, now=api.now()) for name in ("web1", "web2"))
    mine, low, theirs = one.alert(1), one.alert(2, severity="low", module="audit"), other.alert(1)
    api.store.save_alerts([mine, low, theirs], api.now())
    assert listed(api, token, target="name = 'web2'") == [theirs.digest]
    assert listed(api, token, module="audit") == [low.digest]
    assert listed(api, token, severity="critical", target="name = 'web1'") == [mine.digest]
    assert listed(api, token, since=(api.now() + timedelta(hours=1)).isoformat()) == []


@pytest.mark.parametrize(
    "query", [{"severity": "worst"}, {"module": "a b"}, {"since": "2026-11-20T12:00:00"}, {"target": "("}]
)
def test_a_question_that_is_none_is_refused(api: ApiServer, token: str, query: dict[str, str]) -> None:
    assert api.ask("GET", "/api/v1/alerts", token=token, **query).status == 400


def test_without_the_right_to_read_no_alert_is_given(api: ApiServer, bob: Investigator) -> None:
    manager = api.login(bob, "manage")
    assert api.ask("GET", "/api/v1/alerts", token=manager).status == 403
    assert api.ask("GET", "/api/v1/alerts/events").status == 401


def test_reading_alerts_is_recorded(api: ApiServer, token: str) -> None:
    api.store.save_alerts([FleetAgent(api.store, now=api.now()).alert(1)], api.now())
    listed(api, token)
    entries = [json.loads(data) for _, data in api.store.list_audit(0, 100)[0]]
    [read] = [entry["what"] for entry in entries if entry["kind"] == "read"]
    assert (read["alerts"], read["after"]) == (1, 0)


def read_event(response: Any) -> tuple[str, dict[str, Any]]:
    """Return the id and the data of the next event of a stream."""
    ident = data = ""
    while True:
        line = response.readline().decode().rstrip("\n")
        assert line != ": ping", "nothing came"
        if line.startswith("id: "):
            ident = line[4:]
        if line.startswith("data: "):
            data = line[6:]
        if not line and data:
            return ident, json.loads(data)


def test_the_stream_gives_what_is_stored_and_then_what_comes(api: ApiServer, token: str) -> None:
    agent = FleetAgent(api.store, now=api.now())
    api.store.save_alerts([agent.alert(1)], api.now())
    with api.open("GET", "/api/v1/alerts/events?after=0", token=token) as response:
        ident, first = read_event(response)
        assert (int(ident), first["digest"]) == (first["seq"], agent.alert(1).digest)
        api.store.save_alerts([agent.alert(2)], api.now())
        api.loop.call_soon_threadsafe(api.services.bell.ring)
        assert read_event(response)[1]["digest"] == agent.alert(2).digest


def test_a_stream_without_a_number_begins_with_what_is_new(api: ApiServer, token: str) -> None:
    agent = FleetAgent(api.store, now=api.now())
    api.store.save_alerts([agent.alert(1)], api.now())
    with api.open("GET", "/api/v1/alerts/events", token=token) as response:
        assert response.readline() == b": following\n"
        api.store.save_alerts([agent.alert(2)], api.now())
        api.loop.call_soon_threadsafe(api.services.bell.ring)
        assert read_event(response)[1]["digest"] == agent.alert(2).digest
