"""The audit log over HTTP: who asked and who read, in a chain that anybody can check."""

import json
import time
from datetime import timedelta

import pytest

from protocol.audit import Chain, Entry
from server import throttle
from tests.support.api import TIMEOUT_S, ApiServer
from tests.support.fleet import FleetAgent, create, make_action
from tests.support.gpg import Investigator


@pytest.fixture
def auditor(api: ApiServer, bob: Investigator) -> str:
    """The token of a session of Bob, who may manage and nothing else."""
    return api.login(bob, "manage")


def read_log(api: ApiServer, auditor: str) -> list[Entry]:
    """Return the log as the API gives it, checked."""
    chain, entries = Chain(), []
    after: int | None = 0
    while after is not None:
        page = api.ask("GET", "/api/v1/audit", token=auditor, after=after, limit=3).json
        entries += [chain.add(text.encode()) for text in page["entries"]]
        after = page["next"]
    chain.require_complete()
    assert chain.head._asdict() == page["head"]
    return entries


def reads(api: ApiServer, auditor: str) -> list[dict[str, object]]:
    """Return what the log says of readers."""
    return [entry.what for entry in read_log(api, auditor) if entry.kind == "read"]


def test_the_log_is_given_page_by_page_as_it_was_hashed(api: ApiServer, auditor: str, token: str) -> None:
    FleetAgent(api.store, now=api.now())
    kinds = [entry.kind for entry in read_log(api, auditor)]
    assert kinds == ["investigator", "login", "investigator", "login", "enrolment"]
    assert read_log(api, auditor)[1].what == {"address": "127.0.0.1"}


def test_reading_answers_is_recorded_with_who_and_how_many(
    api: ApiServer, auditor: str, token: str, ada: Investigator
) -> None:
    agents = [FleetAgent(api.store, f"web{number}", now=api.now()) for number in range(3)]
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    path = f"/api/v1/actions/{action.id}/results"
    api.ask("GET", path, token=token)
    assert reads(api, auditor) == []
    api.store.save_results([agent.answer(action) for agent in agents], api.now())
    api.ask("GET", path, token=token, limit=2)
    [entry] = [entry for entry in read_log(api, auditor) if entry.kind == "read"]
    assert entry.who == (ada.fingerprint,)
    assert entry.what == {"action": action.id, "answers": 2, "after": 0, "last": 2}


def test_following_is_recorded_before_anything_is_given_and_counted_afterwards(
    api: ApiServer, auditor: str, token: str
) -> None:
    agent = FleetAgent(api.store, now=api.now())
    action = make_action(now=api.now())
    create(api.store, action, agent, now=api.now())
    with api.open("GET", f"/api/v1/actions/{action.id}/events", token=token) as response:
        assert response.readline() == b": following\n"
        assert reads(api, auditor) == [{"action": action.id, "follows": True, "after": 0}]
        api.publish(api.store.save_results([agent.answer(action)], api.now()))
        response.read()
    deadline = time.monotonic() + TIMEOUT_S
    while len(reads(api, auditor)) < 2:
        assert time.monotonic() < deadline
    assert reads(api, auditor)[1] == {"action": action.id, "answers": 1, "after": 0, "last": 1}


def test_witnesses_are_the_heartbeats_as_agents_signed_them(api: ApiServer, auditor: str) -> None:
    agent = FleetAgent(api.store, now=api.now())
    first, second = (
        agent.heartbeat(api.now() + timedelta(minutes=later), log_head=(length, "a" * 64))
        for later, length in ((0, 9), (1, 4))
    )
    for heartbeat in (first, second):
        api.store.save_witnesses([(heartbeat, agent.signed(heartbeat))], api.now())
    page = api.ask("GET", "/api/v1/audit/witnesses", token=auditor, limit=1).json
    [witness] = page["witnesses"]
    assert (witness["agent"], witness["agent_name"]) == (agent.id, "web1")
    assert witness["envelope"] == json.loads(agent.signed(second))
    assert witness["earlier"] == json.loads(agent.signed(first))
    assert witness["contradiction"] == [witness["earlier"], witness["envelope"]]
    assert page["next"] == agent.id
    behind = api.ask("GET", "/api/v1/audit/witnesses", token=auditor, after=agent.id).json
    assert behind == {"witnesses": [], "next": None}


def test_who_asks_too_often_for_a_login_is_told_when_to_come_again(api: ApiServer, ada: Investigator) -> None:
    answers = [api.ask("POST", "/api/v1/challenge") for _ in range(throttle.BURST + 10)]
    limited = [answer for answer in answers if answer.status == 429]
    assert limited
    assert answers[0].status == 201
    assert limited[0].refusal == (429, "rate-limited")
    assert int(limited[0].headers["Retry-After"]) >= 1


def test_logins_that_fail_in_one_name_are_limited_wherever_they_come_from(
    api: ApiServer, ada: Investigator
) -> None:
    api.login(ada, "read")
    sessions = api.uvicorn.config.app.state.sessions  # type: ignore[union-attr]
    for _ in range(throttle.BURST + 1):
        sessions._by_fingerprint.count(ada.fingerprint)
    answer = api.try_login(ada)
    assert answer.refusal == (429, "rate-limited")
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    "path", ["/api/v1/health", "/api/v1/agents", "/api/v1/docs", "/nowhere", "/agents/x"]
)
def test_every_answer_tells_browsers_to_run_frame_and_keep_nothing(shared_api: ApiServer, path: str) -> None:
    headers = shared_api.ask("GET", path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
