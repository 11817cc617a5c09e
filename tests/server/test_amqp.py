import asyncio
from collections.abc import Awaitable, Callable

import pytest

from protocol.errors import EnvironmentFailure
from server.amqp import ChannelRefused, Link
from server.broker import PrivateBroker
from tests.support.ports import free_port

pytestmark = pytest.mark.system


def run(broker: PrivateBroker, scenario: Callable[[Link], Awaitable[None]]) -> None:
    """Run a scenario on an open connection."""

    async def whole() -> None:
        link = await Link.open(broker.url, name="test")
        try:
            await scenario(link)
        finally:
            await link.close()

    asyncio.run(whole())


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
