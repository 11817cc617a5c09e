"""Who is root on the platform: publishes at the real broker, edits the real database, owns an endpoint too.

Real agents and the real client go on meanwhile. After an attack `require_unharmed` asks a true question: it
passes the same queues, so what came before it has been dealt with.
"""

import json
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
from pika.spec import BasicProperties

from agent.runtime.journal import read_journal
from protocol.envelope import ACTION, HEARTBEAT, Envelope, decode_envelope
from protocol.names import COMMANDS_EXCHANGE, heartbeat_key
from protocol.strictjson import encode_json
from server.brokerctl import BrokerControl
from tests.support.broker import AgentKey
from tests.support.documents import HEARTBEAT as SAID
from tests.support.forked import run_program
from tests.support.platform import LONGEST_S, Platform, wait_until
from tests.support.relay import publish, receive_command

# The agents that the investigator's organisation owns; what the opponent enrols has no such name.
NAMES = ("one", "two")
BOTH = "tags->>'name' IN ('one', 'two')"


class Captured:
    """Who has taken over the platform's machine."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.broker = platform.broker
        self.mig = platform.mig
        self._ids: dict[str, str] = {}
        self.older: dict[str, bytes] = {}  # what agents had signed a while before

    def agent(self, name: str) -> str:
        """Return the id of the agent of this name."""
        if name not in self._ids:
            done = self.mig("agents", "-t", f"tags->>'name' = '{name}'", "--json")
            self._ids[name] = str(json.loads(done.stdout.splitlines()[0])["id"])
        return self._ids[name]

    def publish(
        self, key: str, *bodies: bytes, exchange: str = COMMANDS_EXCHANGE, sender: str | None = None
    ) -> None:
        """Publish with the server's own account, in any agent's name."""
        with closing(pika.BlockingConnection(pika.URLParameters(self.broker.url))) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for body in bodies:
                properties = BasicProperties(delivery_mode=2, user_id=sender)
                channel.basic_publish(exchange, key, body, properties, mandatory=True)

    def impersonate(self) -> None:
        """Have the broker let the server's account send in anybody's name, as its owner can."""
        control = BrokerControl(self.broker.rabbitmqctl)
        control.run("set_user_tags", urlsplit(self.broker.url).username or "", "impersonator")

    def delete_queue(self, name: str) -> None:
        with closing(pika.BlockingConnection(pika.URLParameters(self.broker.url))) as connection:
            connection.channel().queue_delete(name)

    def execute(self, statement: str, *values: object) -> list[Any]:
        """Change the database, or read it."""
        path = self.platform.directory / "server" / "mig.sqlite"
        with closing(sqlite3.connect(path, timeout=30)) as database, database:
            return database.execute(statement, values).fetchall()

    def operate(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of mig-server, whatever comes of it."""
        config = ("--config", str(self.platform.config))
        return run_program("server.main", *words, *config, env=self.platform.environment(), timeout=LONGEST_S)

    def copy_server(self, directory: Path) -> "Captured":
        """Start the server anew over a copy of its database, at another address and away from the broker."""
        copy = Platform(directory, self.platform.investigator)
        (directory / "server").mkdir()
        path = self.platform.directory / "server" / "mig.sqlite"
        with (
            closing(sqlite3.connect(path)) as own,
            closing(sqlite3.connect(directory / "server" / path.name)) as new,
        ):
            own.backup(new)
        copy.broker.prepare()
        copy.write_config()
        copy.start_server()
        return Captured(copy)

    def answer(self, action: str, agent: str) -> bytes:
        """Return an answer as the database holds it."""
        query = "SELECT envelope FROM results WHERE action_id = ? AND agent_id = ?"
        [(envelope,)] = self.execute(query, action, agent)
        return bytes(envelope)

    def wait_witnessed(self) -> None:
        """Wait until both agents have signed what they saw of the server's log."""

        def is_witnessed() -> bool:
            rows = self.execute("SELECT envelope FROM witnesses")
            payloads = [decode_envelope(bytes(row[0]), HEARTBEAT).payload for row in rows]
            return sum(bool(json.loads(payload)["server_heads"]) for payload in payloads) >= len(NAMES)

        wait_until(is_witnessed, "heads that both agents have signed")

    def wait_until_taken(self, queue: str) -> None:
        """Wait until the server has dealt with all that stood in a queue of agents' messages."""

        def is_empty() -> bool:
            listed = BrokerControl(self.broker.rabbitmqctl).run(
                "list_queues", "--vhost", "mig", "--quiet", "--no-table-headers", "name", "messages"
            )
            return dict(line.split() for line in listed.splitlines()).get(queue) == "0"

        wait_until(is_empty, f"the end of {queue}")

    def wait_answered(self, action: str) -> None:
        """Wait until the database holds an answer to an action of one agent."""
        query = "SELECT 1 FROM results WHERE action_id = ?"
        wait_until(lambda: self.execute(query, action), "the answer")

    def show_instead(self, action: str, agent: str, envelope: bytes) -> "subprocess.CompletedProcess[str]":
        """Show another answer in an agent's place, and return what the investigator sees of the action."""
        change = "UPDATE results SET envelope = ? WHERE action_id = ? AND agent_id = ?"
        self.execute(change, envelope, action, agent)
        return self.mig("results", action, check=False)

    def submit(self, body: bytes) -> str:
        """Have the investigator submit what is signed already, and return its id."""
        file = self.platform.directory / "submitted.json"
        file.write_bytes(body)
        return self.mig("action", "submit", str(file), "--yes").stdout.strip()

    def ask(self, *words: str) -> str:
        """Have the investigator ask a question of both agents, and return the action's id."""
        _, summary = self.platform.mig_json("agentinfo", "-t", BOTH, *words)
        return str(summary["action"])

    def ran(self, name: str) -> list[str]:
        """Return the names of the actions that ran on an agent, by its journal."""
        return [
            entry.name
            for entry in read_journal(self.platform.directory / f"state-{name}" / "journal").entries
        ]

    def require_unharmed(self) -> None:
        """Fail unless both agents answer a true question."""
        answers, summary = self.platform.mig_json("agentinfo", "-t", BOTH)
        assert (len(answers), summary["exit"]) == (2, 0)

    def wait_online(self, name: str) -> None:
        wait_until(lambda: self.platform.is_online(name), f"agent {name}")


