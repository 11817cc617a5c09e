"""Exchanges and queues: what they are called, how large they may grow, and how they come to stand.

Rules:
1. Only the server declares. What stands already with other limits is used as it is, with a warning: nothing
   is deleted to change a limit (`docs/operating.md` says how to).
2. On one node every queue is classic and durable. In a cluster what must outlive a node is a quorum queue. An
   agent's queue is there a classic one that is not durable: it goes with its node instead of standing in the
   way of a new one, and the agent's next login makes that, on a node drawn at random. What was in it the
   database has (ADR 12). So is that of heartbeats, which the next server makes anew that connects: every
   minute brings new ones, and a quorum queue syncs each to several disks.
3. A broker that becomes a cluster: what the database has, and heartbeats, are deleted and declared anew,
   unless they are in use. Answers are not: `mig.results` is unbound, so that agents keep theirs, consumed
   until it is empty, and deleted only then, while nobody consumes it. Of the dead letters nothing is deleted.
"""

import logging
from collections.abc import Mapping

from protocol import names
from protocol.errors import EnvironmentFailure
from server.amqp import PRECONDITION_FAILED, Channel, ChannelRefused, Link

_log = logging.getLogger(__name__)

MAX_VALIDITY_S = 7 * 86400
_TYPE = "x-queue-type"  # in the broker's text of a refusal, where a queue is of another type
_KEEPS_LIMITS = "a queue keeps its other limits"

_DEAD_LETTERS: Mapping[str, str | int] = {"x-dead-letter-exchange": names.DEAD_EXCHANGE}
# Full queues refuse, so that the sender keeps what it has: agents spool answers, the database commands.
_REFUSE_WHEN_FULL: Mapping[str, str | int] = {"x-overflow": "reject-publish"}
_QUEUES: Mapping[str, Mapping[str, str | int]] = {
    names.RESULTS_QUEUE: {
        **_DEAD_LETTERS,
        **_REFUSE_WHEN_FULL,
        "x-max-length": 100_000,
        "x-max-length-bytes": 1 << 30,
    },
    names.HEARTBEATS_QUEUE: {
        **_DEAD_LETTERS,
        **_REFUSE_WHEN_FULL,
        "x-max-length": 100_000,
        "x-max-length-bytes": 256 << 20,
    },
    names.ALERTS_QUEUE: {
        **_DEAD_LETTERS,
        **_REFUSE_WHEN_FULL,
        "x-max-length": 100_000,
        "x-max-length-bytes": 256 << 20,
    },
    # Kept for a person to look at: the oldest make room, and after a month they go.
    names.DEAD_QUEUE: {
        "x-overflow": "drop-head",
        "x-max-length": 10_000,
        "x-max-length-bytes": 64 << 20,
        "x-message-ttl": 30 * 86400 * 1000,
    },
}
AGENT_QUEUE: Mapping[str, str | int] = {
    **_REFUSE_WHEN_FULL,
    "x-max-length": 1000,
    "x-max-length-bytes": 64 << 20,
    # A queue that no agent reads goes a day after the last command in it has expired.
    "x-expires": (MAX_VALIDITY_S + 86400) * 1000,
}
# RabbitMQ 4 buries what it has delivered 20 times; a server that is killed so often must not cost an answer.
_QUORUM: Mapping[str, str | int] = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
# Else all would lie on the node that the server is connected to, and go with it.
_SPREAD: Mapping[str, str | int] = {"x-queue-master-locator": "random"}
# News are worth nothing once they are old: every server looks for itself (`server.neighbours`).
_PRIVATE_QUEUE: Mapping[str, str | int] = {
    "x-overflow": "drop-head",
    "x-max-length": 1000,
    "x-message-ttl": 60_000,
}
_EXCHANGES = (
    (names.SERVERS_EXCHANGE, "fanout"),
    (names.COMMANDS_EXCHANGE, "direct"),
    (names.AGENTS_EXCHANGE, "topic"),
    (names.DEAD_EXCHANGE, "fanout"),
)
_BINDINGS = (
    (names.RESULTS_QUEUE, names.AGENTS_EXCHANGE, names.result_key("*")),
    (names.HEARTBEATS_QUEUE, names.AGENTS_EXCHANGE, names.heartbeat_key("*")),
    (names.ALERTS_QUEUE, names.AGENTS_EXCHANGE, names.alert_key("*")),
    (names.DEAD_QUEUE, names.DEAD_EXCHANGE, ""),
)


