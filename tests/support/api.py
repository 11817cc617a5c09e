"""A real API over real HTTP on a free loopback port, with a store that the test can reach into."""

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import uvicorn
from litestar import Litestar

from protocol.envelope import LOGIN, Envelope, encode_envelope
from protocol.errors import EnvironmentFailure
from protocol.login import Login, encode_login
from server.api.app import make_app
from server.config import ServerConfig
from server.events import Events, Wake
from server.health import HealthCheck
from server.rows import Change
from server.services import Services
from server.store import Store
from tests.support.database import migrated_database
from tests.support.gpg import Investigator

TIMEOUT_S = 20


class Answer(NamedTuple):
    """What the API answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and code of a refusal, which has one shape only."""
        [(name, error)] = self.json.items()
        assert name == "error"
        assert set(error) == {"code", "detail"}
        return self.status, error["code"]


class Event(NamedTuple):
    """One server-sent event."""

    kind: str
    id: str
    data: Any


class ApiServer:
    """The API in a thread of its own."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.settings = settings
        self.skew = timedelta()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.agents_dir = directory / "agents"
        self.agents_dir.mkdir()
        self.database = migrated_database(f"sqlite:///{directory / 'mig.sqlite'}")
        self.store = Store(self.database)
        self.is_broker_connected = True
        self.shut_out: list[str] = []
        self.events, self.wake = Events(), Wake()
        self.uvicorn = uvicorn.Server(uvicorn.Config(self._make_app(), log_config=None, lifespan="on"))
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def now(self) -> datetime:
        """Return the server's clock, which a test may set ahead or back by `skew`."""
        return datetime.now(UTC) + self.skew

    def _make_app(self) -> Litestar:
        config = ServerConfig(
            name="mig",
            url=self.url,
            listen=f"127.0.0.1:{self.port}",
            broker_auth_listen="127.0.0.1:1",
            database="sqlite:///unused",
            relay="amqp://unused",
            enrolment="open",
            state_dir="/unused",
            agents_dir=str(self.agents_dir),
            **self.settings,
        )
        services = Services(
            config=config,
            database=self.database,
            store=self.store,
            events=self.events,
            wake=self.wake,
            health=HealthCheck(database=self.database, ask_broker=self._ask_broker, patience_s=0.5),
            shut_out=self._shut_out,
            clock=self.now,
            version="1.2.3",
        )
        self.services = services
        return make_app(services)

    async def _ask_broker(self) -> None:
        if not self.is_broker_connected:
            raise EnvironmentFailure("broker-away", retryable=True)

    async def _shut_out(self, agent_ids: Sequence[str]) -> None:
        self.shut_out.extend(agent_ids)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._started.set()
        await self.uvicorn.serve(sockets=[self.listener])

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(TIMEOUT_S)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.events.close)
        self.loop.call_soon_threadsafe(self.services.bell.close)
        self.uvicorn.should_exit = True
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        self.database.close()
        self.listener.close()

    def publish(self, changes: Iterable[Change]) -> None:
        """Tell followers, as the relay does after a commit."""
        self.loop.call_soon_threadsafe(self.events.publish, list(changes))

    def followers(self, action_id: str) -> int:
        """Return how many follow an action."""
        return self.events.count_followers(action_id)

    def wait_until_unfollowed(self, action_id: str) -> None:
        """Wait until nobody follows an action."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.followers(action_id):
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def was_woken(self) -> bool:
        """Tell whether the scheduler was woken since the last call."""
        waiting = asyncio.run_coroutine_threadsafe(self.wake.wait(0.01), self.loop)
        return waiting.result(TIMEOUT_S)

    @contextmanager
    def open(
        self, method: str, path: str, *, body: Any = None, token: str = "", **headers: str
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request; header names have underscores for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        with closing(connection):
            connection.request(method, path, body=body, headers=sent)
            with connection.getresponse() as response:
                yield response

    def ask(self, method: str, path: str, *, token: str = "", body: Any = None, **query: Any) -> Answer:
        """Send a request and read its answer."""
        with self.open(
            method, path + (f"?{urlencode(query)}" if query else ""), body=body, token=token
        ) as response:
            return Answer(response.status, response.headers, response.read())

    def follow(self, action_id: str, token: str, *, last_event_id: str = "") -> Iterator[Event]:
        """Yield the events of an action until the stream ends."""
        headers = {"Last_Event_ID": last_event_id} if last_event_id else {}
        with self.open("GET", f"/api/v1/actions/{action_id}/events", token=token, **headers) as response:
            assert response.status == 200, response.read()
            assert response.headers["Content-Type"].startswith("text/event-stream")
            members: dict[str, str] = {}
            while line := response.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if not name and members:
                    yield Event(members["event"], members.get("id", ""), json.loads(members["data"]))
                    members = {}
                elif name:
                    members[name] = value

    def login_envelope(self, investigator: Investigator, **changed: Any) -> Envelope:
        """Return a signed login with a fresh challenge, and with the members that the test names."""
        members = {
            "server": self.url,
            "fingerprint": investigator.fingerprint,
            "nonce": self.ask("POST", "/api/v1/challenge").json["nonce"],
            "time": self.now(),
        }
        return investigator.sign(LOGIN, encode_login(Login(**{**members, **changed})))

    def try_login(self, investigator: Investigator, **changed: Any) -> Answer:
        """Log in and return the answer."""
        body = encode_envelope(self.login_envelope(investigator, **changed))
        return self.ask("POST", "/api/v1/session", body=body)

    def login(self, investigator: Investigator, *rights: Any) -> str:
        """Give an investigator these rights, log them in and return the token."""
        self.store.add_investigator(
            investigator.fingerprint, investigator.name, investigator.public_key, rights, self.now()
        )
        answer = self.try_login(investigator)
        assert answer.status == 201, answer.body
        return str(answer.json["token"])


@contextmanager
def api_server(directory: Path, **settings: Any) -> Iterator[ApiServer]:
    """Run an API until the block ends, with these settings of its configuration."""
    server = ApiServer(directory, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()
