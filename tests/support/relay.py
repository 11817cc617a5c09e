"""A server's relay, scheduler and broker authentication on a real node, without its API."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pika

from protocol.action import Action, Operation, encode_action
from protocol.command import CommandState
from protocol.documents import Pacing
from protocol.envelope import (
    ACTION,
    HEARTBEAT,
    NOTICE,
    RESULT,
    Envelope,
    Signature,
    encode_envelope,
    peek_type,
)
from protocol.heartbeat import Heartbeat
from protocol.names import AGENTS_EXCHANGE, agent_queue, command_id, heartbeat_key, result_key
from protocol.result import OperationResult, Result
from server.broker import PrivateBroker
from server.config import ServerConfig, parse_listen
from server.database import Database
from server.events import Events, Wake
from server.front import listen_on
from server.parts import Parts, assemble, utc_now
from server.questions import Questions
from server.rows import ActionRow, Manner
from server.store import Store
from tests.support.broker import AgentKey
from tests.support.database import migrated_database

PATIENCE_S = 30.0


def make_config(
    broker: PrivateBroker, directory: Path, *, enrolment: str = "open", url: str = ""
) -> ServerConfig:
    """Make the configuration of a server that uses this node."""
    return msgspec.convert(
        {
            "name": "mig",
            "url": "http://127.0.0.1:1664",
            "listen": "127.0.0.1:1664",
            "broker_auth_listen": broker.auth_listen,
            "database": f"sqlite:///{directory / 'mig.sqlite'}",
            "relay": url or broker.url,
            "enrolment": enrolment,
            "state_dir": str(directory),
            "agents_dir": str(directory),
            "rabbitmqctl": str(broker.rabbitmqctl),
        },
        ServerConfig,
    )


class Operator:
    """Does with a server's store what investigators and agents do, and waits for what the server does."""

    def __init__(
        self, database: Database, store: Store, events: Events, wake: Wake, clock: Callable[[], datetime]
    ) -> None:
        self.database = database
        self.store = store
        self.events = events
        self.wake = wake
        self.clock = clock

    async def submit(self, *agents: AgentKey, expires_s: float = 300, pacing: Pacing | None = None) -> Action:
        """Create an action with one command for each agent, as the API does."""
        now = self.clock()
        action = Action(
            id=str(uuid.uuid4()),
            name="test",
            target="os = 'linux'",
            validfrom=now - timedelta(minutes=1),
            expireafter=now + timedelta(seconds=expires_s),
            operations=(Operation(module="agentinfo", parameters={}),),
            syntaxversion=2,
        )
        envelope = Envelope(ACTION, encode_action(action), (Signature("0" * 40, b"not checked here"),))
        ids = [agent.id for agent in agents]
        arguments = (action, encode_envelope(envelope), envelope.digest, ["0" * 40], "0" * 40, ids, now)
        await self.database.run(self.store.create_action, *arguments, manner=Manner(pacing=pacing))
        self.wake.set()
        return action

    async def body(self, action: Action) -> bytes:
        """Return the bytes that agents get for an action."""
        return (await self._row(action)).envelope

    async def digest(self, action: Action) -> str:
        """Return the digest of an action's payload."""
        return (await self._row(action)).digest

    async def _row(self, action: Action) -> ActionRow:
        row = await self.database.read(self.store.get_action, action.id)
        assert row is not None
        return row

    async def enrol(self, *agents: AgentKey) -> None:
        """Enrol agents that have not logged in yet."""
        for agent in agents:
            await self.database.run(self.store.enrol_agent, agent.id, agent.public, "open", self.clock())

    async def state(self, action: Action, agent: AgentKey) -> CommandState:
        """Return the state of one command."""
        commands = await self.database.read(self.store.list_commands, action.id)
        return next(command.state for command in commands if command.agent_id == agent.id)

    async def until_state(self, action: Action, agent: AgentKey, *states: CommandState) -> None:
        """Wait, by the news that followers get, until a command is in one of these states."""
        with self.events.follow(action.id) as follower:
            async with asyncio.timeout(PATIENCE_S):
                while await self.state(action, agent) not in states:
                    await follower.changes(PATIENCE_S)


