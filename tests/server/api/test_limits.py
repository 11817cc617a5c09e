"""How many agents an action may reach."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.action import encode_action
from protocol.envelope import ACTION, encode_envelope
from tests.support.api import ApiServer, api_server
from tests.support.fleet import FleetAgent, make_action
from tests.support.gpg import Investigator


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    """An API that lets an action reach two agents."""
    with api_server(tmp_path, max_agents=2) as server:
        yield server


def test_an_action_for_more_agents_than_allowed_is_refused_unless_it_is_meant_for_all(
    api: ApiServer, token: str, ada: Investigator
) -> None:
    for name in ("web1", "web2", "web3"):
        FleetAgent(api.store, name, now=api.now())
    page = api.ask("GET", "/api/v1/agents", token=token, target="os = 'linux'").json
    assert (page["total"], page["max_agents"]) == (3, 2)
    action = make_action(now=api.now())
    body = encode_envelope(ada.sign(ACTION, encode_action(action)))
    refused = api.ask("POST", "/api/v1/actions", token=token, body=body)
    assert refused.refusal == (403, "too-many-agents")
    said = refused.json["error"]["detail"]
    assert said.startswith("3 agents match, at most 2 are asked")
    assert "--all-agents" in said
    assert "all=true" in said
    assert api.store.get_action(action.id) is None
    taken = api.ask("POST", "/api/v1/actions?all=true", token=token, body=body)
    assert (taken.status, taken.json["commands"]) == (202, 3)
    again = api.ask("POST", "/api/v1/actions", token=token, body=body)
    assert (again.status, again.json["new"]) == (200, False)
    entries, _ = api.store.list_audit(0, 100)
    [said] = [entry for entry in (json.loads(data) for _, data in entries) if entry["kind"] == "action"]
    assert said["what"]["all_agents"] is True


def test_as_many_agents_as_allowed_are_asked_without_a_word(
    api: ApiServer, token: str, ada: Investigator
) -> None:
    for name in ("web1", "web2"):
        FleetAgent(api.store, name, now=api.now())
    body = encode_envelope(ada.sign(ACTION, encode_action(make_action(now=api.now()))))
    assert api.ask("POST", "/api/v1/actions", token=token, body=body).status == 202
    entries, _ = api.store.list_audit(0, 100)
    assert b"all_agents" not in b"".join(data for _, data in entries)
