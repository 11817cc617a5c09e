"""Publishing on a real node: what the broker took, and what it did not."""

import asyncio
from typing import Any

import pytest

from server.amqp import Link
from server.broker import PrivateBroker
from server.publisher import Message, Publisher
from tests.server.test_amqp import run
from tests.support.broker import server_connection

pytestmark = pytest.mark.system

QUEUE = "test.publisher"


@pytest.fixture
def queue(clean_broker: PrivateBroker) -> Any:
    """A queue of three messages' room, deleted afterwards."""
    with server_connection(clean_broker) as connection:
        arguments = {"x-max-length": 3, "x-overflow": "reject-publish"}
        connection.channel().queue_declare(QUEUE, durable=True, arguments=arguments)
        yield QUEUE
        connection.channel().queue_delete(QUEUE)


def message(number: int, queue: str = QUEUE, *, size: int = 10) -> Message:
    """Return a message to a queue."""
    return Message(str(number), "", queue, b"x" * size, 60_000)


def test_what_the_broker_refuses_and_what_it_cannot_route_is_not_taken(
    clean_broker: PrivateBroker, queue: str
) -> None:
    async def scenario(link: Link) -> None:
        publisher = await Publisher.on(await link.channel())
        sent = [message(0, "test.nowhere"), *(message(number, queue) for number in range(1, 6))]
        assert await publisher.publish(sent) == {"1", "2", "3"}

    run(clean_broker, scenario)


def test_more_than_the_window_holds_is_published_in_turn(clean_broker: PrivateBroker) -> None:
    async def scenario(link: Link) -> None:
        declaring = await link.channel()
        await declaring.declare_queue("test.large", {})
        publisher = await Publisher.on(await link.channel(), window=7, window_bytes=2500)
        sent = [message(number, "test.large", size=1000) for number in range(200)]
        assert await publisher.publish(sent) == {each.id for each in sent}
        assert await declaring.queue_depth("test.large") == len(sent)
        await declaring.delete_queue("test.large")

    run(clean_broker, scenario)


def test_what_is_under_way_when_the_connection_goes_is_not_taken(clean_broker: PrivateBroker) -> None:
    async def scenario(link: Link) -> None:
        publisher = await Publisher.on(await link.channel())
        publishing = asyncio.ensure_future(publisher.publish([message(1, "test.nowhere")] * 2000))
        await link.close()
        assert await publishing == frozenset()
        assert await publisher.publish([message(2)]) == frozenset()

    run(clean_broker, scenario)
