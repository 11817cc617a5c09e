"""One queue's way in: which batches are begun when, and what becomes of deliveries; on a real broker."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence

import pytest

from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.names import AGENTS_EXCHANGE, RESULTS_QUEUE, result_key
from server.amqp import Delivery, Link
from server.broker import PrivateBroker
from server.floods import RATE_LIMITED
from server.inflow import BATCH, PREFETCH, Handler, Inflow
from server.topology import Administrator
from tests.support.broker import server_connection
from tests.support.relay import PATIENCE_S, receive

pytestmark = pytest.mark.system

Check = Callable[[Inflow, Link], Awaitable[None]]


def fill(broker: PrivateBroker, count: int) -> None:
    with server_connection(broker) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for number in range(count):
            channel.basic_publish(AGENTS_EXCHANGE, result_key("any"), b"%d" % number, mandatory=True)


def run(
    broker: PrivateBroker,
    count: int,
    handler: Handler,
    check: Check,
    *,
    depth: int = 2,
    pause_s: float = 0.0,
) -> Counter[str]:
    """Let an inflow handle so many messages until the check is done; return what it counted as dead."""
    dead: Counter[str] = Counter()

    async def scenario() -> None:
        link = await Link.open(broker.url, name="test")
        await Administrator(link, is_cluster=False).declare_topology()
        await asyncio.to_thread(fill, broker, count)
        inflow = Inflow(RESULTS_QUEUE, handler, dead, depth=depth, pause_s=pause_s)
        await inflow.start(await link.channel())
        async with asyncio.timeout(PATIENCE_S):
            working = asyncio.ensure_future(inflow.work())
            await check(inflow, link)
        working.cancel()
        await asyncio.wait([working])
        await link.close()

    asyncio.run(scenario())
    return dead


async def until_idle(inflow: Inflow, link: Link) -> None:
    """Wait until all is settled, as the broker sees it too: it answers behind what was acknowledged."""
    while True:
        await inflow.idle.wait()
        inflow.idle.clear()
        if not await Administrator(link, is_cluster=False).queue_depth(RESULTS_QUEUE) and inflow.is_at_rest():
            return


class Gathered:
    """A handler that keeps what it got; `begun` is given each batch's number before it is answered."""

    def __init__(self, begun: Callable[[int], Awaitable[None]]) -> None:
        self.batches: list[list[int]] = []
        self._begun = begun

    async def handle(self, batch: Sequence[Delivery]) -> Sequence[str | None]:
        self.batches.append([int(delivery.body) for delivery in batch])
        await self._begun(len(self.batches) - 1)
        return [None] * len(batch)


def test_while_messages_wait_each_batch_is_begun_before_the_one_before_it_has_ended(
    clean_broker: PrivateBroker,
) -> None:
    count = 6 * BATCH
    begun: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)

    async def note(number: int) -> None:
        begun[number].set()
        if count - sum(map(len, gathered.batches)) >= BATCH:
            await begun[number + 1].wait()

    gathered = Gathered(note)
    run(clean_broker, count, gathered.handle, until_idle)
    # The first is what had come by then, and so is the last.
    assert [number for batch in gathered.batches for number in batch] == list(range(count))
    assert [len(batch) for batch in gathered.batches[1:-1]] == [BATCH] * (len(gathered.batches) - 2)


def test_no_more_than_its_depth_is_under_way_and_than_the_prefetch_in_memory(
    clean_broker: PrivateBroker,
) -> None:
    held: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def handle(batch: Sequence[Delivery]) -> Sequence[str | None]:
        held.update(batches=1, deliveries=len(batch))
        most.update({name: max(0, held[name] - most[name]) for name in held})
        await asyncio.sleep(0)
        held["batches"] -= 1
        held["deliveries"] -= len(batch)
        return [None] * len(batch)

    run(clean_broker, 5 * BATCH, handle, until_idle)
    assert most["batches"] <= 2
    assert most["deliveries"] <= PREFETCH
    # What was begun last may have been broken off, with the work.
    held.clear()
    most.clear()
    run(clean_broker, 3 * BATCH, handle, until_idle, depth=1)
    assert most["batches"] == 1


