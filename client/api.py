"""Speaks to the server's HTTP API.

Rules:
1. Every answer is read up to a limit, typed, and its errors become `MigError` by the server's code.
2. Redirects are never followed: a token goes to the configured server and nowhere else.
3. Nothing that a server says is put into a request unless it has the one shape that ours has.
4. A server that keeps sending keeps nobody waiting (`client.transport`): an answer has its time, a stream the
   action's.
5. A 401 costs one new login and one repetition; a server that cannot be reached is `server-away`.
"""

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import urllib3

from client.session import compose_login, load_session, save_session, session_path
from client.signing import Signer
from client.sse import ServerEvent, decode_events
from client.transport import Times, Transport
from protocol import documents
from protocol.alert_documents import AlertPage
from protocol.envelope import LOGIN, encode_envelope
from protocol.errors import CODES, EXIT_OUT_OF_REACH, EnvironmentFailure, InvalidInput, MigError

MAX_ANSWER_BYTES = 64 << 20
_EVENT_ID = re.compile(r"[0-9]{0,19}\Z")
_UNAUTHENTICATED = 401
_FIRST_ERROR = 300
_SERVER_ERROR = 500
_AWAY = frozenset({502, 503, 504})

_STREAM = timedelta(hours=1)  # a stream of alerts is begun anew after that

T = TypeVar("T")


