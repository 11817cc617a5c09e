"""Logging in, and what needs a login."""

from datetime import timedelta

import pytest

from protocol.envelope import ACTION, LOGIN, Signature, encode_envelope
from tests.support.api import ApiServer
from tests.support.gpg import Investigator

ROUTES = [
    ("GET", "/api/v1/investigators", "read"),
    ("GET", "/api/v1/agents", "read"),
    ("GET", f"/api/v1/agents/{'0' * 32}", "read"),
    ("POST", "/api/v1/agents/approvals", "manage"),
    ("POST", "/api/v1/actions", "submit"),
    ("GET", "/api/v1/actions", "read"),
    ("POST", "/api/v1/actions/x/cancel", "submit"),
    ("GET", "/api/v1/actions/x", "read"),
    ("GET", "/api/v1/actions/x/commands", "read"),
    ("GET", "/api/v1/actions/x/results", "read"),
    ("GET", "/api/v1/actions/x/events", "read"),
    ("GET", "/api/v1/alerts", "read"),
    ("GET", "/api/v1/alerts/events", "read"),
    ("GET", "/api/v1/audit", "manage"),
    ("GET", "/api/v1/audit/witnesses", "manage"),
    ("GET", "/api/v1/trust", "read"),
    ("POST", "/api/v1/trust", "manage"),
]


def add(api: ApiServer, investigator: Investigator) -> None:
    api.store.add_investigator(
        investigator.fingerprint, investigator.name, investigator.public_key, ["read"], api.now()
    )


def test_a_signed_login_opens_a_session_with_the_investigators_rights(
    api: ApiServer, bob: Investigator
) -> None:
    add(api, bob)
    answer = api.try_login(bob)
    assert answer.status == 201
    assert set(answer.json) == {"token", "expires", "fingerprint", "rights"}
    assert (answer.json["fingerprint"], answer.json["rights"]) == (bob.fingerprint, ["read"])
    listed = api.ask("GET", "/api/v1/investigators", token=answer.json["token"]).json["investigators"]
    assert [(item["fingerprint"], item["name"], item["status"]) for item in listed] == [
        (bob.fingerprint, "Bob Investigator", "active")
    ]


@pytest.mark.parametrize(("method", "path", "right"), ROUTES)
def test_every_route_needs_a_session_and_its_right(
    shared_api: ApiServer, ada: Investigator, method: str, path: str, right: str
) -> None:
    for token in ("", "guess", "\xe9" * 20, "x" * 5000):
        answer = shared_api.ask(method, path, token=token)
        assert answer.refusal == (401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    others = {"read", "submit", "manage"} - {right}
    assert shared_api.ask(method, path, token=shared_api.login(ada, *others)).refusal == (403, "forbidden")


def test_every_route_that_is_not_open_on_purpose_is_tested_for_its_right(shared_api: ApiServer) -> None:
    described = shared_api.ask("GET", "/api/v1/openapi.json").json["paths"]
    secured = {
        (method.upper(), path)
        for path, item in described.items()
        for method in item
        if item[method].get("security")
    }
    assert len(secured) == len(ROUTES)
    is_open = {
        path for path, item in described.items() for method in item if not item[method].get("security")
    }
    assert is_open == {"/api/v1/health", "/api/v1/challenge", "/api/v1/session", "/agents/{platform}"}


def test_a_token_counts_in_the_header_only(api: ApiServer, token: str) -> None:
    assert api.ask("GET", "/api/v1/agents", token=token).status == 200
    assert api.ask("GET", "/api/v1/agents", token="", access_token=token).refusal == (401, "unauthenticated")
    with api.open("GET", "/api/v1/agents", Cookie=f"token={token}") as response:
        assert response.status == 401
    with api.open("GET", "/api/v1/agents", Authorization=f"Basic {token}") as response:
        assert response.status == 401


def test_a_token_is_not_kept_anywhere(api: ApiServer, token: str) -> None:
    with api.database.reading() as connection:
        dump = connection.exec_driver_sql("SELECT token_hash FROM sessions").all()
    assert token not in str(dump)


def test_a_session_ends_after_an_hour_and_when_the_investigator_is_disabled(
    api: ApiServer, ada: Investigator, token: str
) -> None:
    api.skew = timedelta(minutes=59)
    assert api.ask("GET", "/api/v1/agents", token=token).status == 200
    api.skew = timedelta(minutes=61)
    assert api.ask("GET", "/api/v1/agents", token=token).refusal == (401, "unauthenticated")
    api.skew = timedelta()
    api.store.set_investigator_status(ada.fingerprint, "disabled", api.now())
    assert api.ask("GET", "/api/v1/agents", token=token).refusal == (401, "unauthenticated")
    assert api.try_login(ada).refusal == (401, "unauthenticated")


def test_a_login_works_once(api: ApiServer, ada: Investigator) -> None:
    add(api, ada)
    body = encode_envelope(api.login_envelope(ada))
    assert api.ask("POST", "/api/v1/session", body=body).status == 201
    again = api.ask("POST", "/api/v1/session", body=body)
    assert again.refusal == (401, "unauthenticated")
    assert "challenge" in again.json["error"]["detail"]


def test_a_challenge_is_good_for_two_minutes(api: ApiServer, ada: Investigator) -> None:
    add(api, ada)
    late = encode_envelope(api.login_envelope(ada))
    api.skew = timedelta(seconds=121)
    assert api.ask("POST", "/api/v1/session", body=late).refusal == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"server": "http://127.0.0.1:1"}, "another server"),
        ({"nonce": "0" * 64}, "challenge"),
        ({"fingerprint": "F" * 40}, "another key"),
    ],
)
def test_a_login_that_means_something_else_is_refused(
    api: ApiServer, ada: Investigator, changed: dict[str, str], word: str
) -> None:
    add(api, ada)
    answer = api.try_login(ada, **changed)
    assert answer.refusal == (401, "unauthenticated")
    assert word in answer.json["error"]["detail"]


