"""What `mig-server doctor` tries on the broker.

The questions that the broker asks about agents are tested end to end: a throw-away agent logs in with a
signature for another broker, which every server denies, and the server is asked whether it heard of it.
"""

import asyncio
import http.client
import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple

import pika
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import names
from protocol.errors import EnvironmentFailure
from protocol.identity import agent_id, make_broker_password
from server.amqp import NOT_FOUND, ChannelRefused, Link, parse_url
from server.brokerfiles import VHOST
from server.config import ServerConfig

_TIMEOUT_S = 10.0
_NAME = "mig-server doctor"
_NO_BROKER = "(doctor)"  # no server can have this name


class BrokerFinding(NamedTuple):
    """What was tried, the problem or None, and what is said where there is none."""

    subject: str
    problem: Exception | None
    well: str


BrokerFindings = Sequence[BrokerFinding]


async def examine_broker(config: ServerConfig, *, is_serving: bool) -> BrokerFindings:
    """Try what a server and an agent need of the broker.

    Raises:
        InvalidInput: `bad-config`.
        EnvironmentFailure: `broker-away` where it cannot be reached, or does not let the server in.

    """
    findings: list[BrokerFinding] = []
    url = config.relays[0]
    if len(config.relays) > 1:
        findings, url = await _nodes(config)
    link = await Link.open(url, name=_NAME, ca=config.relay_ca)
    try:
        findings += [await _permissions(link), *await _queues(link)]
    finally:
        await link.close()
    if is_serving:
        findings.append(await asyncio.to_thread(_agents_login, config, url))
    return findings


async def _nodes(config: ServerConfig) -> tuple[list[BrokerFinding], str]:
    """Try each node of a cluster; return what is said of them, and the URL of the first that lets us in."""
    findings, reached = [], []
    for url in config.relays:
        parameters = parse_url(url, config.relay_ca)
        subject = f"broker node {parameters.host}:{parameters.port}"
        try:
            link = await Link.open(url, name=_NAME, ca=config.relay_ca)
        except EnvironmentFailure as error:
            # One that is away is what the others are for; somebody should know.
            findings.append(BrokerFinding(subject, Exception(f"is away: {error.detail}"), ""))
        else:
            reached.append(url)
            findings.append(BrokerFinding(subject, None, "reached, and let in"))
            await link.close()
    return findings, (reached or config.relays)[0]


async def _permissions(link: Link) -> BrokerFinding:
    """Declare, bind, read and delete a queue that nobody else has."""
    queue = f"mig.doctor.{secrets.token_hex(8)}"
    try:
        channel = await link.channel()
        await channel.declare_exchange(names.COMMANDS_EXCHANGE, "direct")
        await channel.declare_queue(queue, {"x-expires": 60_000})
        await channel.bind_queue(queue, names.COMMANDS_EXCHANGE, queue)
        await channel.delete_queue(queue)
    except ChannelRefused as refused:
        problem = EnvironmentFailure(
            "broker-away",
            f"the server's account may not do its work ({refused}); run: mig-server broker setup",
        )
        return BrokerFinding("broker permissions", problem, "")
    return BrokerFinding("broker permissions", None, "the server's account may declare, bind and delete")


async def _queues(link: Link) -> list[BrokerFinding]:
    depths: dict[str, int | None] = {}
    for queue in (names.RESULTS_QUEUE, names.HEARTBEATS_QUEUE, names.DEAD_QUEUE):
        channel = await link.channel()
        try:
            depths[queue] = await channel.queue_depth(queue)
        except ChannelRefused as refused:
            if refused.reply_code != NOT_FOUND:
                raise EnvironmentFailure("broker-away", str(refused)) from None
            depths[queue] = None
    missing = [queue for queue, depth in depths.items() if depth is None]
    problem = Exception(f"{', '.join(missing)} not there: mig-server serve makes them") if missing else None
    waiting = ", ".join(f"{depth} in {queue}" for queue, depth in depths.items())
    findings = [BrokerFinding("queues", problem, waiting)]
    if depths[names.DEAD_QUEUE]:
        text = f"{depths[names.DEAD_QUEUE]} messages were refused; the log says whose: 'refused a message'"
        findings.append(BrokerFinding("dead letters", Exception(text), ""))
    return findings


def _agents_login(config: ServerConfig, url: str) -> BrokerFinding:
    """Let a throw-away agent try to log in, and ask the server whether the broker asked about it."""
    subject = "agents' logins"
    key = Ed25519PrivateKey.generate()
    user = agent_id(key.public_key().public_bytes_raw())
    password = make_broker_password(
        key, broker=_NO_BROKER, vhost=VHOST, time=int(time.time()), nonce=secrets.token_bytes(16)
    )
    parameters = parse_url(url, config.relay_ca)
    parameters.credentials = pika.PlainCredentials(user, password)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = _TIMEOUT_S
    try:
        pika.BlockingConnection(parameters).close()
    except pika.exceptions.ProbableAuthenticationError:
        pass  # as it should be
    except pika.exceptions.AMQPError as error:
        text = f"a login ended with {type(error).__name__}; see the broker's log"
        return BrokerFinding(subject, EnvironmentFailure("broker-away", text), "")
    else:
        text = "one that must be denied was let in: look at auth_backends of the broker"
        return BrokerFinding(subject, EnvironmentFailure("unsafe-file", text), "")
    if _was_heard(config, user):
        return BrokerFinding(subject, None, "the broker asks the server, which denies whom it must")
    where = f"http://{config.broker_auth_listen}"
    text = f"the broker does not ask {where} about agents, so none can log in; run: mig-server broker setup"
    return BrokerFinding(subject, EnvironmentFailure("broker-away", text), "")


def _was_heard(config: ServerConfig, user: str) -> bool:
    address = config.broker_auth_address
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT_S)
    with closing(connection):
        try:
            connection.request("POST", "/auth/heard", f"username={user}")
            return connection.getresponse().read(16) == b"allow"
        except (OSError, http.client.HTTPException):
            return False
