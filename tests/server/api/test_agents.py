"""Agents over the API."""

import base64
from typing import Any

import pytest

from tests.support.api import ApiServer
from tests.support.fleet import FleetAgent


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
    }


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
