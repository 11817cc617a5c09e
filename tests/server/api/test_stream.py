"""Following an action: every answer once, in order, and an end."""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from protocol.action import Action
from protocol.command import CommandState
from protocol.heartbeat import RunningCommand
from server.api import stream
from server.api.stream import event_stream
from server.rows import Change
from tests.support.api import ApiServer, Event
from tests.support.fleet import FleetAgent, create, make_action
from tests.support.gpg import Investigator


@pytest.fixture
def agents(api: ApiServer) -> list[FleetAgent]:
    """Three agents."""
    return [FleetAgent(api.store, f"web{number}", now=api.now()) for number in range(3)]


def test_stored_answers_come_first_then_live_ones_then_the_end(
    api: ApiServer, token: str, agents: list[FleetAgent]
) -> None:
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    first, second, third = (agent.answer(action) for agent in agents)
    api.store.save_results([first], api.now())
    events = api.follow(action.id, token)
    stored = next(events)
    assert (stored.kind, stored.data["agent_name"], stored.id) == ("result", "web0", str(stored.data["seq"]))
    assert stored.data["envelope"] == json.loads(first.envelope_bytes)
    api.publish(api.store.mark_sent([agents[1].command(action)], api.now()))
    sent = next(events)
    assert (sent.kind, sent.id) == ("command", "")
    assert sent.data == {
        "id": agents[1].command(action),
        "agent": agents[1].id,
        "agent_name": "web1",
        "state": "sent",
    }
    api.publish(api.store.save_results([second], api.now()))
    assert next(events).data["agent_name"] == "web1"
    api.publish(api.store.save_results([third], api.now()))
    assert [event.kind for event in events] == ["result", "done"]


def running(api: ApiServer, agent: FleetAgent, action: Action, seen: int) -> list[Change]:
    """Do what the intake does with a heartbeat of an agent that runs a command."""
    told = RunningCommand(command=agent.command(action), elapsed_s=2.0, statistics={"files_seen": seen})
    heartbeat = agent.heartbeat(api.now(), commands=(told.command,), running=(told,))
    api.store.save_heartbeats([heartbeat], api.now())
    return api.store.find_progress([heartbeat], api.now())


def test_progress_is_followed_and_stands_in_the_roster_until_the_answer(
    api: ApiServer, token: str, agents: list[FleetAgent]
) -> None:
    action = make_action(now=api.now())
    create(api.store, action, *agents[:2], now=api.now())
    api.publish(running(api, agents[0], action, 5))
    events = api.follow(action.id, token)
    first = next(events)
    assert (first.kind, first.id, first.data["agent_name"]) == ("progress", "", "web0")
    assert first.data["statistics"] == {"files_seen": 5}
    api.publish(running(api, agents[0], action, 6) + running(api, agents[0], action, 7))
    assert next(events).data["statistics"] == {"files_seen": 7}
    roster = api.ask("GET", f"/api/v1/actions/{action.id}/commands", token=token).json["commands"]
    assert [command["progress"] and command["progress"]["statistics"] for command in roster] == [
        {"files_seen": 7},
        None,
    ]
    late = running(api, agents[0], action, 8)
    api.publish(api.store.save_results([agents[0].answer(action)], api.now()))
    api.publish(late)  # it opens nothing again
    api.publish(api.store.save_results([agents[1].answer(action)], api.now()))
    assert [event.kind for event in events if event.kind != "progress"] == ["result", "result", "done"]
    roster = api.ask("GET", f"/api/v1/actions/{action.id}/commands", token=token).json["commands"]
    assert [command["progress"] for command in roster] == [None, None]


def test_the_end_says_how_many_commands_ended_how(
    api: ApiServer, token: str, agents: list[FleetAgent]
) -> None:
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    api.store.save_results([agents[0].answer(action)], api.now())
    events = api.follow(action.id, token)
    assert next(events).kind == "result"
    api.publish(api.store.expire_commands(action.expireafter))
    seen = list(events)
    assert [event.kind for event in seen] == ["command", "command", "done"]
    assert seen[-1].data == {"counts": {"done": 1, "expired": 2}}
    assert list(api.follow(action.id, token))[-1].kind == "done"


def test_a_follower_resumes_behind_the_last_answer_it_saw(
    api: ApiServer, token: str, agents: list[FleetAgent]
) -> None:
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    api.store.save_results([agent.answer(action) for agent in agents], api.now())
    whole = list(api.follow(action.id, token))
    assert [event.kind for event in whole] == ["result", "result", "result", "done"]
    rest = list(api.follow(action.id, token, last_event_id=whole[1].id))
    assert rest == whole[2:]


