"""One agent that floods is held back, cut off, and starves nobody: by its accounts, and on a real broker."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pika
import pytest

from protocol.action import Action
from protocol.command import CommandState
from protocol.names import AGENTS_EXCHANGE, DEAD_QUEUE, heartbeat_key, result_key
from server.broker import PrivateBroker
from server.floods import ANSWERS, HEARTBEATS, PATIENCE, RATE_LIMITED, Floods, Quota
from server.oddities import warnings_for
from server.parts import utc_now
from tests.support.broker import AgentKey, server_connection
from tests.support.relay import (
    PATIENCE_S,
    RelayServer,
    make_config,
    make_heartbeat,
    make_result,
    running_server,
    send_heartbeat,
    send_result,
)

AGENT = "0" * 32
QUOTA = Quota(burst=10, per_s=2.0)
# What a server looks at before it knows better: two batches are under way at once.
LOOKED_AT = 2 * 200


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cut_off() -> list[str]:
    return []


@pytest.fixture
def floods(clock: Clock, cut_off: list[str]) -> Floods:
    return Floods(QUOTA, cut_off.append, monotonic=clock)


def test_what_is_within_the_quota_is_looked_at(floods: Floods) -> None:
    for _ in range(QUOTA.burst):
        assert not floods.is_dropped(AGENT)
        floods.charge([AGENT])
    assert floods.is_dropped(AGENT)
    assert not floods.is_dropped("1" * 32)


def test_the_quota_comes_back_with_time_and_not_beyond_itself(floods: Floods, clock: Clock) -> None:
    floods.charge([AGENT] * (QUOTA.burst + 5))
    clock.now += 2.5
    assert floods.is_dropped(AGENT)
    clock.now += 0.5
    assert not floods.is_dropped(AGENT)
    floods.charge([AGENT])
    assert floods.is_dropped(AGENT)
    clock.now += 1e6
    floods.charge([AGENT] * QUOTA.burst)
    assert floods.is_dropped(AGENT)


def test_an_agent_is_cut_off_only_after_many_dropped_messages_in_a_row(
    floods: Floods, clock: Clock, cut_off: list[str]
) -> None:
    floods.charge([AGENT] * QUOTA.burst)
    for _ in range(PATIENCE - 1):
        assert floods.is_dropped(AGENT)
    clock.now += 60
    assert not floods.is_dropped(AGENT)
    floods.charge([AGENT] * QUOTA.burst)
    for _ in range(PATIENCE - 1):
        assert floods.is_dropped(AGENT)
    assert cut_off == []
    assert floods.is_dropped(AGENT)
    assert cut_off == [AGENT]


def test_ordinary_agents_are_far_from_their_quotas() -> None:
    # A heartbeat a second is the most that can be configured; a full queue is answered once for each command.
    assert HEARTBEATS.per_s > 1 / 0.95
    assert ANSWERS.burst >= 200


class Flooder:
    """Publishes as fast as the broker takes it, on a connection of its own, until it is cut off."""

    def __init__(
        self, broker: PrivateBroker, agent: AgentKey, key: str, bodies: Callable[[int], bytes]
    ) -> None:
        self.broker = broker
        self.agent = agent
        self.key = key
        self.bodies = bodies
        self.is_nameless = False
        self.sent = 0
        self.reason: BaseException | None = None

    def run(self, most: int, on_sent: Callable[[int], None]) -> None:
        """Publish at most so many messages."""
        user_id = None if self.is_nameless else self.agent.id
        properties = pika.BasicProperties(user_id=user_id, delivery_mode=2)
        try:
            with self.agent.connection(self.broker) as connection:
                channel = connection.channel()
                for number in range(most):
                    channel.basic_publish(AGENTS_EXCHANGE, self.key, self.bodies(number), properties)
                    self.sent += 1
                    if self.sent % 500 == 0:
                        connection.process_data_events(0)
                    on_sent(self.sent)
                while True:  # what it has sent is under way; it ends by being cut off
                    connection.process_data_events(1)
        except pika.exceptions.AMQPError as error:
            self.reason = error


def make_bodies(kind: str, agent: AgentKey, action: Action, digest: str) -> Callable[[int], bytes]:
    """Return what a flooder of one kind sends, by number."""
    if kind in {"nonsense", "nameless"}:
        return lambda number: b"nonsense %d" % number
    if kind == "forged":
        forged = make_result(AgentKey(), action, digest)
        return lambda _number: forged
    if kind == "the same answer again":
        answer = make_result(agent, action, digest)
        return lambda _number: answer
    heartbeat = make_heartbeat(agent)
    return lambda _number: heartbeat


@pytest.fixture
def quiet_broker(clean_broker: PrivateBroker) -> Iterator[PrivateBroker]:
    """The node, on which no flood stays for others."""
    yield clean_broker
    with server_connection(clean_broker) as connection:
        connection.channel().queue_purge(DEAD_QUEUE)


@pytest.mark.system
@pytest.mark.parametrize("kind", ["nonsense", "nameless", "forged", "the same answer again", "heartbeats"])
def test_an_agent_that_floods_is_cut_off_while_the_answers_of_twenty_others_arrive(
    quiet_broker: PrivateBroker, tmp_path: Path, kind: str
) -> None:
    others = [AgentKey() for _ in range(20)]
    bad = AgentKey()
    most = 20_000

    async def scenario(server: RelayServer) -> None:
        await server.enrol(bad, *others)
        action = await server.submit(bad, *others)
        digest = await server.digest(action)
        key = (heartbeat_key if kind == "heartbeats" else result_key)(bad.id)
        flooder = Flooder(quiet_broker, bad, key, make_bodies(kind, bad, action, digest))
        flooder.is_nameless = kind == "nameless"
        loop = asyncio.get_running_loop()
        under_way = asyncio.Event()

        def on_sent(count: int) -> None:
            if count == 1000:
                loop.call_soon_threadsafe(under_way.set)

        began = time.monotonic()
        flooding = asyncio.ensure_future(asyncio.to_thread(flooder.run, most, on_sent))
        await under_way.wait()
        await asyncio.to_thread(answer_all, quiet_broker, others, action, digest, kind)
        for agent in others:
            await server.until_state(action, agent, CommandState.DONE)
        async with asyncio.timeout(4 * PATIENCE_S):
            await flooding
        # It was cut off, by name, and may not come again for a while.
        assert isinstance(flooder.reason, pika.exceptions.ConnectionClosedByBroker), flooder.reason
        with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"):
            await asyncio.to_thread(lambda: bad.connection(quiet_broker).__enter__())
        assert server.parts.broker_auth.denied[RATE_LIMITED] == 1
        # Of all that it sent no more was looked at than it may send; nothing else was refused.
        dead = server.parts.relay.dead
        assert dead[RATE_LIMITED] >= PATIENCE
        looked_at = server.parts.meters.received["heartbeat"] if kind == "heartbeats" else dead.total()
        looked_at -= dead[RATE_LIMITED] if kind != "heartbeats" else 0
        granted = ANSWERS.burst + ANSWERS.per_s * (time.monotonic() - began)
        assert looked_at <= granted + LOOKED_AT
        results = await server.database.read(server.store.list_results, action.id, 0, 100)
        assert len(results) == len(others) + (kind == "the same answer again")
        row = await server.database.read(server.store.get_agent, bad.id)
        assert row is not None
        assert row.is_flooding(utc_now())
        assert not row.is_flooding(utc_now() + timedelta(days=1))
        warnings = warnings_for(server.store, [row], utc_now())[bad.id]
        assert any("for sending far more than an agent does" in warning for warning in warnings)

    async def whole() -> None:
        async with running_server(quiet_broker, tmp_path) as server:
            await scenario(server)

    asyncio.run(whole())


def answer_all(broker: PrivateBroker, agents: list[AgentKey], action: Action, digest: str, kind: str) -> None:
    """Let every agent answer, and send a heartbeat, each on a connection of its own."""
    for agent in agents:
        with agent.connection(broker) as connection:
            send_result(connection, agent, make_result(agent, action, digest))
            if kind == "heartbeats":
                send_heartbeat(connection, agent, make_heartbeat(agent))


@pytest.mark.system
def test_poison_among_the_answers_of_many_goes_to_the_dead_letters_and_every_answer_is_stored(
    quiet_broker: PrivateBroker, tmp_path: Path
) -> None:
    agents = [AgentKey() for _ in range(20)]
    poison = [b"", b"not JSON", b"[" * 1000, b"\xff" * 100, b'{"payloadType":1,"payloadType":2}']
    rounds = 10  # of five each: less than what is taken for a flood

    def send(connection: Any, agent: AgentKey, answer: bytes) -> None:
        channel = connection.channel()
        properties = pika.BasicProperties(user_id=agent.id, delivery_mode=2)
        for _ in range(rounds):
            for body in poison:
                channel.basic_publish(AGENTS_EXCHANGE, result_key(agent.id), body, properties)
        channel.close()
        send_result(connection, agent, answer)

    async def whole() -> None:
        async with running_server(quiet_broker, tmp_path) as server:
            await server.enrol(*agents)
            action = await server.submit(*agents)
            digest = await server.digest(action)

            def send_all() -> None:
                for agent in agents:
                    with agent.connection(quiet_broker) as connection:
                        send(connection, agent, make_result(agent, action, digest))

            await asyncio.to_thread(send_all)
            for agent in agents:
                await server.until_state(action, agent, CommandState.DONE)
            # What the last agent sent before its answer was refused before that was stored.
            assert server.parts.relay.dead.total() == len(agents) * rounds * len(poison)
            assert RATE_LIMITED not in server.parts.relay.dead

    asyncio.run(whole())
    with server_connection(quiet_broker) as connection:
        declared = connection.channel().queue_declare(DEAD_QUEUE, passive=True)
        assert declared.method.message_count == len(agents) * rounds * len(poison)


@pytest.mark.system
def test_what_others_send_under_an_agents_routing_key_costs_it_no_answer(
    quiet_broker: PrivateBroker, tmp_path: Path
) -> None:
    agent = AgentKey()
    most = 2 * ANSWERS.burst + LOOKED_AT  # not so many that the agent is cut off

    async def whole() -> None:
        async with running_server(quiet_broker, tmp_path) as server:
            await server.enrol(agent)
            action = await server.submit(agent)
            digest = await server.digest(action)

            def flood_and_answer() -> None:
                with server_connection(quiet_broker) as connection:
                    channel = connection.channel()
                    for _ in range(most):
                        channel.basic_publish(AGENTS_EXCHANGE, result_key(agent.id), b"nonsense")
                with agent.connection(quiet_broker) as connection:
                    send_result(connection, agent, make_result(agent, action, digest))

            await asyncio.to_thread(flood_and_answer)
            await server.until_state(action, agent, CommandState.DONE)
            assert server.parts.relay.dead.total() == most

    asyncio.run(whole())


@pytest.mark.system
def test_without_rabbitmqctl_a_flood_is_dropped_all_the_same(
    quiet_broker: PrivateBroker, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(make_config(quiet_broker, tmp_path), rabbitmqctl="")
    bad, good = AgentKey(), AgentKey()

    async def whole() -> None:
        async with running_server(quiet_broker, tmp_path, config=config) as server:
            await server.enrol(bad, good)
            action = await server.submit(bad, good)
            digest = await server.digest(action)

            def flood_and_answer() -> None:
                with bad.connection(quiet_broker) as connection, good.connection(quiet_broker) as other:
                    channel = connection.channel()
                    properties = pika.BasicProperties(user_id=bad.id, delivery_mode=2)
                    for _ in range(5000):
                        channel.basic_publish(AGENTS_EXCHANGE, result_key(bad.id), b"x", properties)
                    channel.close()
                    send_result(other, good, make_result(good, action, digest))

            await asyncio.to_thread(flood_and_answer)
            await server.until_state(action, good, CommandState.DONE)
            assert server.parts.relay.dead[RATE_LIMITED] >= 5000 - ANSWERS.burst - LOOKED_AT - 60

    asyncio.run(whole())
