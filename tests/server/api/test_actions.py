"""Submitting actions and reading what became of them."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest

from protocol.action import Action, encode_action
from protocol.envelope import ACTION, LOGIN, MAX_ENVELOPE_BYTES, Envelope, encode_envelope
from tests.support.api import Answer, ApiServer
from tests.support.fleet import FleetAgent, create, make_action
from tests.support.gpg import Investigator


def submit(api: ApiServer, token: str, envelope: Envelope | bytes) -> Answer:
    body = envelope if isinstance(envelope, bytes) else encode_envelope(envelope)
    return api.ask("POST", "/api/v1/actions", token=token, body=body)


def sign(investigator: Investigator, action: Action) -> Envelope:
    return investigator.sign(ACTION, encode_action(action))


def changed(action: Action, **members: Any) -> bytes:
    """Return the payload of an action with members that no action may have."""
    return json.dumps({**json.loads(encode_action(action)), **members}).encode()


def test_a_signed_action_is_stored_and_the_scheduler_is_woken(
    api: ApiServer, token: str, ada: Investigator
) -> None:
    FleetAgent(api.store, now=api.now())
    action = make_action(now=api.now())
    envelope = sign(ada, action)
    answer = submit(api, token, envelope)
    assert (answer.status, answer.json) == (202, {"id": action.id, "commands": 1, "new": True})
    assert api.was_woken()
    shown = api.ask("GET", f"/api/v1/actions/{action.id}", token=token).json
    assert shown["envelope"] == json.loads(encode_envelope(envelope))
    assert {name: shown[name] for name in ("status", "signers", "submitter", "counts", "digest")} == {
        "status": "active",
        "signers": [ada.fingerprint],
        "submitter": ada.fingerprint,
        "counts": {"pending": 1},
        "digest": envelope.digest,
    }
    [pending] = api.store.pending_commands(api.now(), 10)
    assert pending.body == encode_envelope(envelope)


def test_the_same_bytes_again_change_nothing(api: ApiServer, token: str, ada: Investigator) -> None:
    FleetAgent(api.store, now=api.now())
    envelope = sign(ada, make_action(now=api.now()))
    first = submit(api, token, envelope).json
    assert api.was_woken()
    api.skew = timedelta(minutes=10)
    again = submit(api, token, envelope)
    assert (again.status, again.json) == (200, {"id": first["id"], "commands": 0, "new": False})
    assert not api.was_woken()


def test_the_same_id_with_another_payload_is_a_conflict(
    api: ApiServer, token: str, ada: Investigator
) -> None:
    FleetAgent(api.store, now=api.now())
    action = make_action(now=api.now())
    submit(api, token, sign(ada, action))
    other = ada.sign(ACTION, changed(action, name="other"))
    assert submit(api, token, other).refusal == (409, "conflict")


def test_two_investigators_sign_one_action(
    api: ApiServer, token: str, ada: Investigator, bob: Investigator
) -> None:
    api.login(bob, "read")
    FleetAgent(api.store, now=api.now())
    action = make_action(now=api.now())
    envelope = sign(ada, action)
    both = envelope._replace(signatures=envelope.signatures + sign(bob, action).signatures)
    assert submit(api, token, both).status == 202
    shown = api.ask("GET", f"/api/v1/actions/{action.id}", token=token).json
    assert shown["signers"] == sorted([ada.fingerprint, bob.fingerprint])


def test_a_signer_without_the_right_to_submit_is_not_enough(
    api: ApiServer, token: str, ada: Investigator, bob: Investigator
) -> None:
    api.login(bob, "read")
    FleetAgent(api.store, now=api.now())
    assert submit(api, token, sign(bob, make_action(now=api.now()))).refusal == (403, "forbidden")


def test_signatures_that_do_not_count_are_refused(
    api: ApiServer, token: str, ada: Investigator, bob: Investigator
) -> None:
    FleetAgent(api.store, now=api.now())
    action = make_action(now=api.now())
    good = sign(ada, action)
    unknown = sign(bob, action)
    assert submit(api, token, good._replace(signatures=())).refusal == (403, "unsigned")
    assert submit(api, token, unknown).refusal == (403, "bad-signature")
    assert submit(api, token, good._replace(signatures=good.signatures + unknown.signatures)).refusal == (
        403,
        "bad-signature",
    )
    assert submit(api, token, good._replace(payload=changed(action, name="x"))).refusal == (
        403,
        "bad-signature",
    )
    [signature] = good.signatures
    short = signature._replace(keyid=ada.fingerprint[-16:])
    assert submit(api, token, good._replace(signatures=(short,))).refusal == (403, "bad-signature")
    assert api.ask("GET", "/api/v1/actions", token=token).json == {"total": 0, "actions": []}


@pytest.mark.parametrize(
    ("ahead_s", "code"),
    [(600, "expired"), (300, "expired"), (-61, "not-yet-valid")],
)
def test_an_action_outside_of_its_validity_is_refused(
    api: ApiServer, token: str, ada: Investigator, ahead_s: int, code: str
) -> None:
    FleetAgent(api.store, now=api.now())
    envelope = sign(ada, make_action(now=api.now() - timedelta(seconds=ahead_s)))
    assert submit(api, token, envelope).refusal == (403, code)


def test_an_action_that_is_valid_for_ever_is_refused(api: ApiServer, token: str, ada: Investigator) -> None:
    FleetAgent(api.store, now=api.now())
    envelope = sign(ada, make_action(now=api.now(), minutes=60 * 24 * 32))
    assert submit(api, token, envelope).refusal == (403, "validity-too-long")


def test_an_action_for_nobody_is_refused(api: ApiServer, token: str, ada: Investigator) -> None:
    FleetAgent(api.store, now=api.now(), policy="approval")
    envelope = sign(ada, make_action(now=api.now()))
    answer = submit(api, token, envelope)
    assert answer.refusal == (404, "no-agents")
    assert "os = 'linux'" in answer.json["error"]["detail"]
    FleetAgent(api.store, now=api.now())
    assert submit(api, token, envelope).status == 202


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"target": "os ="}, "bad-target"),
        ({"target": "name ~ '('"}, "bad-target"),
        ({"operations": []}, "bad-action"),
        ({"schedule": "daily"}, "bad-action"),
        ({"syntaxversion": 3}, "bad-action"),
        ({"id": str(uuid.uuid4()).upper()}, "bad-action"),
        ({"name": "a\0b"}, "bad-action"),
        ({"name": "a\ud800b"}, "bad-json"),
        ({"name": float("nan")}, "bad-json"),
        ({"operations": [{"module": "file", "parameters": 1 << 70}]}, "bad-json"),
    ],
)
def test_a_signed_payload_that_is_no_action_is_refused(
    shared_api: ApiServer, shared_token: str, ada: Investigator, members: dict[str, Any], code: str
) -> None:
    FleetAgent(shared_api.store, now=shared_api.now())
    envelope = ada.sign(ACTION, changed(make_action(now=shared_api.now()), **members))
    assert submit(shared_api, shared_token, envelope).refusal == (400, code)


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"", (400, "bad-json")),
        (b"\xff\xfe", (400, "bad-json")),
        (b"[" * 100_000, (400, "bad-json")),
        (b'{"payloadType":"a","payloadType":"b"}', (400, "bad-json")),
        (b'{"payloadType":NaN}', (400, "bad-json")),
        (b"{}", (400, "bad-envelope")),
        (b'{"payloadType":"x","payload":"","signatures":[]}', (400, "wrong-type")),
        (b" " * (MAX_ENVELOPE_BYTES + 1), (413, "too-large")),
    ],
)
def test_a_body_that_is_no_envelope_is_refused_with_its_code(
    shared_api: ApiServer, shared_token: str, body: bytes, refusal: tuple[int, str]
) -> None:
    assert submit(shared_api, shared_token, body).refusal == refusal


def test_a_login_is_no_action(shared_api: ApiServer, shared_token: str, ada: Investigator) -> None:
    action = make_action(now=shared_api.now())
    assert submit(shared_api, shared_token, ada.sign(LOGIN, encode_action(action))).refusal == (
        400,
        "wrong-type",
    )


def test_a_hundred_megabytes_without_a_length_are_cut_off(shared_api: ApiServer, shared_token: str) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * (1 << 20)

    try:
        with shared_api.open("POST", "/api/v1/actions", body=endless(), token=shared_token) as response:
            assert response.status == 413
    except (BrokenPipeError, ConnectionResetError):
        assert sent < 100
    assert shared_api.ask("GET", "/api/v1/health").status == 200


def test_actions_are_listed_with_their_status(api: ApiServer, token: str) -> None:
    agents = [FleetAgent(api.store, f"web{number}", now=api.now()) for number in range(2)]
    active, done, expired = (make_action(name=name, now=api.now()) for name in ("active", "done", "expired"))
    for action in (active, done, expired):
        create(api.store, action, *agents, now=api.now())
    api.store.save_results([agent.answer(done) for agent in agents], api.now())
    api.store.save_results([agents[0].answer(expired)], api.now())
    api.store.save_results([agents[0].answer(active)], api.now())
    with api.database.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE commands SET state = 'expired' WHERE state = 'pending' AND action_id = ?", (expired.id,)
        )
    page = api.ask("GET", "/api/v1/actions", token=token).json
    assert {item["name"]: item["status"] for item in page["actions"]} == {
        "active": "active",
        "done": "done",
        "expired": "expired",
    }
    assert (
        api.ask("GET", "/api/v1/actions", token=token, limit=1, offset=2).json["actions"][0]["name"]
        == "active"
    )


def test_the_roster_says_why_a_command_did_not_run(api: ApiServer, token: str) -> None:
    agent = FleetAgent(api.store, now=api.now())
    action = make_action(now=api.now())
    create(api.store, action, agent, now=api.now())
    problem = {"code": "not-targeted", "step": 7, "detail": "os is linux"}
    api.store.save_results([agent.answer(action, status="refused", problem=problem, results=[])], api.now())
    [line] = api.ask("GET", f"/api/v1/actions/{action.id}/commands", token=token).json["commands"]
    assert line.pop("updated")
    assert line == {
        "id": agent.command(action),
        "agent": agent.id,
        "agent_name": "web1",
        "state": "refused",
        "problem": problem,
        "occurrence": "",
        "wave": 1,
        "progress": None,
    }


def test_answers_are_read_page_by_page_as_the_agents_signed_them(api: ApiServer, token: str) -> None:
    agents = [FleetAgent(api.store, f"web{number}", now=api.now()) for number in range(3)]
    action = make_action(now=api.now())
    create(api.store, action, *agents, now=api.now())
    answers = [agent.answer(action) for agent in agents]
    api.store.save_results(answers, api.now())
    path = f"/api/v1/actions/{action.id}/results"
    first = api.ask("GET", path, token=token, limit=2).json
    assert [item["agent_name"] for item in first["results"]] == ["web0", "web1"]
    assert first["results"][0]["envelope"] == json.loads(answers[0].envelope_bytes)
    second = api.ask("GET", path, token=token, limit=2, after=first["next"]).json
    assert [item["agent_name"] for item in second["results"]] == ["web2"]
    assert second["next"] is None
    assert api.ask("GET", path, token=token, after=1 << 62).json == {"results": [], "next": None}


@pytest.mark.parametrize("ident", ["x", "0" * 36, "%00", "..", "%F0%9F%98%80" * 9, "a" * 3000])
@pytest.mark.parametrize("part", ["", "/commands", "/results", "/events"])
def test_an_action_that_is_not_there_is_not_found(
    shared_api: ApiServer, shared_token: str, ident: str, part: str
) -> None:
    assert shared_api.ask("GET", f"/api/v1/actions/{ident}{part}", token=shared_token).refusal == (
        404,
        "not-found",
    )


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"offset": -1}, {"offset": 1 << 70}]
)
def test_a_page_that_makes_no_sense_is_refused(
    shared_api: ApiServer, shared_token: str, query: dict[str, Any]
) -> None:
    answer = shared_api.ask("GET", "/api/v1/actions", token=shared_token, **query)
    assert answer.refusal == (400, "usage")
    assert next(iter(query)) in answer.json["error"]["detail"]
