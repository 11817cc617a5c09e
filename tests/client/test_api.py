import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.api import MAX_ANSWER_BYTES, Api
from client.session import compose_login, load_session, save_session, session_path
from client.signing import Signer
from protocol.documents import Session
from protocol.envelope import LOGIN, decode_envelope
from protocol.errors import EnvironmentFailure, InvalidInput, MigError
from protocol.login import decode_login
from protocol.openpgp import parse_certificate, require_detached_signature
from tests.client.opponent import NONCE, Opponent
from tests.support.gpg import Investigator

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def make_api(opponent: Opponent, ada: Investigator, tmp_path: Path) -> Callable[[], Api]:
    def make(max_answer_bytes: int = MAX_ANSWER_BYTES) -> Api:
        signer = Signer(fingerprint=ada.fingerprint, home=str(ada.home), is_interactive=False)
        return Api(server=opponent.url, signer=signer, cache=tmp_path, max_answer_bytes=max_answer_bytes)

    return make


def test_a_login_is_composed_by_the_client_and_signed(
    make_api: Callable[[], Api], opponent: Opponent, ada: Investigator
) -> None:
    make_api().find_agents(None, limit=1)
    body = next(body for _, path, _, body in opponent.requests if path.endswith("/session"))
    envelope = decode_envelope(body, LOGIN)
    login = decode_login(envelope.payload)
    assert (login.server, login.fingerprint, login.nonce) == (opponent.url, ada.fingerprint, NONCE)
    certificate = parse_certificate(ada.public_key)
    require_detached_signature(
        certificate, envelope.signatures[0].sig, envelope.signed_bytes, datetime.now(UTC)
    )


def test_a_token_is_kept_for_the_next_command(make_api: Callable[[], Api], opponent: Opponent) -> None:
    make_api().find_agents(None, limit=1)
    make_api().find_agents(None, limit=1)
    assert len(opponent.logins) == 1
    assert opponent.requests[-1][2]["Authorization"] == "Bearer token1"


def test_a_token_that_the_server_no_longer_knows_costs_one_login(
    make_api: Callable[[], Api], opponent: Opponent
) -> None:
    make_api().find_agents(None, limit=1)
    refused = json.dumps({"error": {"code": "unauthenticated", "detail": "log in first"}}).encode()
    answers = [(401, refused)]
    opponent.respond = lambda _, path: answers.pop() if "/agents" in path and answers else None
    assert make_api().find_agents(None, limit=1).total == 0
    assert len(opponent.logins) == 2


def test_a_server_that_refuses_every_token_is_not_asked_for_ever(
    make_api: Callable[[], Api], opponent: Opponent
) -> None:
    refused = json.dumps({"error": {"code": "unauthenticated", "detail": "never"}}).encode()
    opponent.respond = lambda _, path: (401, refused) if "/agents" in path else None
    with pytest.raises(InvalidInput, match="unauthenticated: never"):
        make_api().find_agents(None, limit=1)
    assert len(opponent.logins) == 2


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (403, b'{"error":{"code":"forbidden","detail":"no right"}}', "forbidden: no right"),
        (503, b'{"error":{"code":"database-away","detail":"x"}}', "database-away: x"),
        (500, b'{"error":{"code":"nonsense","detail":"x"}}', "server-away: .* HTTP status 500"),
        (502, b"<html>", "server-away: .* HTTP status 502"),
        (404, b"<html>", "bad-document: .* no MIG server"),
        (302, b"", "redirects are not followed"),
        (200, b"{}", "bad-document"),
        (200, b"[" * 100_000, "bad-document"),
        (200, b"\xff", "bad-document"),
    ],
)
def test_what_the_server_answers_becomes_one_clear_error(
    make_api: Callable[[], Api], opponent: Opponent, status: int, body: bytes, message: str
) -> None:
    opponent.respond = lambda _, path: (status, body) if "/agents" in path else None
    with pytest.raises(MigError, match=message):
        make_api().find_agents(None, limit=1)


def test_an_endless_answer_is_cut(make_api: Callable[..., Api], opponent: Opponent) -> None:
    opponent.respond = lambda _, path: (200, b" " * 100_000) if "/agents" in path else None
    with pytest.raises(InvalidInput, match="too-large"):
        make_api(max_answer_bytes=1000).find_agents(None, limit=1)


def test_a_server_that_is_away_is_said_with_its_address(ada: Investigator, tmp_path: Path) -> None:
    signer = Signer(fingerprint=ada.fingerprint, home=str(ada.home), is_interactive=False)
    with pytest.raises(EnvironmentFailure, match="server-away: http://127.0.0.1:9: Connection refused"):
        Api(server="http://127.0.0.1:9", signer=signer, cache=tmp_path).find_agents(None, limit=1)


def test_a_host_that_does_not_exist_is_said(ada: Investigator, tmp_path: Path) -> None:
    signer = Signer(fingerprint=ada.fingerprint, home=str(ada.home), is_interactive=False)
    with pytest.raises(EnvironmentFailure, match="server-away: http://no-such-host.invalid"):
        Api(server="http://no-such-host.invalid", signer=signer, cache=tmp_path).find_agents(None, limit=1)


@pytest.mark.parametrize("nonce", ["", "5A" * 32, "5a" * 31, "5a" * 31 + "\n5", "x" * 64])
def test_a_server_cannot_choose_what_is_signed(nonce: str) -> None:
    with pytest.raises(InvalidInput, match="not 32 bytes in hex"):
        compose_login(server="http://x", fingerprint="A" * 40, nonce=nonce, now=NOW)


SESSION = Session(token="t", expires=NOW + timedelta(hours=1), fingerprint="A" * 40)


def test_a_session_file_is_private_and_gives_the_session_back(tmp_path: Path) -> None:
    path = session_path(tmp_path, "http://x", "A" * 40)
    save_session(path, SESSION)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_session(path, "A" * 40, NOW) == SESSION
    assert load_session(path, "B" * 40, NOW) is None
    assert load_session(path, "A" * 40, NOW + timedelta(minutes=59, seconds=40)) is None


def test_a_session_file_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = session_path(tmp_path, "http://x", "A" * 40)
    save_session(path, SESSION)
    path.chmod(0o640)
    assert load_session(path, "A" * 40, NOW) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"token":"t","expires":"2100-01-01T00:00:00","fingerprint":"' + b"A" * 40 + b'"}',
    ],
)
def test_a_session_file_that_is_broken_is_not_used(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "session.json"
    path.write_bytes(content)
    path.chmod(0o600)
    assert load_session(path, "A" * 40, NOW) is None


def test_two_servers_never_share_a_token(tmp_path: Path) -> None:
    assert session_path(tmp_path, "http://x", "A" * 40) != session_path(tmp_path, "http://y", "A" * 40)
