"""The agent's link: which nodes of a cluster it tries, in which order, and when it comes again."""

import asyncio
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.runtime.amqp import IOLoop
from agent.runtime.identity import Identity
from agent.runtime.link import Link, Relay
from protocol.identity import agent_id
from protocol.names import AGENTS_EXCHANGE, heartbeat_key, result_key
from server.broker import PrivateBroker
from tests.support.apart import run_apart
from tests.support.broker import AgentKey, server_connection
from tests.support.relay import running_server

FACTS = {"name": "test.example", "environment": {"addresses": ""}}
ATTEMPTS = 4
GREETING = b"AMQP\0\0\x09\x01"


class DyingNodes:
    """Three nodes, each of which takes a connection and closes it at once; `tried` says in which order."""

    def __init__(self) -> None:
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.tried: list[int] = []

    @property
    def urls(self) -> tuple[str, ...]:
        """Where they are."""
        return tuple(f"amqp://127.0.0.1:{one.getsockname()[1]}/mig" for one in self.listeners)

    def serve(self, place: int) -> None:
        """Be one of them, until its listener is shut down."""
        while True:
            try:
                connection, _ = self.listeners[place].accept()
            except OSError:
                return
            with connection:  # closed only once it is written down
                self.tried.append(place)


def make_link(
    ioloop: IOLoop,
    urls: tuple[str, ...],
    *,
    on_trouble: Callable[[], None],
    on_ready: Callable[[], None] = lambda: None,
    random: float = 0.0,
    key: Ed25519PrivateKey | None = None,
) -> Link:
    key = key or Ed25519PrivateKey.generate()
    return Link(
        ioloop=ioloop,
        relay=Relay(urls, "mig"),
        identity=Identity(key, agent_id(key.public_key().public_bytes_raw()), is_new=True),
        clock=lambda: datetime.now(UTC),
        on_delivery=lambda _body, _acknowledge: None,
        on_ready=on_ready,
        on_trouble=on_trouble,
        random=lambda: random,
        facts=lambda: FACTS,
    )