def test_a_clock_may_be_wrong_by_hours_but_not_by_days(api: ApiServer, ada: Investigator) -> None:
    add(api, ada)
    for hours, status in ((23, 201), (-23, 201), (25, 401), (-25, 401)):
        answer = api.try_login(ada, time=api.now() + timedelta(hours=hours))
        assert answer.status == status
    assert "clock" in answer.json["error"]["detail"]


def test_a_trailing_slash_is_the_same_server(api: ApiServer, ada: Investigator) -> None:
    add(api, ada)
    assert api.try_login(ada, server=f"{api.url}/").status == 201


def test_an_unknown_investigator_is_refused(api: ApiServer, ada: Investigator) -> None:
    assert api.try_login(ada).refusal == (401, "unauthenticated")


def test_a_login_that_is_not_signed_by_its_investigator_is_refused(
    api: ApiServer, ada: Investigator, bob: Investigator
) -> None:
    add(api, ada)
    login = api.login_envelope(ada)
    [signature] = login.signatures
    foreign = login._replace(signatures=(signature._replace(sig=bob.sign_bytes(login.signed_bytes)),))
    assert api.ask("POST", "/api/v1/session", body=encode_envelope(foreign)).refusal == (403, "bad-signature")
    nobody = login._replace(signatures=())
    assert api.ask("POST", "/api/v1/session", body=encode_envelope(nobody)).refusal == (
        401,
        "unauthenticated",
    )
    twice = login._replace(signatures=(signature, signature))
    assert api.ask("POST", "/api/v1/session", body=encode_envelope(twice)).refusal == (401, "unauthenticated")
    hostile = login._replace(signatures=(Signature("\0'; DROP TABLE sessions", b"x"),))
    assert api.ask("POST", "/api/v1/session", body=encode_envelope(hostile)).refusal == (
        401,
        "unauthenticated",
    )


def test_a_signed_action_is_no_login(api: ApiServer, ada: Investigator) -> None:
    add(api, ada)
    action = api.login_envelope(ada)._replace(payload_type=ACTION)
    assert api.ask("POST", "/api/v1/session", body=encode_envelope(action)).refusal == (400, "wrong-type")
    resigned = ada.sign(ACTION, action.payload)._replace(payload_type=LOGIN)
    assert api.ask("POST", "/api/v1/session", body=encode_envelope(resigned)).refusal == (
        403,
        "bad-signature",
    )


def test_a_large_login_is_refused_before_it_is_read(shared_api: ApiServer) -> None:
    assert shared_api.ask("POST", "/api/v1/session", body=b"[" * 20000).refusal == (413, "too-large")
