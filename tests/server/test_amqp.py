import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from protocol.errors import EnvironmentFailure
from server.amqp import ChannelRefused, Link, Message, Publisher
from server.broker import PrivateBroker
from tests.support.broker import free_port, server_connection

pytestmark = pytest.mark.system

QUEUE = "test.amqp"


@pytest.fixture
def queue(clean_broker: PrivateBroker) -> Any:
    """A queue of three messages' room, deleted afterwards."""
    with server_connection(clean_broker) as connection:
        arguments = {"x-max-length": 3, "x-overflow": "reject-publish"}
        connection.channel().queue_declare(QUEUE, durable=True, arguments=arguments)
        yield QUEUE
        connection.channel().queue_delete(QUEUE)


def run(broker: PrivateBroker, scenario: Callable[[Link], Awaitable[None]]) -> None:
    """Run a scenario on an open connection."""

    async def whole() -> None:
        link = await Link.open(broker.url, name="test")
        try:
            await scenario(link)
        finally:
            await link.close()

    asyncio.run(whole())


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


def test_a_refused_operation_says_why_and_closes_only_its_channel(clean_broker: PrivateBroker) -> None:
    async def scenario(link: Link) -> None:
        first, second = await link.channel(), await link.channel()
        with pytest.raises(ChannelRefused, match="404 NOT_FOUND") as refused:
            await first.queue_depth("test.nowhere")
        assert refused.value.reply_code == 404
        assert not first.is_open
        with pytest.raises(ChannelRefused, match="404"):
            await first.queue_depth("test.nowhere")
        assert second.is_open
        await second.delete_queue("test.nowhere")

    run(clean_broker, scenario)


def test_a_broker_that_is_away_is_named_by_the_systems_own_words() -> None:
    with pytest.raises(EnvironmentFailure, match="broker-away: .*Connection refused") as away:
        asyncio.run(Link.open(f"amqp://a:b@127.0.0.1:{free_port()}/mig", name="test"))
    assert away.value.retryable


def test_a_wrong_password_is_no_reason_to_hang(clean_broker: PrivateBroker) -> None:
    url = clean_broker.url.replace("mig-server:", "mig-server:x")
    with pytest.raises(EnvironmentFailure, match="broker-away: .*ACCESS_REFUSED"):
        asyncio.run(Link.open(url, name="test"))


def test_waiting_operations_fail_when_the_connection_goes(clean_broker: PrivateBroker) -> None:
    async def scenario(link: Link) -> None:
        channel = await link.channel()
        waiting = asyncio.ensure_future(channel.queue_depth("amq.none"))
        opening = asyncio.ensure_future(link.channel())
        await asyncio.sleep(0)
        await link.close()
        results = await asyncio.gather(waiting, opening, return_exceptions=True)
        assert all(isinstance(result, (EnvironmentFailure, ChannelRefused)) for result in results)

    run(clean_broker, scenario)