@pytest.fixture
def nodes() -> Iterator[DyingNodes]:
    dying = DyingNodes()
    with ExitStack() as stack:
        for place, listener in enumerate(dying.listeners):
            thread = Thread(target=dying.serve, args=(place,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.close)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
        yield dying


def try_to_connect(ioloop: IOLoop, urls: tuple[str, ...], random: float) -> list[str]:
    """Have an agent try some times; return what went wrong each time."""
    troubles: list[str] = []

    def on_trouble() -> None:
        troubles.append(link.last_problem)
        if len(troubles) == ATTEMPTS:
            link.close()
            ioloop.stop()

    link = make_link(ioloop, urls, on_trouble=on_trouble, random=random)
    link.connect()
    ioloop.start()
    ioloop.close()
    return troubles


@pytest.mark.slow
@pytest.mark.parametrize(
    ("random", "order"), [(0.0, [0, 1, 2, 0]), (0.5, [1, 2, 0, 1]), (0.99, [2, 0, 1, 2])]
)
def test_an_agent_begins_at_any_node_and_goes_on_to_the_next_after_each_failure(
    nodes: DyingNodes, random: float, order: list[int]
) -> None:
    troubles = try_to_connect(IOLoop(), nodes.urls, random)
    assert nodes.tried == order
    assert all(troubles)


def be_stopped_in_the_middle_of_a_login() -> list[str]:
    """Return the troubles of an agent that a node lets wait, and that is stopped meanwhile."""
    ioloop = IOLoop()
    troubles: list[str] = []
    node = socket.create_server(("127.0.0.1", 0))

    def be_a_node_that_says_nothing() -> None:
        connection, _ = node.accept()
        assert connection.recv(len(GREETING), socket.MSG_WAITALL) == GREETING
        ioloop.add_callback_threadsafe(stop)
        connection.recv(1)  # until the agent is gone

    def stop() -> None:
        link.close()
        ioloop.call_later(0.2, ioloop.stop)  # as the resident does

    link = make_link(
        ioloop,
        (f"amqp://127.0.0.1:{node.getsockname()[1]}/mig",),
        on_trouble=lambda: troubles.append(link.last_problem),
    )
    Thread(target=be_a_node_that_says_nothing, daemon=True).start()
    link.connect()
    ioloop.start()
    return troubles


@pytest.mark.slow
def test_an_agent_that_is_stopped_in_the_middle_of_a_login_ends_in_order() -> None:
    # What it leaves open goes with its process.
    assert run_apart(be_stopped_in_the_middle_of_a_login) == []


class HastyLoop(IOLoop):  # type: ignore[misc]  # pika has no types
    """A loop that keeps for how long an agent wants to wait, and lets it wait for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses_s: list[float] = []

    def call_later(self, delay: float, callback: Any) -> object:
        """Call back, the agent's own attempts at once."""
        if getattr(callback, "__func__", None) is not Link.connect:
            return super().call_later(delay, callback)
        self.pauses_s.append(delay)
        return super().call_later(0, callback)


def test_an_agent_that_cannot_reach_the_broker_comes_again_soon_and_then_ever_later(
    nodes: DyingNodes,
) -> None:
    loop = HastyLoop()
    try_to_connect(loop, nodes.urls, 0.5)
    assert loop.pauses_s == [0.75, 1.5, 3.0, 6.0]


@pytest.mark.system
def test_an_agent_whose_login_was_denied_leaves_the_server_more_time(clean_broker: PrivateBroker) -> None:
    loop = HastyLoop()
    # Nobody answers for the server, so every login is denied.
    troubles = try_to_connect(loop, (clean_broker.agent_url,), 0.5)
    assert all("the login was denied" in trouble for trouble in troubles)
    assert loop.pauses_s == [3.0, 6.0, 12.0, 24.0]


class Publisher:
    """An agent that publishes the same message over and over, until it has connected a second time."""

    def __init__(self, broker: PrivateBroker, agent: AgentKey) -> None:
        self.troubles: list[str] = []
        self.confirmed: list[bool] = []
        self._connections = 0
        self._key = result_key(agent.id)
        self._ioloop = IOLoop()
        self._link = make_link(
            self._ioloop,
            (broker.agent_url,),
            on_trouble=lambda: self.troubles.append(self._link.last_problem),
            on_ready=self._on_ready,
            key=agent.private,
        )

    def run(self) -> None:
        """Be it."""
        self._link.connect()
        self._ioloop.start()
        self._ioloop.close()

    def _on_ready(self) -> None:
        self._connections += 1
        if self._connections > 1:
            self._link.close()
            self._ioloop.call_later(0.2, self._ioloop.stop)
        else:
            self._publish()

    def _publish(self) -> None:
        self._link.publish(self._key, b"x", self._on_published)

    def _on_published(self, confirmed: bool) -> None:  # noqa: FBT001  (the link's callback)
        self.confirmed.append(confirmed)
        if self._link.is_ready:
            self._ioloop.call_later(0.05, self._publish)


@pytest.mark.system
def test_a_connection_on_which_the_broker_keeps_refusing_is_given_up_and_another_tried(
    clean_broker: PrivateBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.runtime.link._REFUSED_S", 0.5)
    agent = AgentKey()
    publisher = Publisher(clean_broker, agent)

    async def whole() -> None:
        async with running_server(clean_broker, tmp_path) as server:
            await server.enrol(agent)
            with server_connection(clean_broker) as connection:
                channel = connection.channel()
                full = {"x-max-length": 0, "x-overflow": "reject-publish"}
                channel.queue_declare("full", exclusive=True, arguments=full)
                channel.queue_bind("full", AGENTS_EXCHANGE, result_key(agent.id))
                ended = asyncio.Event()
                loop = asyncio.get_running_loop()

                def work() -> None:
                    publisher.run()
                    loop.call_soon_threadsafe(ended.set)

                Thread(target=work, daemon=True).start()  # one that hangs holds up nobody
                await asyncio.wait_for(ended.wait(), 30)

    asyncio.run(whole())
    assert publisher.troubles == ["the broker refuses what this connection sends"]
    assert len(publisher.confirmed) > 2
    assert not any(publisher.confirmed)


@pytest.mark.parametrize(("asked", "agreed"), [(0, 60), (4, 4), (60, 60), (300, 300), (580, 300)])
def test_amqps_own_heartbeats_come_as_often_as_the_broker_asks_and_never_not_at_all(
    asked: int, agreed: int
) -> None:
    with closing(IOLoop()) as ioloop:
        link = make_link(ioloop, ("amqp://127.0.0.1/mig",), on_trouble=lambda: None)
        assert link._parameters().heartbeat(None, asked) == agreed


def timers_of_connections(port: int) -> dict[str, list[str]]:
    """Return the timers that the kernel runs for connections to a port: of their near ends, and far ones."""
    ends = {"near": f"dport = :{port}", "far": f"sport = :{port}"}
    return {
        end: re.findall(r"timer:\((\w+)", subprocess.check_output(["ss", "-tnoH", which], text=True))
        for end, which in ends.items()
    }


@pytest.mark.system
def test_the_kernel_asks_at_both_ends_whether_the_other_one_is_there(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    agent = AgentKey()
    url = clean_broker.agent_url
    listed = [str(clean_broker.rabbitmqctl), "-q", "list_connections", "user", "timeout"]
    seen: list[str] = []

    def be_connected() -> None:
        ioloop = IOLoop()

        def look() -> None:
            timers = timers_of_connections(urlsplit(url).port or 0)
            if all(set(of_end) == {"keepalive"} for of_end in timers.values()):
                seen.append(subprocess.check_output(listed, text=True))
                link.close()
                ioloop.call_later(0.2, ioloop.stop)
            else:
                ioloop.call_later(0.1, look)  # what was just sent is waited for by another timer

        link = make_link(ioloop, (url,), on_trouble=lambda: None, on_ready=look, key=agent.private)
        link.connect()
        ioloop.call_later(60, ioloop.stop)
        ioloop.start()
        ioloop.close()

    async def whole() -> None:
        async with running_server(clean_broker, tmp_path) as server:
            await server.enrol(agent)
            await asyncio.to_thread(be_connected)

    asyncio.run(whole())
    assert f"{agent.id}\t300\n" in seen[0]  # seconds: AMQP's own heartbeats are the rarer ones


def send_both(broker: PrivateBroker, agent: AgentKey) -> list[bool]:
    """Publish one message that has to last and one that has not; return what was confirmed."""
    confirmed: list[bool] = []
    ioloop = IOLoop()

    def on_published(is_confirmed: bool) -> None:  # noqa: FBT001  (the link's callback)
        confirmed.append(is_confirmed)
        if len(confirmed) > 1:
            link.close()
            ioloop.call_later(0.2, ioloop.stop)

    def on_ready() -> None:
        link.publish(result_key(agent.id), b"x", on_published)
        link.publish(heartbeat_key(agent.id), b"x", on_published, lasting=False)

    link = make_link(
        ioloop, (broker.agent_url,), on_trouble=lambda: None, on_ready=on_ready, key=agent.private
    )
    link.connect()
    ioloop.call_later(30, ioloop.stop)
    ioloop.start()
    ioloop.close()
    return confirmed


@pytest.mark.system
def test_what_is_made_anew_at_each_login_is_confirmed_and_kept_on_no_disk(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    agent = AgentKey()

    async def whole() -> None:
        async with running_server(clean_broker, tmp_path) as server:
            await server.enrol(agent)
            with server_connection(clean_broker) as connection:
                channel = connection.channel()
                channel.queue_declare("seen", exclusive=True)
                channel.queue_bind("seen", AGENTS_EXCHANGE, f"*.{agent.id}")
                assert await asyncio.to_thread(send_both, clean_broker, agent) == [True, True]
                seen = [channel.basic_get("seen", auto_ack=True) for _ in range(2)]
                assert {method.routing_key: head.delivery_mode for method, head, _ in seen} == {
                    result_key(agent.id): 2,
                    heartbeat_key(agent.id): 1,
                }

    asyncio.run(whole())