class Api:
    """The API of one server for one investigator.

    Args:
        server: its address as the investigator typed it; signed into the login.
        signer: makes the login's signature, when one is needed.
        cache: directory of session tokens.
        clock: the time, UTC.
        max_answer_bytes: of any one answer.
        times: how long to wait for what.

    """

    def __init__(
        self,
        *,
        server: str,
        signer: Signer,
        cache: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        times: Times = Times(),  # noqa: B008  (immutable)
    ) -> None:
        self.server = server
        self._signer = signer
        self._clock = clock
        self._base = server.rstrip("/") + "/api/v1"
        self._session_path = session_path(cache, server, signer.fingerprint)
        self._session: documents.Session | None = None
        self._transport = Transport(server, times=times, max_answer_bytes=max_answer_bytes)

    def find_agents(self, target: str | None, *, limit: int, offset: int = 0) -> documents.AgentPage:
        """Ask which agents match a target (none: all), and how endpoints will enforce it."""
        query = {"limit": limit, "offset": offset} | ({} if target is None else {"target": target})
        return self._get("/agents", documents.AgentPage, query)

    def decide_on_agents(self, envelope: bytes) -> documents.Decision:
        """Hand over a signed decision to approve or revoke agents."""
        return self._decode(self._request("POST", "/agents/approvals", body=envelope), documents.Decision)

    def list_investigators(self) -> documents.InvestigatorList:
        """Ask for all investigators."""
        return self._get("/investigators", documents.InvestigatorList)

    def submit(self, envelope: bytes, query: Mapping[str, str] | None = None) -> documents.Submitted:
        """Hand over a signed action and how it is to be sent; the same bytes again change nothing."""
        path = "/actions" + (f"?{urlencode(query)}" if query else "")
        return self._decode(self._request("POST", path, body=envelope), documents.Submitted)

    def publish_trust(self, envelope: bytes) -> documents.PublishedTrust:
        """Hand over a signed trust bundle; the newest one again changes nothing."""
        return self._decode(self._request("POST", "/trust", body=envelope), documents.PublishedTrust)

    def get_trust(self) -> documents.StoredTrust:
        """Ask for the newest trust bundle; its signatures are for the caller to check."""
        return self._get("/trust", documents.StoredTrust)

    def list_actions(self, *, limit: int, offset: int = 0) -> documents.ActionPage:
        """Ask for stored actions, newest first."""
        return self._get("/actions", documents.ActionPage, {"limit": limit, "offset": offset})

    def get_action(self, action_id: str) -> documents.StoredAction:
        """Ask for one stored action with its envelope."""
        return self._get(f"/actions/{quote(action_id, safe='')}", documents.StoredAction)

    def cancel(self, action_id: str, envelope: bytes) -> documents.Cancelled:
        """Hand over a signed cancel of an action."""
        path = f"/actions/{quote(action_id, safe='')}/cancel"
        return self._decode(self._request("POST", path, body=envelope), documents.Cancelled)

    def get_roster(self, action_id: str, occurrence: str = "") -> documents.Roster:
        """Ask where the command of each agent stands; of one occurrence, or of all."""
        query = {"occurrence": occurrence} if occurrence else {}
        return self._get(f"/actions/{quote(action_id, safe='')}/commands", documents.Roster, query)

    def get_results(
        self, action_id: str, occurrence: str = "", *, limit: int = 100
    ) -> Iterator[documents.ResultItem]:
        """Yield the answers that the server has, in the order of their arrival; of one occurrence, or all."""
        query = {"occurrence": occurrence} if occurrence else {}
        after: int | None = 0
        while after is not None:
            page = self._get(
                f"/actions/{quote(action_id, safe='')}/results",
                documents.ResultPage,
                {"after": after, "limit": limit, **query},
            )
            yield from page.results
            if page.next is not None and page.next <= after:
                raise InvalidInput("bad-document", "the server's pages of results do not advance")
            after = page.next

    def read_audit(self, after: int) -> Iterator[bytes]:
        """Yield the entries of the audit log behind a number, each by its exact bytes."""
        start: int | None = after
        while start is not None:
            page = self._get("/audit", documents.AuditPage, {"after": start, "limit": 1000})
            yield from (entry.encode("utf-8") for entry in page.entries)
            if page.next is not None and page.next <= start:
                raise InvalidInput("bad-document", "the server's pages of its audit log do not advance")
            start = page.next

    def list_witnesses(self) -> Iterator[documents.Witness]:
        """Yield what agents have signed of the audit log."""
        start: str | None = ""
        while start is not None:
            page = self._get("/audit/witnesses", documents.WitnessPage, {"after": start, "limit": 500})
            yield from page.witnesses
            if page.next is not None and page.next <= start:
                raise InvalidInput("bad-document", "the server's pages of witnesses do not advance")
            start = page.next

    def list_alerts(self, query: Mapping[str, Any], after: int) -> AlertPage:
        """Ask for alerts behind a number; their signatures are for the caller to check."""
        return self._get("/alerts", AlertPage, {**query, "after": after, "limit": 500})

    def follow_alerts(
        self, query: Mapping[str, Any], after: int, on_trouble: Callable[[MigError], None]
    ) -> Iterator[ServerEvent]:
        """Yield alerts behind a number as they come, for ever; a broken stream is taken up again."""
        path = f"/alerts/events?{urlencode({**query, 'after': after}, doseq=True)}"
        last_id, failures = "", 0
        while True:
            try:
                for event in self._stream(path, last_id, self._clock() + _STREAM):
                    failures = 0
                    if _EVENT_ID.match(event.last_id) is None:
                        raise InvalidInput("bad-document", "the server's event has an id that is no number")
                    last_id = event.last_id
                    yield event
            except EnvironmentFailure as error:
                if not error.retryable:
                    raise
                on_trouble(error)
            time.sleep(_pause_s(failures))
            failures = min(failures + 1, 10)

    def follow(
        self, action_id: str, deadline: datetime, on_trouble: Callable[[MigError], None]
    ) -> Iterator[ServerEvent]:
        """Yield an action's events until `done`, or until the deadline; a broken stream is taken up again.

        Args:
            action_id: of a stored action.
            deadline: when to give up waiting.
            on_trouble: told each time that the server could not be reached.

        Raises:
            EnvironmentFailure: `server-away` when the stream cannot be taken up again before the deadline.

        """
        last_id = ""
        failures = 0
        path = f"/actions/{quote(action_id, safe='')}/events"
        while True:
            problem: MigError | None = None
            try:
                for event in self._stream(path, last_id, deadline):
                    failures = 0
                    yield event
                    last_id = event.last_id
                    if _EVENT_ID.match(last_id) is None:
                        raise InvalidInput("bad-document", "the server's event has an id that is no number")
                    if event.kind == "done":
                        return
            except EnvironmentFailure as error:
                if not error.retryable:
                    raise
                problem = error
                on_trouble(error)
            left = (deadline - self._clock()).total_seconds()
            pause = _pause_s(failures)
            failures = min(failures + 1, 10)
            if left <= pause:
                if problem is not None:
                    raise problem
                return
            time.sleep(pause)

    def _stream(self, path: str, last_id: str, deadline: datetime) -> Iterator[ServerEvent]:
        headers = {"Accept": "text/event-stream"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        response = self._open("GET", path, headers=headers)
        left = max((deadline - self._clock()).total_seconds(), 0.1)
        yield from decode_events(self._transport.read_lines(response, left), last_id)

    def _get(self, path: str, answer: type[T], query: dict[str, Any] | None = None) -> T:
        return self._decode(
            self._request("GET", path + (f"?{urlencode(query, doseq=True)}" if query else "")), answer
        )

    def _decode(self, body: bytes, answer: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput("bad-document", f"the server's answer has another shape: {error}") from None

    def _request(self, method: str, path: str, *, body: bytes | None = None) -> bytes:
        return self._transport.read(self._open(method, path, headers={}, body=body))

    def _open(
        self, method: str, path: str, *, headers: dict[str, str], body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        """Send a request with the token, logging in where needed; return a response that is no error."""
        for is_last in (False, True):
            token = self._token(renew=is_last)
            authorised = {**headers, "Authorization": f"Bearer {token}"}
            response = self._send(method, path, headers=authorised, body=body)
            if response.status != _UNAUTHENTICATED or is_last:
                break
            response.close()
        self._require_ok(response)
        return response

    def _token(self, *, renew: bool) -> str:
        if renew:
            self._session = None
        elif self._session is None:
            self._session = load_session(self._session_path, self._signer.fingerprint, self._clock())
        if self._session is None:
            self._session = self._log_in()
            save_session(self._session_path, self._session)
        return self._session.token

    def _log_in(self) -> documents.Session:
        response = self._send("POST", "/challenge", headers={}, body=b"")
        self._require_ok(response)
        challenge = self._decode(self._transport.read(response), documents.Challenge)
        payload = compose_login(
            server=self.server,
            fingerprint=self._signer.fingerprint,
            nonce=challenge.nonce,
            now=self._clock(),
        )
        envelope = encode_envelope(self._signer.sign(LOGIN, payload))
        response = self._send("POST", "/session", headers={}, body=envelope)
        self._require_ok(response)
        return self._decode(self._transport.read(response), documents.Session)

    def _send(
        self, method: str, path: str, *, headers: dict[str, str], body: bytes | None = None
    ) -> urllib3.BaseHTTPResponse:
        return self._transport.send(method, self._base + path, headers=headers, body=body)

    def _require_ok(self, response: urllib3.BaseHTTPResponse) -> None:
        if response.status < _FIRST_ERROR:
            return
        status = response.status
        if status < 400:  # noqa: PLR2004  (3xx)
            response.close()
            raise InvalidInput(
                "bad-document", f"{self.server} redirects elsewhere; redirects are not followed"
            )
        body = self._transport.read(response)
        try:
            error = msgspec.json.decode(body, type=documents.ErrorDocument).error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            error = None
        if error is None or error.code not in CODES:
            if status >= _SERVER_ERROR:
                detail = f"{self.server} answers with HTTP status {status}"
                raise EnvironmentFailure("server-away", detail, retryable=status in _AWAY)
            raise InvalidInput(
                "bad-document", f"{self.server} answers with HTTP status {status}: no MIG server?"
            )
        if CODES[error.code].exit == EXIT_OUT_OF_REACH:
            raise EnvironmentFailure(error.code, error.detail, retryable=True)
        raise InvalidInput(error.code, error.detail)


def _pause_s(failures: int) -> float:
    return random.uniform(0.5, 1.0) * min(0.1 * float(1 << failures), 5.0)  # noqa: S311  (spreads, no more)