def test_what_comes_while_a_batch_is_under_way_waits_to_be_a_batch_together(
    clean_broker: PrivateBroker,
) -> None:
    begun, arrived = asyncio.Event(), asyncio.Event()

    async def first_waits(number: int) -> None:
        begun.set()
        if number == 0:
            await arrived.wait()

    async def check(inflow: Inflow, link: Link) -> None:
        await begun.wait()
        for _ in range(3):
            await asyncio.to_thread(fill, clean_broker, 3)
        # Answered behind what was delivered before, on one connection.
        await Administrator(link, is_cluster=False).queue_depth(RESULTS_QUEUE)
        assert len(gathered.batches) == 1
        arrived.set()
        await until_idle(inflow, link)

    gathered = Gathered(first_waits)
    run(clean_broker, 1, gathered.handle, check)
    assert len(gathered.batches[0]) == 1
    assert sum(map(len, gathered.batches)) == 10
    assert len(gathered.batches) <= 3


def is_left_alone(broker: PrivateBroker) -> bool:
    """Tell whether messages wait in the queue and nobody consumes it."""
    with server_connection(broker) as connection:
        queue = connection.channel().queue_declare(RESULTS_QUEUE, passive=True).method
        return bool(queue.message_count) and not queue.consumer_count


def test_where_many_come_they_gather_in_the_queue_and_each_is_handled_once(
    clean_broker: PrivateBroker,
) -> None:
    many = 100
    sent = 0
    gathered = Gathered(lambda _number: asyncio.sleep(0))

    async def send(count: int) -> None:
        nonlocal sent
        await asyncio.to_thread(fill, clean_broker, count)
        sent += count

    async def check(inflow: Inflow, link: Link) -> None:
        while not await asyncio.to_thread(is_left_alone, clean_broker):
            await send(many)
        await until_idle(inflow, link)
        await send(1)  # few again: a lone one is not left there
        await until_idle(inflow, link)

    run(clean_broker, 0, gathered.handle, check, depth=1, pause_s=1.0)
    assert sum(map(len, gathered.batches)) == sent


def test_refused_deliveries_are_dead_letters_dropped_ones_are_gone_and_the_others_settled(
    clean_broker: PrivateBroker,
) -> None:
    verdicts = {0: "bad-document", 1: RATE_LIMITED}

    async def handle(batch: Sequence[Delivery]) -> Sequence[str | None]:
        return [verdicts.get(int(delivery.body)) for delivery in batch]

    dead = run(clean_broker, 5, handle, until_idle)
    assert dead == {"bad-document": 1, RATE_LIMITED: 1}
    with server_connection(clean_broker) as connection:
        assert receive(connection, queue="mig.dead") == b"0"
        assert connection.channel().queue_declare(RESULTS_QUEUE, passive=True).method.message_count == 0


def test_what_makes_a_batch_fail_is_found_and_refused_alone(clean_broker: PrivateBroker) -> None:
    away = [EnvironmentFailure("database-away", retryable=True)]
    failures = {b"1": InvalidInput("bad-document", "the second"), b"2": ZeroDivisionError()}

    async def handle(batch: Sequence[Delivery]) -> Sequence[str | None]:
        for failure in [*away, *(failures[one.body] for one in batch if one.body in failures)]:
            away.clear()
            raise failure
        return [None] * len(batch)

    assert run(clean_broker, 4, handle, until_idle) == {"bad-document": 2}


def test_the_work_ends_with_its_channel(clean_broker: PrivateBroker) -> None:
    async def handle(batch: Sequence[Delivery]) -> Sequence[str | None]:
        return [None] * len(batch)

    async def check(inflow: Inflow, link: Link) -> None:
        await Administrator(link, is_cluster=False).delete_agent_queue("x")  # it lives
        channel = await link.channel()
        await channel.delete_queue(RESULTS_QUEUE)
        failure = await inflow.ended
        assert str(failure) == f"broker-away: {RESULTS_QUEUE} was deleted, or lost its node"

    run(clean_broker, 0, handle, check)
