"""Cancelling over the API: who may, what, and what becomes of it."""

import json
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from protocol.action import Action, encode_action
from protocol.cancel import Cancel, encode_cancel
from protocol.envelope import ACTION, CANCEL, Envelope, encode_envelope
from protocol.schedule import Schedule
from tests.support.api import Answer, ApiServer
from tests.support.fleet import FleetAgent, make_action
from tests.support.gpg import Investigator


def submit(api: ApiServer, token: str, signer: Investigator, action: Action) -> Envelope:
    envelope = signer.sign(ACTION, encode_action(action))
    answer = api.ask("POST", "/api/v1/actions", token=token, body=encode_envelope(envelope))
    assert answer.status == 202, answer.body
    return envelope


def cancel(
    api: ApiServer, token: str, signer: Investigator, action: Action, envelope: Envelope, /, **changes: Any
) -> Answer:
    members = {
        "action": action.id,
        "action_sha256": envelope.digest,
        "expireafter": action.expireafter,
        "time": api.now(),
        **changes,
    }
    body = encode_envelope(signer.sign(CANCEL, encode_cancel(Cancel(**members))))
    return api.ask("POST", f"/api/v1/actions/{action.id}/cancel", token=token, body=body)


def test_a_signer_cancels_what_waits(api: ApiServer, token: str, ada: Investigator) -> None:
    agent = FleetAgent(api.store, now=api.now())
    action = make_action(now=api.now())
    envelope = submit(api, token, ada, action)
    answer = cancel(api, token, ada, action, envelope)
    assert (answer.status, answer.json) == (202, {"id": action.id, "cancelled": 1, "agents": 1})
    assert api.was_woken()
    shown = api.ask("GET", f"/api/v1/actions/{action.id}", token=token).json
    assert (shown["status"], shown["counts"]) == ("cancelled", {"cancelled": 1})
    assert datetime.fromisoformat(shown["cancelled"]) <= api.now()
    (unsent,) = api.store.cancels_to_send(api.now())
    assert unsent.agent_ids == (agent.id,)
    again = cancel(api, token, ada, action, envelope)
    assert (again.status, again.json["cancelled"]) == (202, 0)


def test_a_recurring_action_is_cancelled_for_all_whom_it_means(
    api: ApiServer, token: str, ada: Investigator
) -> None:
    agent = FleetAgent(api.store, now=api.now())
    action = msgspec.structs.replace(
        make_action(now=api.now(), minutes=7200), schedule=Schedule(cron="0 3 * * *", grace_s=600)
    )
    envelope = submit(api, token, ada, action)
    shown = api.ask("GET", f"/api/v1/actions/{action.id}", token=token).json
    assert (shown["status"], shown["counts"], shown["occurrence"]) == ("active", {}, "")
    assert shown["next_start"]
    assert cancel(api, token, ada, action, envelope).json["agents"] == 1
    (unsent,) = api.store.cancels_to_send(api.now())
    assert unsent.agent_ids == (agent.id,)
    assert api.store.next_start() is None


def test_a_recurring_action_may_mean_nobody_yet(api: ApiServer, token: str, ada: Investigator) -> None:
    action = msgspec.structs.replace(
        make_action(now=api.now(), minutes=7200, target="name = 'not there yet'"),
        schedule=Schedule(every_s=3600, grace_s=600),
    )
    submit(api, token, ada, action)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"action_sha256": "0" * 64}, (409, "conflict")),
        ({"action": "018f0000-0000-7000-8000-000000000000"}, (409, "conflict")),
        ({"expireafter": datetime.fromisoformat("2026-01-01T00:00:00+00:00")}, (409, "conflict")),
    ],
)
def test_a_cancel_of_something_else_is_refused(
    changes: dict[str, Any], refusal: tuple[int, str], api: ApiServer, token: str, ada: Investigator
) -> None:
    FleetAgent(api.store, now=api.now())
    action = make_action(now=api.now())
    envelope = submit(api, token, ada, action)
    assert cancel(api, token, ada, action, envelope, **changes).refusal == refusal


def test_who_did_not_sign_the_action_may_not_cancel_it(
    api: ApiServer, token: str, ada: Investigator, bob: Investigator
) -> None:
    FleetAgent(api.store, now=api.now())
    action = make_action(now=api.now())
    envelope = submit(api, token, ada, action)
    api.store.add_investigator(bob.fingerprint, "Bob", bob.public_key, ("read", "submit"), api.now())
    assert cancel(api, token, bob, action, envelope).refusal == (403, "forbidden")


def test_an_action_is_no_cancel_and_what_is_over_cannot_be_cancelled(
    api: ApiServer, token: str, ada: Investigator
) -> None:
    FleetAgent(api.store, now=api.now())
    action = make_action(now=api.now())
    envelope = submit(api, token, ada, action)
    path = f"/api/v1/actions/{action.id}/cancel"
    answer = api.ask("POST", path, token=token, body=encode_envelope(envelope))
    assert answer.refusal == (400, "wrong-type")
    api.skew = timedelta(minutes=10)
    assert cancel(api, token, ada, action, envelope, time=api.now() - timedelta(minutes=10)).refusal == (
        403,
        "expired",
    )
    body = json.dumps({}).encode()
    missing = "/api/v1/actions/018f0000-0000-7000-8000-000000000000/cancel"
    assert api.ask("POST", missing, token=token, body=body).refusal == (404, "not-found")
