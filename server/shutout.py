"""Shutting an agent out at the broker, with nothing but AMQP."""

from protocol.errors import EnvironmentFailure
from server.amqp import ChannelRefused, Link
from server.topology import Administrator


async def delete_agent_queue(url: str, agent_id: str) -> None:
    """Delete an agent's queue over a connection of its own, which ends the agent's consumer.

    AMQP has no way to close somebody else's connection. The agent's own code connects again when its consumer
    is cancelled, and is then denied; another program on that connection can still publish, and is believed
    nothing (`server.intake`).

    Raises:
        InvalidInput: `bad-config`.
        EnvironmentFailure: `broker-away`.

    """
    link = await Link.open(url, name="mig-server agent revoke")
    try:
        await Administrator(link).delete_agent_queue(agent_id)
    except ChannelRefused as error:
        raise EnvironmentFailure("broker-away", str(error), retryable=True) from None
    finally:
        await link.close()