@pytest.mark.parametrize("last", ["x", "-1", "1" * 19, "1e3"])
def test_a_last_event_id_that_is_none_of_ours_is_refused(
    api: ApiServer, token: str, agents: list[FleetAgent], last: str
) -> None:
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    path = f"/api/v1/actions/{action.id}/events"
    with api.open("GET", path, token=token, Last_Event_ID=last) as response:
        assert (response.status, json.loads(response.read())["error"]["code"]) == (400, "usage")


def test_news_in_any_order_give_answers_in_order_once(
    api: ApiServer, token: str, agents: list[FleetAgent]
) -> None:
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    first, second, third = (agent.answer(action) for agent in agents)
    changes = api.store.save_results([first], api.now())
    events = api.follow(action.id, token)
    assert next(events).data["agent_name"] == "web0"
    changes += api.store.save_results([second], api.now()) + api.store.save_results([third], api.now())
    api.publish(changes[::-1])
    api.publish(changes)
    seen = list(events)
    assert [event.data.get("agent_name") for event in seen] == ["web1", "web2", None]
    assert seen[-1].kind == "done"


def test_many_answers_while_many_follow_reach_all_of_them_once(api: ApiServer, token: str) -> None:
    agents = [FleetAgent(api.store, f"host{number:03}", now=api.now()) for number in range(150)]
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    answers = [agent.answer(action) for agent in agents]
    followers: list[tuple[Event, Iterator[Event]]] = []
    for start in range(0, 150, 30):
        api.publish(api.store.save_results(answers[start : start + 30], api.now()))
        follower = api.follow(action.id, token)
        followers.append((next(follower), follower))
    for first, follower in followers:
        seen = [first, *follower]
        assert [event.kind for event in seen] == ["result"] * 150 + ["done"]
        assert [event.data["agent_name"] for event in seen[:-1]] == [agent.name for agent in agents]


def test_line_ends_inside_of_an_envelope_do_not_end_the_event(
    api: ApiServer, token: str, agents: list[FleetAgent]
) -> None:
    action = make_action(now=api.now())
    create(api.store, action, agents[0], now=api.now())
    answer = agents[0].answer(action)
    spread = answer.envelope_bytes.replace(b",", b",\n\n\r").replace(b"{", b"{\n\n")
    received = msgspec.structs.replace(answer, envelope_bytes=spread)
    api.store.save_results([received], api.now())
    seen = list(api.follow(action.id, token))
    assert [event.kind for event in seen] == ["result", "done"]
    assert seen[0].data["envelope"] == json.loads(spread)


def test_a_stream_ends_when_its_session_does(
    api: ApiServer, ada: Investigator, token: str, agents: list[FleetAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PING_S", 0.05)
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    with api.open("GET", f"/api/v1/actions/{action.id}/events", token=token) as response:
        while response.readline() != b": ping\n":
            pass
        api.store.set_investigator_status(ada.fingerprint, "disabled", api.now())
        assert set(response.read().split()) <= {b":", b"ping"}


def test_a_stream_ends_when_the_server_stops(api: ApiServer, token: str, agents: list[FleetAgent]) -> None:
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    with api.open("GET", f"/api/v1/actions/{action.id}/events", token=token) as response:
        assert response.readline() == b": following\n"
        api.loop.call_soon_threadsafe(api.events.close)
        assert response.read() == b"\n"
    assert list(api.follow(action.id, token)) == []


def test_a_reader_that_goes_away_is_forgotten(api: ApiServer, token: str, agents: list[FleetAgent]) -> None:
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    with api.open("GET", f"/api/v1/actions/{action.id}/events", token=token) as response:
        assert response.readline() == b": following\n"
        assert api.followers(action.id) == 1
    api.wait_until_unfollowed(action.id)


def test_a_reader_that_is_too_slow_is_dropped_and_holds_nobody_up(tmp_path: Path) -> None:
    api = ApiServer(tmp_path)
    agent = FleetAgent(api.store, now=api.now())
    action = make_action(now=api.now())
    create(api.store, action, agent, now=api.now())
    change = Change(
        action_id=action.id,
        command_id=agent.command(action),
        agent_id=agent.id,
        agent_name=agent.name,
        state=CommandState.SENT,
    )

    async def allowed() -> bool:
        return True

    async def read_slowly() -> list[bytes]:
        events = event_stream(api.services, action.id, 0, allowed, lambda _answers, _last: None)
        assert await anext(events) == b": following\n\n"
        for _ in range(5):
            api.events.publish([change] * 20000)
        return [event async for event in events]

    try:
        assert asyncio.run(read_slowly()) == []
    finally:
        api.listener.close()
        api.database.close()


def test_a_session_that_ended_by_the_clock_is_seen_too(
    api: ApiServer, token: str, agents: list[FleetAgent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PING_S", 0.05)
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    events = api.follow(action.id, token)
    api.skew = timedelta(hours=2)
    with pytest.raises(AssertionError, match="unauthenticated"):
        list(events)
