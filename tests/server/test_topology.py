"""A broker that becomes a cluster: what stands as on one node is replaced, and no answer is lost by it.

One node is enough: it keeps quorum queues like any other, with one member.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec
import pika
import pytest

from protocol.action import Action
from protocol.command import CommandState
from protocol.errors import EnvironmentFailure
from protocol.names import (
    AGENTS_EXCHANGE,
    DEAD_EXCHANGE,
    DEAD_QUEUE,
    HEARTBEATS_QUEUE,
    RESULTS_QUEUE,
    agent_queue,
    result_key,
)
from server.amqp import Link
from server.broker import PrivateBroker
from server.brokerctl import BrokerControl
from server.config import ServerConfig
from server.topology import Administrator
from tests.support.broker import SHARED_QUEUES, AgentKey, server_connection
from tests.support.platform import wait_until
from tests.support.relay import (
    PATIENCE_S,
    make_config,
    make_result,
    receive_command,
    running_server,
    send_result,
)

pytestmark = pytest.mark.system
HEARTBEATS_LIMITS = {
    "x-dead-letter-exchange": DEAD_EXCHANGE,
    "x-overflow": "reject-publish",
    "x-max-length": 100_000,
    "x-max-length-bytes": 256 << 20,
}
OF_A_CLUSTER = {
    RESULTS_QUEUE: ("quorum", True),
    HEARTBEATS_QUEUE: ("classic", False),
    DEAD_QUEUE: ("quorum", True),
}


@pytest.fixture
def single_broker(clean_broker: PrivateBroker) -> Iterator[PrivateBroker]:
    """The node, whose queues of a cluster do not stay for the tests of one node."""
    yield clean_broker
    with server_connection(clean_broker) as connection:
        for queue in SHARED_QUEUES:
            connection.channel().queue_delete(queue)


def for_cluster(broker: PrivateBroker, directory: Path) -> ServerConfig:
    """Return the configuration of a server that is told that its one node is a cluster."""
    return msgspec.structs.replace(make_config(broker, directory), relay_cluster=True)


def queues(broker: PrivateBroker) -> dict[str, tuple[str, bool]]:
    """Return type and durability of every queue."""
    listed = BrokerControl(broker.rabbitmqctl).ask("list_queues", "-p", "mig", "name", "type", "durable")
    return {entry["name"]: (entry["type"], entry["durable"]) for entry in listed}


async def declare(broker: PrivateBroker, *, is_cluster: bool) -> frozenset[str]:
    """Declare what all agents share, as a server does that has come just now."""
    link = await Link.open(broker.url, name="test")
    try:
        return await Administrator(link, is_cluster=is_cluster).declare_topology()
    finally:
        await link.close()


def test_answers_of_one_node_are_taken_before_its_queue_becomes_one_of_a_cluster(
    single_broker: PrivateBroker, tmp_path: Path
) -> None:
    agents = [AgentKey() for _ in range(20)]

    def answer(action: Action, digest: str, crash: Callable[[], None]) -> None:
        with ExitStack() as stack:
            connections = [stack.enter_context(agent.connection(single_broker)) for agent in agents]
            crash()
            for agent, connection in zip(agents, connections, strict=True):
                send_result(connection, agent, make_result(agent, action, digest))

    async def whole() -> None:
        loop = asyncio.get_running_loop()
        async with running_server(single_broker, tmp_path) as server:
            await server.enrol(*agents)
            action = await server.submit(*agents)
            digest = await server.digest(action)

            def crash() -> None:
                asyncio.run_coroutine_threadsafe(server.crash(), loop).result(PATIENCE_S)

            await asyncio.to_thread(answer, action, digest, crash)
        assert queues(single_broker)[RESULTS_QUEUE] == ("classic", True)
        async with running_server(
            single_broker, tmp_path, config=for_cluster(single_broker, tmp_path)
        ) as server:
            for agent in agents:
                await server.until_state(action, agent, CommandState.DONE)
            await until(lambda: queues(single_broker)[RESULTS_QUEUE] == ("quorum", True))
            # And it works on: the next question is answered by way of the new queues.
            assert await server.parts.relay.wait_connected(PATIENCE_S)
            again = await server.submit(agents[0])
            body = make_result(agents[0], again, await server.digest(again))

            def take_and_answer() -> None:
                with agents[0].connection(single_broker) as connection:
                    assert receive_command(connection, agents[0]) is not None
                    send_result(connection, agents[0], body)

            await asyncio.to_thread(take_and_answer)
            await server.until_state(again, agents[0], CommandState.DONE)
        standing = queues(single_broker)
        assert {name: standing[name] for name in SHARED_QUEUES} == OF_A_CLUSTER
        assert standing[agent_queue(agents[0].id)] == ("classic", False)

    asyncio.run(whole())


async def until(is_there: Callable[[], bool]) -> None:
    """Wait, beside what the loop does, until something is so."""
    await asyncio.to_thread(wait_until, is_there, "it")


def test_answers_are_kept_by_agents_while_their_queue_is_emptied(single_broker: PrivateBroker) -> None:
    asyncio.run(declare(single_broker, is_cluster=False))
    with server_connection(single_broker) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        publish = partial(
            channel.basic_publish, AGENTS_EXCHANGE, result_key("0" * 32), b"answer", mandatory=True
        )
        publish()
        assert asyncio.run(declare(single_broker, is_cluster=True)) == {RESULTS_QUEUE}
        # Returned, so the agent has it still; what was taken before is there.
        with pytest.raises(pika.exceptions.UnroutableError, match="1 unroutable"):
            publish()
        assert channel.basic_get(RESULTS_QUEUE, auto_ack=True)[2] == b"answer"
        assert asyncio.run(declare(single_broker, is_cluster=True)) == frozenset()
        publish()
    assert queues(single_broker)[RESULTS_QUEUE] == ("quorum", True)


def test_a_queue_that_a_server_of_one_node_still_uses_is_not_taken_from_it(
    single_broker: PrivateBroker,
) -> None:
    asyncio.run(declare(single_broker, is_cluster=False))
    with server_connection(single_broker) as connection:
        for queue in (HEARTBEATS_QUEUE, RESULTS_QUEUE):
            connection.channel().basic_consume(queue, lambda *_: None)
        said = f"{RESULTS_QUEUE} is still used as a classic queue: give every server the same relay"
        with pytest.raises(EnvironmentFailure, match=said):
            asyncio.run(declare(single_broker, is_cluster=True))
    for queue in (HEARTBEATS_QUEUE, RESULTS_QUEUE):
        assert queues(single_broker)[queue] == ("classic", True)


@pytest.mark.parametrize(("kind", "then"), [("classic", ("classic", False)), ("quorum", ("quorum", True))])
def test_a_queue_of_heartbeats_that_lasts_is_replaced_in_a_cluster_where_that_can_be_done_safely(
    single_broker: PrivateBroker, kind: str, then: tuple[str, bool]
) -> None:
    """Whether a quorum queue is in use RabbitMQ does not look at when it deletes one, so it stays."""
    limits = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000} if kind == "quorum" else {}
    with server_connection(single_broker) as connection:
        channel = connection.channel()
        channel.queue_delete(HEARTBEATS_QUEUE)
        channel.queue_declare(HEARTBEATS_QUEUE, durable=True, arguments={**HEARTBEATS_LIMITS, **limits})
        channel.basic_consume(HEARTBEATS_QUEUE, lambda *_: None)
        asyncio.run(declare(single_broker, is_cluster=True))
        assert queues(single_broker)[HEARTBEATS_QUEUE] == (kind, True)
        channel.basic_publish("", HEARTBEATS_QUEUE, b"heartbeat")
    asyncio.run(declare(single_broker, is_cluster=True))
    assert queues(single_broker)[HEARTBEATS_QUEUE] == then


def test_dead_letters_are_not_deleted_for_a_cluster(single_broker: PrivateBroker) -> None:
    asyncio.run(declare(single_broker, is_cluster=False))
    with server_connection(single_broker) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(DEAD_EXCHANGE, "", b"evidence", mandatory=True)
        asyncio.run(declare(single_broker, is_cluster=True))
        assert queues(single_broker)[DEAD_QUEUE] == ("classic", True)
        assert channel.basic_get(DEAD_QUEUE, auto_ack=True)[2] == b"evidence"
    asyncio.run(declare(single_broker, is_cluster=True))
    assert queues(single_broker)[DEAD_QUEUE] == ("quorum", True)


def test_a_broker_that_is_a_cluster_no_more_keeps_its_queues(single_broker: PrivateBroker) -> None:
    asyncio.run(declare(single_broker, is_cluster=True))
    asyncio.run(declare(single_broker, is_cluster=False))
    standing = queues(single_broker)
    assert {name: standing[name] for name in SHARED_QUEUES} == OF_A_CLUSTER


def test_an_agents_queue_is_replaced_at_its_login_and_not_while_it_is_read(
    single_broker: PrivateBroker,
) -> None:
    agent = AgentKey()
    queue = agent_queue(agent.id)

    async def welcome(*, is_cluster: bool) -> int:
        link = await Link.open(single_broker.url, name="test")
        try:
            administrator = Administrator(link, is_cluster=is_cluster)
            await administrator.declare_topology()
            return await administrator.declare_agent_queue(agent.id)
        finally:
            await link.close()

    with server_connection(single_broker) as connection:
        channel = connection.channel()
        asyncio.run(welcome(is_cluster=False))
        channel.basic_publish("", queue, b"command")
        tag = channel.basic_consume(queue, lambda *_: None)
        asyncio.run(welcome(is_cluster=True))
        assert queues(single_broker)[queue] == ("classic", True)
        channel.basic_cancel(tag)
        # Nothing is ready in the new one, so the scheduler sends again what the database has.
        assert asyncio.run(welcome(is_cluster=True)) == 0
        assert queues(single_broker)[queue] == ("classic", False)
        channel.queue_delete(queue)
