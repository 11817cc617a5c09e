"""A platform in memory that speaks the real HTTP interface, and does what a hostile one could do.

It signs nothing for investigators and checks nothing: what the client believes is the client's business. Its
agents have real keys.
"""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.action import decode_action
from protocol.envelope import ACTION, RESULT, Envelope, decode_envelope, encode_envelope
from protocol.identity import agent_id, sign_envelope
from protocol.names import command_id
from protocol.result import OperationResult, Result

NONCE = "5a" * 32
FAR = "2100-01-01T00:00:00Z"


class SimulatedAgent:
    """An agent with a key of its own, and an answer that it gives to everything."""

    def __init__(self, name: str, *operations: OperationResult) -> None:
        self.name = name
        self.key = Ed25519PrivateKey.generate()
        self.public_key = self.key.public_key().public_bytes_raw()
        self.id = agent_id(self.public_key)
        self.operations = operations

    def result(self, question: Envelope) -> Result:
        """Return an honest result."""
        action = decode_action(question.payload)
        return Result(
            action=action.id,
            action_sha256=question.digest,
            occurrence="",
            agent=self.id,
            started=action.validfrom,
            finished=action.validfrom,
            status="done",
            results=self.operations,
        )

    def sign(self, result: Result, kind: str = RESULT) -> Envelope:
        """Sign a result, honest or not."""
        return sign_envelope(self.key, kind, msgspec.json.encode(result))

    def item(self, question: Envelope, signed: Envelope | None = None, **changes: Any) -> dict[str, Any]:
        """Return how the server relays an answer; changes are the server's lies."""
        action = decode_action(question.payload)
        envelope = signed or self.sign(self.result(question))
        item = {
            "seq": 1,
            "command": command_id(action.id, self.id, ""),
            "agent": self.id,
            "agent_name": self.name,
            "public_key": base64.b64encode(self.public_key).decode(),
            "state": "done",
            "envelope": json.loads(encode_envelope(envelope)),
        }
        return {**item, **changes}

    def command(self, question: Envelope, state: str = "done") -> dict[str, Any]:
        """Return the agent's line of the roster."""
        action = decode_action(question.payload)
        return {
            "id": command_id(action.id, self.id, ""),
            "agent": self.id,
            "agent_name": self.name,
            "state": state,
        }


class Opponent:
    """The platform: `agents` answer, `silent` ones do not; `respond` may answer a request instead of it."""

    def __init__(self) -> None:
        self.agents: list[SimulatedAgent] = []
        self.silent: list[SimulatedAgent] = []
        self.items: Callable[[Envelope], list[dict[str, Any]]] = self._honest_items
        self.respond: Callable[[str, str], tuple[int, bytes] | None] = lambda _method, _path: None
        self.cut_after: int | None = None  # events after which a stream breaks, once
        self.is_released = threading.Event()  # a stream ends only then
        self.is_released.set()
        self.question: Envelope | None = None
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.logins: list[dict[str, Any]] = []
        self.url = ""
        self.max_agents = 1000

    def _honest_items(self, question: Envelope) -> list[dict[str, Any]]:
        return [agent.item(question, seq=number) for number, agent in enumerate(self.agents, 1)]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Return status and document for a request that is not a stream."""
        path, _, _ = path.removeprefix("/api/v1").partition("?")
        fixed: dict[tuple[str, str], Callable[[], tuple[int, Any]]] = {
            ("POST", "/challenge"): lambda: (201, {"nonce": NONCE}),
            ("POST", "/session"): lambda: (201, self._session(body)),
            ("GET", "/agents"): lambda: (200, self._agents()),
            ("POST", "/actions"): lambda: (202, self._submitted(body)),
        }
        if (method, path) in fixed:
            return fixed[method, path]()
        if self.question is None or not path.startswith("/actions/"):
            return 404, {"error": {"code": "not-found", "detail": "there is no such thing"}}
        return 200, self._about_action(self.question, path)

    def _session(self, body: bytes) -> dict[str, Any]:
        login = json.loads(base64.b64decode(json.loads(body)["payload"]))
        self.logins.append(login)
        token = f"token{len(self.logins)}"
        return {"token": token, "expires": FAR, "fingerprint": login["fingerprint"], "rights": []}

    def _agents(self) -> dict[str, Any]:
        everybody = [*self.agents, *self.silent]
        agents = [{"id": agent.id, "name": agent.name, "status": "online"} for agent in everybody]
        return {"total": len(agents), "max_agents": self.max_agents, "enforced": "TRUE", "agents": agents}

    def _submitted(self, body: bytes) -> dict[str, Any]:
        self.question = decode_envelope(body, ACTION)
        action = decode_action(self.question.payload)
        return {"id": action.id, "commands": len(self.agents) + len(self.silent), "new": True}

    def _about_action(self, question: Envelope, path: str) -> dict[str, Any]:
        if path.endswith("/commands"):
            done = [agent.command(question) for agent in self.agents]
            return {"commands": [*done, *(agent.command(question, "sent") for agent in self.silent)]}
        if path.endswith("/results"):
            return {"results": self.items(question), "next": None}
        return self._stored()

    def _stored(self) -> dict[str, Any]:
        assert self.question is not None
        action = decode_action(self.question.payload)
        return {
            "id": action.id,
            "name": action.name,
            "target": action.target,
            "status": "active",
            "created": FAR,
            "validfrom": FAR,
            "expireafter": FAR,
            "signers": [],
            "submitter": "x",
            "counts": {},
            "digest": self.question.digest,
            "envelope": json.loads(encode_envelope(self.question)),
        }

    def events(self, last_id: str) -> Iterator[bytes]:
        """Yield the event stream after the last id that the client has."""
        assert self.question is not None
        items = [item for item in self.items(self.question) if item["seq"] > int(last_id or 0)]
        cut, self.cut_after = self.cut_after, None
        yield b": ping\n\n"
        for item in items[:cut]:
            yield f"event: result\nid: {item['seq']}\ndata: {json.dumps(item)}\n\n".encode()
        if cut is None:
            self.is_released.wait(30)
            yield b'event: done\ndata: {"counts": {}}\n\n'


class _Handler(BaseHTTPRequestHandler):
    opponent: Opponent
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        opponent = self.opponent
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        opponent.requests.append((self.command, self.path, dict(self.headers), body))
        own = opponent.respond(self.command, self.path)
        if own is None and self.path.endswith("/events"):
            self._stream()
            return
        status, document = opponent.answer(self.command, self.path, body) if own is None else own
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in self.opponent.events(self.headers.get("Last-Event-ID", "")):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = _answer  # noqa: N815  (the names that http.server looks for)

    def log_message(self, *arguments: Any) -> None:
        """Keep the test's output to itself."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *arguments: Any) -> None:
        """Say nothing of clients that went away."""


@contextmanager
def running_opponent() -> Iterator[Opponent]:
    """Run a platform on a free port of loopback."""
    opponent = Opponent()
    handler = type("Handler", (_Handler,), {"opponent": opponent})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    opponent.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield opponent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