class RelayServer(Operator):
    """A server under test."""

    def __init__(
        self, parts: Parts, clock: Callable[[], datetime], working: Sequence["asyncio.Future[None]"]
    ) -> None:
        services = parts.services
        super().__init__(services.database, services.store, services.events, services.wake, clock)
        self.parts = parts
        self._working = working

    async def crash(self) -> None:
        """End relay and scheduler in the middle of whatever they do."""
        for task in self._working:
            task.cancel()
        await asyncio.wait(self._working)


@asynccontextmanager
async def running_server(
    broker: PrivateBroker,
    directory: Path,
    *,
    enrolment: str = "open",
    config: ServerConfig | None = None,
    clock: Callable[[], datetime] = utc_now,
    wait: bool = True,
) -> AsyncIterator[RelayServer]:
    """Run a server's relay for as long as the block lasts; with `wait`, from when it is connected."""
    config = config or make_config(broker, directory, enrolment=enrolment)
    database = migrated_database(config.database)
    try:
        parts = assemble(config, database, clock=clock)
        with listen_on(parse_listen(config.broker_auth_listen)) as listener:
            front = Questions(parts.broker_auth.answer, listener)
            serving = asyncio.ensure_future(front.run())
            working = [asyncio.ensure_future(worker) for worker in parts.workers()]
            try:
                if wait:
                    assert await parts.relay.wait_connected(PATIENCE_S)
                yield RelayServer(parts, clock, working)
            finally:
                front.stop()
                for task in working:
                    task.cancel()
                await asyncio.wait([serving, *working])
    finally:
        database.close()


# What an agent does, on its own blocking connection; call these in a thread.


def receive(connection: Any, queue: str, *, wait_s: float = PATIENCE_S) -> bytes | None:
    """Take the next message of a queue and acknowledge it; None where none comes in time."""
    channel = connection.channel()
    try:
        for method, _properties, body in channel.consume(queue, inactivity_timeout=wait_s):
            if method is not None:
                channel.basic_ack(method.delivery_tag)
            return body  # type: ignore[no-any-return]
        return None
    finally:
        channel.cancel()
        channel.close()


def receive_command(connection: Any, agent: AgentKey, *, wait_s: float = PATIENCE_S) -> bytes | None:
    """Take the next command of an agent; notices are acknowledged on the way."""
    while True:
        body = receive(connection, agent_queue(agent.id), wait_s=wait_s)
        if body is None or peek_type(body) != NOTICE:
            return body


def publish(connection: Any, routing_key: str, body: bytes, **properties: Any) -> None:
    """Publish to the agents' exchange, confirmed and mandatory; raises pika's exceptions."""
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish(
        AGENTS_EXCHANGE,
        routing_key,
        body,
        pika.BasicProperties(delivery_mode=2, **properties),
        mandatory=True,
    )
    channel.close()


def make_result(agent: AgentKey, action: Action, digest: str, /, **changes: Any) -> bytes:
    """Return an agent's signed answer to an action."""
    now = utc_now()
    members = {
        "action": action.id,
        "action_sha256": digest,
        "occurrence": "",
        "agent": agent.id,
        "started": now,
        "finished": now,
        "status": "done",
        "results": (OperationResult(found=True, status="ok"),),
    }
    return agent.sign(RESULT, msgspec.json.encode(Result(**{**members, **changes})))


def make_heartbeat(agent: AgentKey, /, *actions: Action, **changes: Any) -> bytes:
    """Return an agent's signed heartbeat, which says that it holds the commands of these actions."""
    now = utc_now()
    members = {
        "agent": agent.id,
        "name": "test.example",
        "os": "linux",
        "arch": "amd64",
        "ident": "Debian GNU/Linux 12 (bookworm)",
        "version": "0.1.0",
        "time": now,
        "started": now,
        "tags": {},
        "environment": {},
        "modules": ("agentinfo",),
        "commands": tuple(command_id(action.id, agent.id, "") for action in actions),
    }
    return agent.sign(HEARTBEAT, msgspec.json.encode(Heartbeat(**{**members, **changes})))


def send_result(connection: Any, agent: AgentKey, body: bytes) -> None:
    """Send an answer as an agent does."""
    publish(connection, result_key(agent.id), body, user_id=agent.id)


def send_heartbeat(connection: Any, agent: AgentKey, body: bytes) -> None:
    """Send a heartbeat as an agent does."""
    publish(connection, heartbeat_key(agent.id), body, user_id=agent.id)
