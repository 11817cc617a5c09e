"""The server's side of the relay: topology, commands out, agents' messages in, for ever.

Rules:
1. A command counts as sent only when the broker took it into a queue and said so.
2. A delivery is acknowledged after its handler has committed, never before; one that the handler refuses goes
   to `mig.dead`, is counted, and holds up nobody. What is one too many is counted, and gone.
3. What is published goes over a connection of its own: a broker whose memory or disk is short reads nothing
   more of one that publishes, and would hear no acknowledgement, which is what makes room there.
4. Whatever fails, the relay connects again, with growing and jittered pauses, until it is cancelled. Of a
   cluster's nodes it takes the first that lets it in, and the next one when that is gone.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import cycle
from typing import Protocol, TypeVar

from protocol import names
from protocol.errors import EnvironmentFailure
from server.amqp import ChannelRefused, Link
from server.inflow import Handler, Inflow
from server.publisher import Message, Publisher
from server.rows import PendingCommand
from server.topology import Administrator

_log = logging.getLogger(__name__)
_R = TypeVar("_R")

_CHECK_TTL_MS = 1000
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0
_NEWS_TTL_MS = 60_000
# Answers are independent of each other; what heartbeats set off is not.
_DEPTHS = {names.RESULTS_QUEUE: 2}
# What a heartbeat costs is mostly what its batch costs: a transaction, and some queries. Those of a fleet
# come one by one, so they are waited for a little; a lone one is not.
_PAUSES_S = {names.HEARTBEATS_QUEUE: 1.0}
# The broker syncs its disk for each queue; of several that are declared at once, for all of them together.
# And a busy broker answers late: with eight, logins waited for each other while nobody worked for them.
_ADMINISTRATORS = 24
_LOOK_AGAIN_S = 5.0


class Random(Protocol):
    """The part of `random.Random` that is used."""

    def uniform(self, a: float, b: float) -> float:
        """Return a number between two."""


class Relay:
    """The relay of one server; `dead` counts refused and dropped messages by code."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        is_cluster: bool = False,
        clock: Callable[[], datetime],
        random: Random,
        ca: str = "",
        own_queue: str = "",
    ) -> None:
        self._urls = urls
        self._is_cluster = is_cluster
        self._own_queue = own_queue  # in which this server hears of others; empty where it is alone
        self._ca = ca
        self._clock = clock
        self._random = random
        self._publisher: Publisher | None = None
        self._outward: Link | None = None  # which the publisher publishes on
        # Free ones, of this connection; None without one.
        self._administrators: list[Administrator] | None = None
        self._administering = asyncio.Semaphore(_ADMINISTRATORS)
        self._connected = asyncio.Event()
        self._checking: asyncio.Future[frozenset[str]] | None = None
        self.dead: Counter[str] = Counter()

    @property
    def is_connected(self) -> bool:
        """Tell whether commands can be published now."""
        return self._connected.is_set()

    async def wait_connected(self, wait_s: float) -> bool:
        """Wait until commands can be published, at most `wait_s`; tell whether they can."""
        try:
            await asyncio.wait_for(self._connected.wait(), wait_s)
        except TimeoutError:
            return False
        return True

    async def run(self, handlers: Mapping[str, Handler], on_connected: Callable[[], None]) -> None:
        """Connect, work, and connect again, until cancelled.

        `handlers` by queue name; `on_connected` is called whenever the topology stands and publishing works.
        """
        pause_s = _FIRST_PAUSE_S
        last_problem = ""
        for url in cycle(self._urls):
            links: list[Link] = []
            try:
                links.append(await Link.open(url, name="mig-server", ca=self._ca))
                links.append(await Link.open(url, name="mig-server publishing", ca=self._ca))
                reason = await self._work(links[0], links[1], handlers, on_connected)
                pause_s, last_problem = _FIRST_PAUSE_S, ""
            except (EnvironmentFailure, ChannelRefused) as error:
                reason = error
            finally:
                await self._tear_down(links)
            if str(reason) != last_problem:  # once, not at each of a night's attempts
                _log.warning("the broker is away", extra={"reason": reason})
                last_problem = str(reason)
            await asyncio.sleep(self._random.uniform(pause_s / 2, pause_s))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def publish(self, commands: Sequence[PendingCommand]) -> frozenset[str]:
        """Publish commands; return the ids of those that the broker took into the agents' queues.

        What has expired meanwhile is not published. An agent whose queue is gone (unread for long, or deleted
        by hand) gets a new one, so its commands wait there like everybody's.
        """
        taken = await self._publish(commands)
        left = [command for command in commands if command.id not in taken]
        if not left or not self.is_connected:
            return taken
        agent_ids = sorted({command.agent_id for command in left})
        depths = await asyncio.gather(*map(self.declare_agent_queue, agent_ids), return_exceptions=True)
        for depth in depths:
            if isinstance(depth, BaseException) and not isinstance(depth, EnvironmentFailure):
                raise depth
        declared = {agent_id for agent_id, depth in zip(agent_ids, depths, strict=True) if depth == 0}
        again = [command for command in left if command.agent_id in declared]
        return taken | await self._publish(again) if again else taken

    async def _publish(self, commands: Sequence[PendingCommand]) -> frozenset[str]:
        if self._publisher is None:
            return frozenset()
        now = self._clock()
        messages = []
        for command in commands:
            ttl_ms = int((command.expireafter - now).total_seconds() * 1000)
            if ttl_ms > 0:
                messages.append(
                    Message(command.id, names.COMMANDS_EXCHANGE, command.agent_id, command.body, ttl_ms)
                )
        return await self._publisher.publish(messages)

    async def publish_documents(self, bodies: Mapping[str, bytes], ttl_s: int) -> frozenset[str]:
        """Publish one document to each of some agents, by their ids; return those whose queue took theirs.

        Documents are not commands: nobody sends one again that the broker did not take.
        """
        if self._publisher is None:
            return frozenset()
        return await self._publisher.publish(
            [
                Message(agent_id, names.COMMANDS_EXCHANGE, agent_id, body, ttl_s * 1000)
                for agent_id, body in bodies.items()
            ]
        )

    async def broadcast(self, body: bytes) -> None:
        """Bring one message to every server, this one included.

        Raises:
            EnvironmentFailure: `broker-away`; nobody sends it again.

        """
        if self._publisher is None:
            raise EnvironmentFailure("broker-away", retryable=True)
        message = Message("news", names.SERVERS_EXCHANGE, "", body, _NEWS_TTL_MS)
        await self._publisher.publish([message])

    async def declare_agent_queue(self, agent_id: str) -> int:
        """Declare and bind an agent's queue; return how many commands are ready in it.

        Raises:
            EnvironmentFailure: `broker-away`.

        """
        return await self._administer(lambda administrator: administrator.declare_agent_queue(agent_id))

    async def queue_depths(self, queues: Collection[str]) -> dict[str, int]:
        """Return how many messages are ready in each of some queues.

        Raises:
            EnvironmentFailure: `broker-away`.

        """

        async def ask(administrator: Administrator) -> dict[str, int]:
            return {queue: await administrator.queue_depth(queue) for queue in queues}

        return await self._administer(ask)

    async def _administer(self, operation: Callable[[Administrator], Awaitable[_R]]) -> _R:
        async with self._administering:
            free = self._administrators
            if free is None:
                raise EnvironmentFailure("broker-away", retryable=True)
            administrator = free.pop()
            try:
                return await operation(administrator)
            except ChannelRefused as error:
                raise EnvironmentFailure("broker-away", str(error), retryable=True) from None
            finally:
                free.append(administrator)

    async def check(self) -> None:
        """Return when the broker has answered a question, and has taken a message.

        Raises:
            EnvironmentFailure: `broker-away`, or `broker-full` where it takes none now.

        """
        await self.queue_depths([names.HEARTBEATS_QUEUE])
        publisher, outward = self._publisher, self._outward
        if publisher is None or outward is None:
            raise EnvironmentFailure("broker-away", retryable=True)
        if not outward.blocked.is_set():
            # To nobody, so that it is returned. Of what waits on a blocked connection there is at most one.
            message = Message("check", names.COMMANDS_EXCHANGE, "", b"", _CHECK_TTL_MS)
            self._checking = asyncio.ensure_future(publisher.publish([message]))
            blocked = asyncio.ensure_future(outward.blocked.wait())
            await asyncio.wait({self._checking, blocked}, return_when=asyncio.FIRST_COMPLETED)
            blocked.cancel()
        if outward.blocked.is_set():
            raise EnvironmentFailure("broker-full", retryable=True)

    async def _work(
        self, link: Link, outward: Link, handlers: Mapping[str, Handler], on_connected: Callable[[], None]
    ) -> Exception:
        """Set up, consume, and return the reason why that ended."""
        administrators = [Administrator(link, is_cluster=self._is_cluster) for _ in range(_ADMINISTRATORS)]
        left = await administrators[0].declare_topology()
        if self._own_queue:
            await administrators[0].declare_server_queue(self._own_queue)
        publishing = await outward.channel()
        self._outward = outward
        self._publisher = await Publisher.on(publishing)
        self._administrators = administrators
        inflows = [
            Inflow(
                queue,
                handler,
                self.dead,
                depth=_DEPTHS.get(queue, 1),
                pause_s=_PAUSES_S.get(queue, 0.0),
            )
            for queue, handler in handlers.items()
        ]
        channels = [publishing]
        # Before the group: what fails in its body comes out as a group, which `run` does not expect.
        for inflow in inflows:
            channel = await link.channel()
            await inflow.start(channel)
            channels.append(channel)
        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(inflow.work()) for inflow in inflows]
            _log.info("connected to the broker")
            self._connected.set()
            on_connected()
            ends: list[asyncio.Future[Exception]] = [link.closed, outward.closed]
            ends += [channel.closed for channel in channels] + [inflow.ended for inflow in inflows]
            workers += [tasks.create_task(self._end_when_empty(one)) for one in inflows if one.queue in left]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            self._connected.clear()
            for worker in workers:
                worker.cancel()
        return next(end.result() for end in ends if end.done())

    async def _end_when_empty(self, inflow: Inflow) -> None:
        """End the work once a queue that must be declared anew is empty."""
        while True:
            with suppress(TimeoutError):  # another server may take all that is left
                await asyncio.wait_for(inflow.idle.wait(), _LOOK_AGAIN_S)
            inflow.idle.clear()
            try:
                depths = await self.queue_depths([inflow.queue])
            except EnvironmentFailure:
                return  # the connection is gone, and the work with it
            if not any(depths.values()) and inflow.is_at_rest():
                inflow.end("is empty and can be declared anew")
                return

    async def _tear_down(self, links: Sequence[Link]) -> None:
        self._connected.clear()
        self._publisher = self._outward = self._administrators = None
        await asyncio.gather(*(link.close() for link in links))
