"""Agents over the API."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from protocol.approval import Approval, encode_approval
from protocol.envelope import ACTION, APPROVAL, encode_envelope
from tests.support.api import ApiServer
from tests.support.fleet import FleetAgent
from tests.support.gpg import Investigator


def test_agents_are_shown_with_everything_that_a_client_needs(api: ApiServer, token: str) -> None:
    agent = FleetAgent(api.store, "h\u202eost\x1b[2J", now=api.now())
    shown = api.ask("GET", f"/api/v1/agents/{agent.id}", token=token).json
    assert base64.b64decode(shown.pop("public_key")) == agent.public_key
    assert shown.pop("heartbeattime")
    assert shown.pop("enrolled")
    assert shown == {
        "id": agent.id,
        "name": "h\u202eost\x1b[2J",
        "os": "linux",
        "arch": "amd64",
        "ident": "Debian 12",
        "version": "0.1.0",
        "status": "online",
        "clock_skew_s": 0.0,
        "tags": {"operator": "it"},
        "environment": {"init": "systemd"},
        "modules": ["agentinfo", "file"],
        "enrolled_by": "open",
        "peer": "",
        "duplicate": False,
        "warnings": [],
        "trust_version": None,
        "trust_expires": None,
        "trust_state": None,
    }


def test_two_agents_of_one_name_are_shown_as_such_for_a_day(api: ApiServer, token: str) -> None:
    first, second = (FleetAgent(api.store, "web1", now=api.now()) for _ in range(2))
    alone = FleetAgent(api.store, "web2", now=api.now())
    FleetAgent(api.store, "web2", now=api.now() - timedelta(days=2))
    found = api.ask("GET", "/api/v1/agents", token=token).json["agents"]
    warnings = {agent["id"]: agent["warnings"] for agent in found}
    assert warnings[first.id] == [f"the name web1 is also that of {second.id}"]
    assert warnings[second.id] == [f"the name web1 is also that of {first.id}"]
    assert warnings[alone.id] == []


def test_two_processes_under_one_id_are_shown_with_what_tells_them_apart(api: ApiServer, token: str) -> None:
    agent = FleetAgent(api.store, "web1", now=api.now())
    now = api.now()
    for seconds, name, started in ((1, "web1", 1), (2, "web2", 2), (3, "web1", 1)):
        heartbeat = agent.heartbeat(
            now + timedelta(seconds=seconds),
            name=name,
            started=now + timedelta(seconds=started),
            environment={"addresses": f"10.0.0.{started}/24"},
        )
        api.store.save_heartbeat(heartbeat, now)
    shown = api.ask("GET", f"/api/v1/agents/{agent.id}", token=token).json
    assert shown["duplicate"]
    [warning] = shown["warnings"]
    assert warning.startswith("two agents run under this id: web2 at 10.0.0.2/24, started ")
    assert " and web1 at 10.0.0.1/24, started " in warning


def decision(api: ApiServer, signer: Investigator, *agents: FleetAgent, **changed: Any) -> bytes:
    """Return a signed decision."""
    members = {
        "server": api.url,
        "decision": "revoke",
        "agents": tuple(agent.id for agent in agents),
        "time": api.now(),
    }
    payload = encode_approval(Approval(**{**members, **changed}))
    return encode_envelope(signer.sign(APPROVAL, payload))


def test_a_signed_decision_revokes_and_approves_and_an_old_one_counts_no_more(
    api: ApiServer, ada: Investigator
) -> None:
    token = api.login(ada, "manage")
    agent = FleetAgent(api.store, "web1", now=api.now())
    unknown = "0" * 32

    def post(body: bytes) -> Any:
        answer = api.ask("POST", "/api/v1/agents/approvals", token=token, body=body)
        assert answer.status == 200, answer.body
        return answer.json

    approval = decision(api, ada, agent, decision="approve")
    assert post(approval)["done"] == [agent.id]
    revocation = decision(api, ada, agents=(agent.id, unknown))
    assert post(revocation) == {
        "decision": "revoke",
        "done": [agent.id],
        "unknown": [unknown],
        "stale": [],
        "problem": "",
    }
    assert api.shut_out == [agent.id]
    assert post(revocation)["done"] == [agent.id]
    assert post(approval)["stale"] == [agent.id]
    row = api.store.get_agent(agent.id)
    assert row is not None
    assert (row.enrolment, row.enrolled_by) == ("revoked", ada.fingerprint)
    assert post(decision(api, ada, agent, decision="approve"))["done"] == [agent.id]


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"server": "https://other.example"}, (403, "forbidden")),
        ({"time": datetime.now(UTC) - timedelta(days=2)}, (403, "expired")),
        ({"time": datetime.now(UTC) + timedelta(hours=1)}, (403, "not-yet-valid")),
    ],
    ids=["another server", "old", "ahead"],
)
def test_a_decision_that_is_not_meant_here_and_now_is_refused(
    api: ApiServer, ada: Investigator, changed: dict[str, Any], refusal: Any
) -> None:
    token = api.login(ada, "manage")
    agent = FleetAgent(api.store, "web1", now=api.now())
    body = decision(api, ada, agent, **changed)
    assert api.ask("POST", "/api/v1/agents/approvals", token=token, body=body).refusal == refusal


def test_a_decision_by_somebody_who_may_not_manage_is_refused(
    api: ApiServer, ada: Investigator, bob: Investigator
) -> None:
    api.login(bob, "read", "submit")
    token = api.login(ada, "manage")
    agent = FleetAgent(api.store, "web1", now=api.now())
    body = decision(api, bob, agent)
    assert api.ask("POST", "/api/v1/agents/approvals", token=token, body=body).refusal == (403, "forbidden")
    row = api.store.get_agent(agent.id)
    assert row is not None
    assert row.enrolment == "enrolled"


def test_nothing_else_that_was_signed_passes_for_a_decision(api: ApiServer, ada: Investigator) -> None:
    token = api.login(ada, "manage")
    body = encode_envelope(ada.sign(ACTION, b"{}"))
    refusal = api.ask("POST", "/api/v1/agents/approvals", token=token, body=body).refusal
    assert refusal == (400, "wrong-type")


def test_a_target_is_previewed_as_endpoints_enforce_it(api: ApiServer, token: str) -> None:
    for name in ("web1", "web2", "db1"):
        FleetAgent(api.store, name, now=api.now())
    FleetAgent(api.store, "web3", now=api.now(), policy="approval")
    target = "agents.name LIKE 'web%' AND status = 'online'"
    page = api.ask("GET", "/api/v1/agents", token=token, target=target, limit=1).json
    assert (page["total"], page["enforced"]) == (2, "name LIKE 'web%'")
    assert [agent["name"] for agent in page["agents"]] == ["web1"]
    everyone = api.ask("GET", "/api/v1/agents", token=token).json
    assert (everyone["total"], everyone["enforced"]) == (4, "TRUE")


@pytest.mark.parametrize(
    "target", ["", "os =", "nonsense", "1=1; DROP TABLE agents", "x" * 40000, "name = 'a\0b"]
)
def test_a_target_that_is_none_is_refused(shared_api: ApiServer, shared_token: str, target: str) -> None:
    answer = shared_api.ask("GET", "/api/v1/agents", token=shared_token, target=target)
    assert answer.refusal in {(400, "bad-target"), (400, "usage")}


@pytest.mark.parametrize("ident", ["0" * 32, "x", "%00", "0" * 32 + "%0a", "\u0665" * 4])
def test_an_agent_that_is_not_there_is_not_found(
    shared_api: ApiServer, shared_token: str, ident: Any
) -> None:
    path = "/api/v1/agents/" + "".join(c if ord(c) < 128 else "%D9%A5" for c in ident)
    assert shared_api.ask("GET", path, token=shared_token).refusal == (404, "not-found")