class Administrator:
    """Declares on a channel of its own, opened again after each operation that the broker refused.

    Every method raises `ChannelRefused` or `EnvironmentFailure` (`broker-away`).
    """

    def __init__(self, link: Link, *, is_cluster: bool = False) -> None:
        self._link = link
        self._is_cluster = is_cluster
        self._channel: Channel | None = None

    async def declare_topology(self) -> frozenset[str]:
        """Declare what all agents share; return the queues that must be emptied first (rule 3)."""
        for exchange, kind in _EXCHANGES:
            await (await self._open()).declare_exchange(exchange, kind)
        left = set()
        for queue, arguments in _QUEUES.items():
            if not self._is_cluster:
                await self._declare_queue(queue, arguments)
            elif queue == names.HEARTBEATS_QUEUE:
                await self._declare_heartbeats(arguments)
            elif not await self._declare_quorum(queue, arguments):
                left.add(queue)
        for queue, exchange, routing_key in _BINDINGS:
            if queue not in left:
                await (await self._open()).bind_queue(queue, exchange, routing_key)
        return frozenset(left)

    async def _declare_quorum(self, queue: str, arguments: Mapping[str, str | int]) -> bool:
        """Declare a queue that several nodes keep; false where a classic one holds answers in its place."""
        arguments = {**arguments, **_QUORUM}
        try:
            await (await self._open()).declare_queue(queue, arguments)
        except ChannelRefused as error:
            if error.reply_code != PRECONDITION_FAILED:
                raise
            if _TYPE not in str(error):
                _log.warning(_KEEPS_LIMITS, extra={"queue": queue, "reason": error})
                return True
            if queue == names.RESULTS_QUEUE:
                channel = await self._open()
                await channel.unbind_queue(queue, names.AGENTS_EXCHANGE, names.result_key("*"))
                if await channel.queue_depth(queue):
                    _log.warning("answers are taken from the classic queue first", extra={"queue": queue})
                    return False
            if not await self._delete_classic(queue):
                return True
            await (await self._open()).declare_queue(queue, arguments)
            _log.warning(
                "a classic queue was replaced by one that several nodes keep", extra={"queue": queue}
            )
        return True

    async def _declare_heartbeats(self, arguments: Mapping[str, str | int]) -> None:
        """Declare the queue of heartbeats; a quorum queue, which earlier versions made, stays.

        RabbitMQ deletes no quorum queue on the condition that nobody uses it.
        """
        queue = names.HEARTBEATS_QUEUE
        try:
            await (await self._open()).declare_queue(queue, arguments, durable=False)
        except ChannelRefused as error:
            if error.reply_code != PRECONDITION_FAILED:
                raise
        else:
            return
        try:
            await (await self._open()).declare_queue(queue, {**arguments, **_QUORUM})
        except ChannelRefused as error:
            if error.reply_code != PRECONDITION_FAILED:
                raise
            if _TYPE in str(error):
                await self._declare_volatile(queue, arguments)
                return
        text = "heartbeats have an earlier version's queue: delete it while no server runs"
        _log.warning(text, extra={"queue": queue})

    async def _delete_classic(self, queue: str) -> bool:
        """Delete an empty queue that a cluster should not have; false for dead letters."""
        try:
            await (await self._open()).delete_queue(queue, if_unused=True, if_empty=True)
        except ChannelRefused as error:
            if error.reply_code != PRECONDITION_FAILED:
                raise
            if queue == names.DEAD_QUEUE:
                text = "the dead letters stay on one node: look at them, and delete the queue"
                _log.warning(text, extra={"queue": queue})
                return False
            text = f"{queue} is still used as a classic queue: give every server the same relay ({error})"
            raise EnvironmentFailure("broker-away", text, retryable=True) from None
        return True

    async def declare_server_queue(self, queue: str) -> None:
        """Declare and bind the queue in which this server hears of the others, for this connection."""
        await (await self._open()).declare_private_queue(queue, _PRIVATE_QUEUE)
        await (await self._open()).bind_queue(queue, names.SERVERS_EXCHANGE, "")

    async def declare_agent_queue(self, agent_id: str) -> int:
        """Declare and bind an agent's queue; return how many commands are ready in it."""
        queue = names.agent_queue(agent_id)
        if self._is_cluster:
            depth = await self._declare_volatile(queue, {**AGENT_QUEUE, **_SPREAD})
        else:
            depth = await self._declare_queue(queue, AGENT_QUEUE)
        await (await self._open()).bind_queue(queue, names.COMMANDS_EXCHANGE, agent_id)
        return depth

    async def _declare_volatile(self, queue: str, arguments: Mapping[str, str | int]) -> int:
        """Declare a queue that goes with its node; one that would not is replaced, unless it is in use."""
        try:
            return await (await self._open()).declare_queue(queue, arguments, durable=False)
        except ChannelRefused as error:
            if error.reply_code != PRECONDITION_FAILED:
                raise
        try:
            await (await self._open()).delete_queue(queue, if_unused=True)
        except ChannelRefused as error:
            if error.reply_code != PRECONDITION_FAILED:
                raise
            return await (await self._open()).queue_depth(queue)
        return await (await self._open()).declare_queue(queue, arguments, durable=False)

    async def delete_agent_queue(self, agent_id: str) -> None:
        """Delete an agent's queue, which ends its consumer too; none there is fine."""
        await (await self._open()).delete_queue(names.agent_queue(agent_id))

    async def queue_depth(self, queue: str) -> int:
        """Return how many messages are ready in a queue."""
        return await (await self._open()).queue_depth(queue)

    async def _declare_queue(self, queue: str, arguments: Mapping[str, str | int]) -> int:
        try:
            return await (await self._open()).declare_queue(queue, arguments)
        except ChannelRefused as error:
            if error.reply_code != PRECONDITION_FAILED:
                raise
            _log.warning(_KEEPS_LIMITS, extra={"queue": queue, "reason": error})
            return await (await self._open()).queue_depth(queue)

    async def _open(self) -> Channel:
        if self._channel is None or not self._channel.is_open:
            self._channel = await self._link.channel()
        return self._channel
