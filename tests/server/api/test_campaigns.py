"""Submitting paced actions, and what the API shows of them."""

from typing import Any

import pytest

from protocol.action import Action, encode_action
from protocol.envelope import ACTION, encode_envelope
from tests.support.api import Answer, ApiServer
from tests.support.fleet import FleetAgent, make_action
from tests.support.gpg import Investigator


def submit(api: ApiServer, token: str, ada: Investigator, action: Action, query: str) -> Answer:
    body = encode_envelope(ada.sign(ACTION, encode_action(action)))
    return api.ask("POST", f"/api/v1/actions?{query}", token=token, body=body)


def make_fleet(api: ApiServer, count: int) -> list[FleetAgent]:
    return [FleetAgent(api.store, f"web{number}", now=api.now()) for number in range(count)]


def test_a_paced_action_shows_how_it_stands(api: ApiServer, token: str, ada: Investigator) -> None:
    make_fleet(api, 4)
    action = make_action(now=api.now())
    query = "waves=1,2&concurrency=2&rate=0.5&stop_at=20&wave_wait=30"
    assert submit(api, token, ada, action, query).json["commands"] == 4
    shown = api.ask("GET", f"/api/v1/actions/{action.id}", token=token).json["campaign"]
    pacing = {"waves": [1, 2], "concurrency": 2, "rate": 0.5, "stop_at": 20.0, "wave_wait_s": 30}
    assert shown == {"pacing": pacing, "state": "running", "wave": 1, "held": 4, "reason": ""}
    api.store.advance_campaign(action.id, api.now())
    [listed] = api.ask("GET", "/api/v1/actions", token=token).json["actions"]
    assert listed["campaign"]["held"] == 3
    roster = api.ask("GET", f"/api/v1/actions/{action.id}/commands", token=token).json["commands"]
    assert sorted(line["wave"] for line in roster) == [0, 0, 0, 1]


def test_an_action_that_is_not_paced_shows_none(api: ApiServer, token: str, ada: Investigator) -> None:
    make_fleet(api, 1)
    action = make_action(now=api.now())
    submit(api, token, ada, action, "")
    assert api.ask("GET", f"/api/v1/actions/{action.id}", token=token).json["campaign"] is None


@pytest.mark.parametrize(
    "query",
    [
        "waves=0",
        "waves=1,",
        "waves=1,x",
        "waves=" + ",".join(["1"] * 17),
        "concurrency=0",
        "concurrency=-1",
        "rate=0",
        "rate=nan",
        "rate=inf",
        "rate=1e9",
        "waves=1&stop_at=0",
        "waves=1&stop_at=101",
        "waves=1&wave_wait=0",
        "waves=1&wave_wait=99999999",
        "stop_at=20",
        "wave_wait=20",
    ],
)
def test_pacing_that_makes_no_sense_is_refused_and_nothing_is_stored(
    api: ApiServer, token: str, ada: Investigator, query: str
) -> None:
    make_fleet(api, 1)
    action = make_action(now=api.now())
    assert submit(api, token, ada, action, query).refusal == (400, "usage")
    assert api.store.get_action(action.id) is None


def test_the_stream_tells_how_a_campaign_stands_and_why_it_was_stopped(
    api: ApiServer, token: str, ada: Investigator
) -> None:
    fleet = make_fleet(api, 3)
    action = make_action(now=api.now())
    submit(api, token, ada, action, "waves=1&stop_at=20")
    api.store.advance_campaign(action.id, api.now())
    stream = api.follow(action.id, token)

    def next_of(kind: str) -> Any:
        return next(event.data for event in stream if event.kind == kind)

    assert next_of("campaign")["held"] == 2
    [sent] = [row.agent_id for row in api.store.pending_commands(api.now(), 10)]
    first = next(agent for agent in fleet if agent.id == sent)
    api.publish(api.store.save_results([first.answer(action, status="failed", results=[])], api.now()))
    assert next_of("result")["state"] == "failed"
    api.publish(api.store.advance_campaign(action.id, api.now()).changes)
    stopped = next_of("campaign")
    assert (stopped["state"], stopped["held"]) == ("stopped", 0)
    assert "1 of 1 answers failed" in stopped["reason"]
    assert next_of("done") == {"counts": {"cancelled": 2, "failed": 1}}
    assert api.ask("GET", f"/api/v1/actions/{action.id}", token=token).json["status"] == "stopped"
