"""Exchanges and queues: what they are called, how large they may grow, and how they come to stand.

Only the server declares. What stands already with other limits is used as it is, with a warning: nothing is
deleted to change a limit (`docs/operating.md` says how to).
"""

import logging
from collections.abc import Mapping

from protocol import names
from server.amqp import PRECONDITION_FAILED, Channel, ChannelRefused, Link

_log = logging.getLogger(__name__)

MAX_VALIDITY_S = 7 * 86400

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

    def __init__(self, link: Link) -> None:
        self._link = link
        self._channel: Channel | None = None

    async def declare_topology(self) -> None:
        """Declare what all agents share."""
        for exchange, kind in _EXCHANGES:
            await (await self._open()).declare_exchange(exchange, kind)
        for queue, arguments in _QUEUES.items():
            await self._declare_queue(queue, arguments)
        for queue, exchange, routing_key in _BINDINGS:
            await (await self._open()).bind_queue(queue, exchange, routing_key)

    async def declare_server_queue(self, queue: str) -> None:
        """Declare and bind the queue in which this server hears of the others, for this connection."""
        await (await self._open()).declare_private_queue(queue, _PRIVATE_QUEUE)
        await (await self._open()).bind_queue(queue, names.SERVERS_EXCHANGE, "")

    async def declare_agent_queue(self, agent_id: str) -> int:
        """Declare and bind an agent's queue; return how many commands are ready in it."""
        queue = names.agent_queue(agent_id)
        depth = await self._declare_queue(queue, AGENT_QUEUE)
        await (await self._open()).bind_queue(queue, names.COMMANDS_EXCHANGE, agent_id)
        return depth

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
            _log.warning("a queue keeps its other limits", extra={"queue": queue, "reason": error})
            return await (await self._open()).queue_depth(queue)

    async def _open(self) -> Channel:
        if self._channel is None or not self._channel.is_open:
            self._channel = await self._link.channel()
        return self._channel
