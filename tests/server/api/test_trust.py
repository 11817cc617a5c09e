"""Trust bundles over the API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.envelope import ACTION, encode_envelope
from tests.support.api import ApiServer
from tests.support.endpoint import make_bundle, sign_bundle
from tests.support.gpg import Investigator, temporary_investigator

PATH = "/api/v1/trust"


@pytest.fixture
def manager(api: ApiServer, ada: Investigator) -> str:
    """The token of a session of Ada, who may manage."""
    return api.login(ada, "read", "manage")


def test_a_bundle_is_published_once_fetched_as_it_was_signed_and_wakes_who_sends_it(
    api: ApiServer, manager: str, ada: Investigator, bob: Investigator
) -> None:
    assert api.ask("GET", PATH, token=manager).refusal == (404, "not-found")
    body = sign_bundle(make_bundle(1, ada), bob)
    answer = api.ask("POST", PATH, token=manager, body=body)
    assert (answer.status, answer.json) == (202, {"version": 1, "new": True})
    again = api.ask("POST", PATH, token=manager, body=body)
    assert (again.status, again.json) == (200, {"version": 1, "new": False})
    stored = api.ask("GET", PATH, token=manager)
    assert stored.json["version"] == 1
    assert stored.json["publisher"] == ada.fingerprint
    newest = api.store.newest_trust()
    assert newest is not None
    assert newest.envelope == body


def test_publishing_takes_the_right_to_manage(
    api: ApiServer, token: str, ada: Investigator, bob: Investigator
) -> None:
    body = sign_bundle(make_bundle(1, ada), bob)
    assert api.ask("POST", PATH, token=token, body=body).refusal == (403, "forbidden")
    assert api.ask("POST", PATH, body=body).refusal == (401, "unauthenticated")
    assert api.ask("GET", PATH).refusal == (401, "unauthenticated")


def test_what_no_agent_could_use_is_refused(
    api: ApiServer, manager: str, ada: Investigator, bob: Investigator
) -> None:
    good = make_bundle(2, ada)
    swapped = make_bundle(3, ada)
    swapped["investigators"][0]["certificate"] = bob.public_key.decode()
    assert api.ask("POST", PATH, token=manager, body=sign_bundle(good, bob)).status == 202
    for body, status, code in (
        (b"", 400, "bad-json"),
        (b"{}", 400, "bad-envelope"),
        (encode_envelope(ada.sign(ACTION, b"{}")), 400, "wrong-type"),
        (sign_bundle(make_bundle(3, ada)), 403, "unsigned"),
        (sign_bundle({"version": 3}, bob), 400, "bad-trust"),
        (sign_bundle(swapped, bob), 400, "bad-trust"),
        (sign_bundle(make_bundle(3, ada, expires_s=-1), bob), 403, "trust-expired"),
        (sign_bundle(make_bundle(1, ada), bob), 409, "stale-trust"),
        (sign_bundle(make_bundle(2, ada, bob), bob), 409, "stale-trust"),
    ):
        assert api.ask("POST", PATH, token=manager, body=body).refusal == (status, code)


def test_a_version_that_can_only_be_a_mistake_is_refused(
    api: ApiServer, manager: str, ada: Investigator, bob: Investigator
) -> None:
    """An agent that took the highest version would never take another bundle."""

    def publish(version: int) -> Any:
        body = sign_bundle(make_bundle(version, ada), bob)
        return api.ask("POST", PATH, token=manager, body=body)

    assert publish(1001).refusal == (409, "trust-gap")
    assert publish(1000).status == 202
    assert publish(2001).refusal == (409, "trust-gap")
    assert publish(2**31 - 1).refusal == (409, "trust-gap")
    assert publish(2000).status == 202


@pytest.fixture
def rita() -> Iterator[Investigator]:
    """A holder of a root key."""
    with temporary_investigator("Rita Root") as investigator:
        yield investigator


def know_roots(api: ApiServer, directory: Path, *roots: Investigator, threshold: int = 1) -> None:
    """Tell the server who the roots are."""
    directory.mkdir(exist_ok=True)
    for root in roots:
        (directory / f"{root.fingerprint}.asc").write_bytes(root.public_key)
    config = msgspec.structs.replace(
        api.services.config, trust_roots=str(directory), trust_threshold=threshold
    )
    object.__setattr__(api.services, "config", config)


def test_a_server_that_knows_the_roots_takes_nothing_that_no_agent_would(
    api: ApiServer, manager: str, ada: Investigator, rita: Investigator, tmp_path: Path
) -> None:
    """Who may manage cannot put a bundle of their own in the way, nor other signatures under a good one."""
    know_roots(api, tmp_path / "roots", rita)
    good = make_bundle(2, ada)
    published = sign_bundle(good, rita)
    assert api.ask("POST", PATH, token=manager, body=published).status == 202
    for refused in (
        sign_bundle(make_bundle(3, ada), ada),
        sign_bundle(good, ada),
        sign_bundle(make_bundle(1000, ada), ada),
    ):
        assert api.ask("POST", PATH, token=manager, body=refused).refusal == (403, "unsigned")
    newest = api.store.newest_trust()
    assert newest is not None
    assert newest.envelope == published
    assert api.ask("POST", PATH, token=manager, body=sign_bundle(make_bundle(3, ada), rita)).status == 202


def test_a_server_that_cannot_read_its_roots_takes_nothing(
    api: ApiServer, manager: str, ada: Investigator, rita: Investigator, tmp_path: Path
) -> None:
    body = sign_bundle(make_bundle(1, ada), rita)
    know_roots(api, tmp_path / "none")
    assert api.ask("POST", PATH, token=manager, body=body).refusal == (500, "bad-config")
    know_roots(api, tmp_path / "roots", rita, threshold=2)
    assert api.ask("POST", PATH, token=manager, body=body).refusal == (500, "bad-config")
