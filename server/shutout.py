"""Shutting agents out at the broker: their connections are closed and their queues deleted.

AMQP has no way to close somebody else's connection, so that needs `rabbitmqctl` (`[server] rabbitmqctl`).
Without it the queue's end cancels the agent's consumer: the agent's own code then connects again and is
denied; another program on that connection can still publish, and is believed nothing (`server.intake`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from protocol.errors import EnvironmentFailure
from server.amqp import ChannelRefused, Link
from server.brokerctl import BrokerControl
from server.config import ServerConfig
from server.topology import Administrator

_log = logging.getLogger(__name__)
_REASON = "revoked"

ShutOut = Callable[[Sequence[str]], Awaitable[None]]


async def shut_out(config: ServerConfig, agent_ids: Sequence[str]) -> None:
    """Close the agents' connections and delete their queues, over a connection of our own.

    The agents are revoked already: whatever they try meanwhile is denied.

    Raises:
        InvalidInput: `bad-config`.
        EnvironmentFailure: `broker-away` or `tool-missing`; what could be done was done.

    """
    problem: EnvironmentFailure | None = None
    if config.rabbitmqctl:
        control = BrokerControl(Path(config.rabbitmqctl))
        try:
            await asyncio.to_thread(control.close_connections, agent_ids, _REASON)
        except EnvironmentFailure as error:
            problem = error
            _log.warning("connections were not closed", extra={"reason": error})
    await _delete_queues(config, agent_ids)
    if problem is not None:
        raise problem


async def _delete_queues(config: ServerConfig, agent_ids: Sequence[str]) -> None:
    link = await Link.open_any(config.relays, name="mig-server revoke", ca=config.relay_ca)
    try:
        for agent_id in agent_ids:
            await Administrator(link).delete_agent_queue(agent_id)
    except ChannelRefused as error:
        raise EnvironmentFailure("broker-away", str(error), retryable=True) from None
    finally:
        await link.close()
