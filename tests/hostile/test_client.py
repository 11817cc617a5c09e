"""The opponent wants an investigator to believe, to run or to leak something. It owns the server.

Promise: nothing is shown as an answer that the agent did not sign for that very action; nothing of what an
endpoint or a server sends is obeyed by the terminal, a spreadsheet or the file system; no signature and no
token can be had by asking; and what is withheld is missed. The client is the real one.
"""

import json
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from client.main import run_command_line
from protocol.result import OperationResult
from tests.client.opponent import FAR, Opponent, SimulatedAgent
from tests.support.endpoint import sign_action
from tests.support.gpg import Investigator

Printed = pytest.CaptureFixture[str]
FOUND = OperationResult(found=True, status="ok", records=({"path": "/etc/passwd"},))
ASK = ["agentinfo", "-t", "os = 'linux'", "--yes"]
HIDDEN = "\x1b]0;owned\x07\x1b[2J\u202e\u200b\r\n\x00=cmd|' /C calc'!A0"


def seen(capsys: Printed) -> str:
    """Return all that was printed, which must be one honest text: nothing hidden, no traceback."""
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert "Traceback" not in text
    assert not set(text) & set("\x1b\x07\u202e\u200b\r\x00")
    return text


# -- answers that are not the agents' ------------------------------------------------------------------------


def test_answers_exchanged_between_agents_are_not_believed(desk: Opponent, capsys: Printed) -> None:
    web1, web2 = SimulatedAgent("web1", FOUND), SimulatedAgent("web2", FOUND)
    desk.agents = [web1, web2]
    desk.items = lambda asked: [
        web1.item(asked, web2.sign(web2.result(asked)), seq=1),
        web2.item(asked, web1.sign(web1.result(asked)), seq=2),
    ]
    assert run_command_line(ASK) == 4
    assert "/etc/passwd" not in seen(capsys)


def test_an_answer_to_an_earlier_question_is_not_believed(desk: Opponent, capsys: Printed) -> None:
    web1 = SimulatedAgent("web1", FOUND)
    desk.agents = [web1]
    assert run_command_line(ASK) == 0
    assert desk.question is not None
    old = web1.sign(web1.result(desk.question))
    capsys.readouterr()
    desk.items = lambda asked: [web1.item(asked, old)]
    assert run_command_line(ASK) == 4
    assert "/etc/passwd" not in seen(capsys)


def test_an_answer_that_was_edited_is_not_believed(desk: Opponent, capsys: Printed) -> None:
    web1 = SimulatedAgent("web1", OperationResult(found=False, status="ok"))
    desk.agents = [web1]

    def edited(asked: Any) -> list[dict[str, Any]]:
        honest = web1.sign(web1.result(asked))
        payload = honest.payload.replace(b'"found":false', b'"found":true')
        return [web1.item(asked, honest._replace(payload=payload))]

    desk.items = edited
    assert run_command_line(ASK) == 4
    assert "not believed: web1" in seen(capsys)


def test_an_answer_that_comes_a_thousand_times_counts_once(desk: Opponent, capsys: Printed) -> None:
    web1 = SimulatedAgent("web1", FOUND)
    desk.agents = [web1]
    desk.items = lambda asked: [web1.item(asked, seq=number) for number in range(1, 1001)]
    assert run_command_line([*ASK, "--json"]) == 0
    assert len(seen(capsys).splitlines()) == 3


def test_answers_that_are_withheld_are_missed(desk: Opponent, capsys: Printed) -> None:
    """Not promised: that an answer arrives. Promised: that nobody takes its absence for a no."""
    desk.agents = [SimulatedAgent("web1", OperationResult(found=False, status="ok"))]
    desk.silent = [SimulatedAgent("web2", FOUND)]
    assert run_command_line(ASK) == 3
    assert "no answer from web2" in seen(capsys)


def test_an_endpoint_that_the_platform_invents_shows_as_a_name_that_moved(
    desk: Opponent, capsys: Printed
) -> None:
    """Not promised: that every endpoint exists. Promised: that one cannot quietly take another's name."""
    desk.agents = [SimulatedAgent("web1", FOUND)]
    run_command_line(ASK)
    desk.agents = [SimulatedAgent("web1", OperationResult(found=False, status="ok"))]
    run_command_line(ASK)
    assert "the name web1 has moved from agent" in seen(capsys)