class OwnEndpoint:
    """An endpoint whose root is the opponent: a true agent's key, logged in, and nothing of its code."""

    def __init__(self, captured: Captured, name: str) -> None:
        self.key = AgentKey()
        self.id = self.key.id
        self._login = self.key.connection(captured.broker)
        self.connection = self._login.__enter__()
        self.said = {**SAID, "agent": self.id, "name": name}
        self.beat()
        query = "SELECT 1 FROM agents WHERE id = ? AND name = ?"
        wait_until(lambda: captured.execute(query, self.id, name), name)

    def say(self, kind: str, routing_key: str, payload: bytes, **properties: Any) -> None:
        """Sign and publish in its own name."""
        publish(self.connection, routing_key, self.key.sign(kind, payload), user_id=self.id, **properties)

    def beat(self, **changes: Any) -> None:
        """Send a heartbeat of its own."""
        self.say(HEARTBEAT, heartbeat_key(self.id), encode_json({**self.said, **changes}))

    def take_command(self) -> Envelope:
        """Return the action that it is asked."""
        body = receive_command(self.connection, self.key)
        assert body is not None
        return decode_envelope(body, ACTION)

    def attempt(self, attempt: Callable[[Any], Any]) -> str:
        """Try something on a channel of its own, and return the broker's refusal, if there is one."""
        channel = self.connection.channel()
        channel.confirm_delivery()
        try:
            attempt(channel)
        except pika.exceptions.ChannelClosedByBroker as error:
            return str(error.reply_text).split(" ", maxsplit=1)[0]
        return ""

    def close(self) -> None:
        """Log out, where the server has not ended it."""
        with suppress(pika.exceptions.AMQPConnectionError):
            self._login.__exit__(None, None, None)