# -- signatures and tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nonce", ["", "5a" * 31, "5A" * 32, json.dumps({"name": "x"}), "DSSEv1 " * 10, "0" * 9999]
)
def test_a_server_cannot_choose_what_is_signed(desk: Opponent, capsys: Printed, nonce: str) -> None:
    """Nobody signs bytes that somebody else chose: of a challenge, 32 bytes in hex go into a login."""
    desk.respond = lambda _, path: (
        (201, json.dumps({"nonce": nonce}).encode()) if path.endswith("/challenge") else None
    )
    assert run_command_line(["agents"]) == 4
    assert desk.logins == []
    assert "bad-document" in seen(capsys)


def test_a_redirect_gets_no_token(desk: Opponent, capsys: Printed) -> None:
    desk.respond = lambda _, path: (307, b"") if "/agents" in path else None
    assert run_command_line(["agents"]) == 4
    assert "redirects are not followed" in seen(capsys)


@pytest.mark.parametrize("token", ["a\r\nX-Forged: 1", "\u2603", "a\x00", "", "a" * 100_000])
def test_a_token_cannot_forge_a_header(desk: Opponent, capsys: Printed, token: str) -> None:
    session = {"token": token, "expires": FAR, "fingerprint": "x"}
    desk.respond = lambda _, path: (201, json.dumps(session).encode()) if path.endswith("/session") else None
    assert run_command_line(["agents"]) == 4
    seen(capsys)
    assert all("X-Forged" not in headers for _, _, headers, _ in desk.requests)


@pytest.mark.parametrize("event_id", [b"1\r2", "\u2603".encode(), b"\xff", b"9" * 100_000, b"\x1b[2J"])
def test_an_event_id_cannot_forge_a_header_and_costs_no_answer(
    desk: Opponent, capsys: Printed, monkeypatch: pytest.MonkeyPatch, event_id: bytes
) -> None:
    web1 = SimulatedAgent("web1", FOUND)
    desk.agents = [web1]

    def events(_last_id: str) -> Iterator[bytes]:
        assert desk.question is not None
        item = json.dumps(web1.item(desk.question)).encode()
        yield b"event: result\nid: " + event_id + b"\ndata: " + item + b"\n\n"

    monkeypatch.setattr(desk, "events", events)
    assert run_command_line(ASK) == 5
    assert "/etc/passwd" in seen(capsys)


# -- hostile text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", ["table", "json", "jsonl", "csv"])
def test_nothing_that_an_endpoint_says_is_obeyed(desk: Opponent, capsys: Printed, format_name: str) -> None:
    """Pitfalls 9 and 18: escape sequences, bidi, line breaks, formulas in CSV."""
    record = {"path": HIDDEN, HIDDEN: HIDDEN, "size_bytes": HIDDEN, "more": {HIDDEN: [HIDDEN]}}
    bad = OperationResult(
        found=True, status="ok", records=(record,), notes=(HIDDEN,), statistics={HIDDEN: HIDDEN}
    )
    desk.agents = [SimulatedAgent(HIDDEN, bad)]
    assert run_command_line(ASK) == 0
    assert desk.question is not None
    seen(capsys)
    action = json.loads(desk.question.payload)["id"]
    assert run_command_line(["results", action, "--format", format_name]) == 0
    text = seen(capsys)
    if format_name == "csv":
        assert not any(cell.lstrip('"').startswith(("=", "+", "-", "@")) for cell in text.split(","))


def test_a_name_chooses_no_path(desk: Opponent, capsys: Printed, tmp_path: Path) -> None:
    """Pitfall 9: no result, name or id of a server becomes part of a path."""
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts and "data" not in path.parts}
    desk.agents = [SimulatedAgent("../../../owned", FOUND)]
    assert run_command_line(ASK) == 0
    assert run_command_line(["results", "../../../../etc/passwd"]) in {2, 4}
    seen(capsys)
    after = {path for path in tmp_path.rglob("*") if "cache" not in path.parts and "data" not in path.parts}
    assert after == before
    assert not [path for path in tmp_path.rglob("*") if "owned" in path.name]


def test_endless_names_do_not_spoil_what_the_client_remembers(desk: Opponent, capsys: Printed) -> None:
    desk.agents = [SimulatedAgent("n" * (1 << 20), FOUND)]
    assert run_command_line(ASK) != 0
    desk.agents = [SimulatedAgent("web1", FOUND)]
    assert run_command_line(ASK) == 0
    seen(capsys)


def test_who_adds_a_signature_sees_the_whole_of_what_is_signed(
    desk: Opponent, capsys: Printed, tmp_path: Path, bob: Investigator
) -> None:
    """Pitfall 8: everything is shown from the very bytes, whole, and control characters are escaped."""
    target = "name = 'web1'" + " OR name = 'web2'" * 500 + " OR name LIKE '%'"
    operation = {
        "module": "file",
        "parameters": {"searches": {"s": {"paths": ["/etc/shadow"], "contents": ["\x1b[2J"]}}},
    }
    file = tmp_path / "his.signed.json"
    file.write_bytes(sign_action(bob, name="harmless\x1b[2J", target=target, operations=[operation]))
    assert run_command_line(["action", "sign", str(file)]) == 0
    text = seen(capsys)
    assert "OR name LIKE '%'" in text
    assert "/etc/shadow" in text


def test_an_action_that_nobody_signed_is_not_passed_off_as_asked(desk: Opponent, capsys: Printed) -> None:
    """The server shows another question under the id of the one that was asked."""
    web1 = SimulatedAgent("web1", FOUND)
    desk.agents = [web1]
    assert run_command_line(ASK) == 0
    assert desk.question is not None
    capsys.readouterr()
    members = json.loads(desk.question.payload)
    desk.question = desk.question._replace(payload=json.dumps({**members, "target": "name = 'x'"}).encode())
    run_command_line(["results", members["id"]])
    assert "is the server's word" in seen(capsys)


# -- hostile documents ---------------------------------------------------------------------------------------

DOCUMENTS = {
    "nothing": b"",
    "no JSON": b"<html>",
    "null": b"null",
    "a list": b"[]",
    "100,000 brackets": b"[" * 100_000,
    "deep": b'{"total":' * 5000,
    "two members of one name": b'{"total":1,"total":2,"enforced":"","agents":[]',
    "a huge number": b'{"total":1e999,"enforced":"","agents":[]}',
    "half a character": b'{"total":1,"enforced":"\\ud800","agents":[]}',
    "no UTF-8": b'{"total":1,"enforced":"\xff","agents":[]}',
    "a bomb": zlib.compress(bytes(10 << 20)),
}


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_document_that_makes_no_sense_is_one_line(
    desk: Opponent, capsys: Printed, name: str, status: int
) -> None:
    desk.respond = lambda _, path: (status, DOCUMENTS[name]) if "/agents" in path else None
    assert run_command_line(["agents"]) in {4, 5}
    assert seen(capsys).count("\n") == 1


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-20T12:00:00"]
)
def test_a_time_at_the_end_of_the_calendar_is_shown_as_it_came(
    desk: Opponent, capsys: Printed, time: str
) -> None:
    agent = {"id": "x", "name": "web1", "status": "online", "heartbeattime": time}
    page = {"total": 1, "enforced": "", "agents": [agent]}
    desk.respond = lambda _, path: (200, json.dumps(page).encode()) if "/agents" in path else None
    assert run_command_line(["agents"]) == 0
    assert "web1" in seen(capsys)


def test_a_stream_that_never_ends_ends_with_the_action(
    desk: Opponent, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow drip: every byte comes before the time-out, and the last one never."""
    web1 = SimulatedAgent("web1", FOUND)
    desk.agents, desk.silent = [web1], [SimulatedAgent("web2")]

    def events(_last_id: str) -> Iterator[bytes]:
        assert desk.question is not None
        yield b"event: result\nid: 1\ndata: " + json.dumps(web1.item(desk.question)).encode() + b"\n\n"
        while not desk.is_released.wait(0.05):
            yield b":\n"

    monkeypatch.setattr(desk, "events", events)
    monkeypatch.setattr("client.follow.GRACE", timedelta(seconds=1))
    desk.is_released.clear()
    try:
        code = run_command_line([*ASK, "--expire", "1s"])
    finally:
        desk.is_released.set()
    assert code == 3
    assert "no answer from web2" in seen(capsys)


def test_answers_without_end_do_not_fill_the_memory(
    desk: Opponent, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that never ends is cut off; what came before it is kept."""
    web1 = SimulatedAgent("web1", FOUND)
    desk.agents = [web1]

    def events(_last_id: str) -> Iterator[bytes]:
        assert desk.question is not None
        yield b"event: result\nid: 1\ndata: " + json.dumps(web1.item(desk.question)).encode() + b"\n\n"
        for _ in range(100):
            yield b"data: " + b"x" * (1 << 16) + b"\n"

    monkeypatch.setattr(desk, "events", events)
    assert run_command_line(ASK) == 5
    text = seen(capsys)
    assert "/etc/passwd" in text
    assert "too-large" in text
