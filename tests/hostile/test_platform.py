"""The opponent is root on the platform: it publishes at the real broker with the server's own credentials,
and edits the real database by hand, while real agents and the real client go on.

Promise: whoever takes over server, database and broker commands nothing, and is believed nothing. Each attack
is followed by a true question; it passes the same queue, so what came before it has been dealt with, and its
answer shows that nothing true was lost.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pika
import pytest
from pika.spec import BasicProperties

from agent.runtime.journal import read_journal
from protocol.names import AGENTS_EXCHANGE, COMMANDS_EXCHANGE, agent_queue, result_key
from tests.hostile.opponent import edited, opened, rewrapped
from tests.support.broker import AgentKey
from tests.support.endpoint import sign_action
from tests.support.gpg import Investigator
from tests.support.platform import Platform, running_platform, wait_until

pytestmark = pytest.mark.system


class Opponent:
    """Who has taken over the platform's machine."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def agent(self, name: str) -> str:
        """Return the id of the agent of this name."""
        done = self.platform.mig("agents", "-t", f"tags->>'name' = '{name}'", "--json")
        return str(json.loads(done.stdout.splitlines()[0])["id"])

    def publish(self, key: str, *bodies: bytes, exchange: str = COMMANDS_EXCHANGE) -> None:
        """Publish with the server's own account."""
        with closing(pika.BlockingConnection(pika.URLParameters(self.platform.broker.url))) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish(exchange, key, body, BasicProperties(delivery_mode=2), mandatory=True)

    def delete_queue(self, name: str) -> None:
        with closing(pika.BlockingConnection(pika.URLParameters(self.platform.broker.url))) as connection:
            connection.channel().queue_delete(name)

    def execute(self, statement: str, *values: object) -> None:
        """Change the database."""
        path = self.platform.directory / "server" / "mig.sqlite"
        with closing(sqlite3.connect(path, timeout=30)) as database, database:
            database.execute(statement, values)

    def ran(self, name: str) -> list[str]:
        """Return the names of the actions that ran on an agent, by its journal."""
        return [
            entry.name
            for entry in read_journal(self.platform.directory / f"state-{name}" / "journal").entries
        ]

    def require_unharmed(self) -> None:
        """Fail unless both agents answer a true question."""
        answers, summary = self.platform.mig_json("agentinfo", "-t", "os = 'linux'")
        assert (len(answers), summary["exit"]) == (2, 0)

    def wait_online(self, name: str) -> None:
        wait_until(lambda: self.platform.is_online(name), f"agent {name}")


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Iterator[Opponent]:
    with running_platform(tmp_path_factory.mktemp("platform"), ada, "one", "two") as platform:
        yield Opponent(platform)


def test_an_action_that_is_handed_to_another_agent_does_not_run_there(
    captured: Opponent, ada: Investigator
) -> None:
    body = sign_action(ada, name="for one", target="tags->>'name' = 'one'")
    captured.publish(captured.agent("two"), body)
    captured.require_unharmed()
    assert "for one" not in captured.ran("two")
    captured.publish(captured.agent("one"), body)
    captured.require_unharmed()
    assert captured.ran("one").count("for one") == 1


def test_an_action_runs_once_however_often_and_whenever_it_is_delivered(
    captured: Opponent, ada: Investigator
) -> None:
    body = sign_action(ada, name="once", target="tags->>'name' = 'one'")
    one = captured.agent("one")
    captured.publish(one, *(rewrapped(body, number) for number in range(5)))
    captured.require_unharmed()
    captured.platform.kill("one")
    captured.publish(one, *(rewrapped(body, number) for number in range(5)))
    captured.platform.start_agent("one")
    captured.wait_online("one")
    captured.require_unharmed()
    assert captured.ran("one").count("once") == 1


def test_a_flood_at_the_broker_stops_nobody(captured: Opponent, bob: Investigator) -> None:
    forged = sign_action(bob, name="forged")
    one = captured.agent("one")
    captured.publish(one, *(rewrapped(forged, number) for number in range(200)), b"", b"{}", bytes(1 << 20))
    captured.publish(result_key(one), *[b"garbage"] * 200, exchange=AGENTS_EXCHANGE)
    captured.require_unharmed()
    assert "forged" not in captured.ran("one")


def test_an_answer_that_the_platform_publishes_as_an_agents_is_not_taken(
    captured: Opponent, ada: Investigator
) -> None:
    liar = AgentKey()
    one = captured.agent("one")
    for name in ("result", "heartbeat"):
        body = liar.sign(f"application/vnd.mig.{name}+json", b'{"agent":"x"}')
        captured.publish(f"{name}.{one}", body, exchange=AGENTS_EXCHANGE)
    captured.require_unharmed()
    log = captured.platform.log("server")
    assert "Traceback" not in log


def test_a_queue_that_is_deleted_stands_again(captured: Opponent) -> None:
    captured.delete_queue(agent_queue(captured.agent("two")))

    def is_answered() -> bool:
        _, summary = captured.platform.mig_json("agentinfo", "-t", "os = 'linux'", "--expire", "10s")
        return bool(summary["exit"] == 0)

    wait_until(is_answered, "an answer of both")


def test_an_investigator_whom_the_platform_adds_commands_nobody(
    captured: Opponent, bob: Investigator, tmp_path: Path
) -> None:
    platform = captured.platform
    key = tmp_path / "bob.asc"
    key.write_bytes(bob.public_key)
    platform.mig_server("investigator", "add", "--config", str(platform.config), "--name", "Bob", str(key))
    file = tmp_path / "action.json"
    file.write_bytes(sign_action(bob, name="by Bob"))
    done = platform.mig("action", "submit", str(file), "--yes", check=False)
    assert done.returncode == 0, done.stderr
    captured.require_unharmed()
    assert "by Bob" not in captured.ran("one") + captured.ran("two")


def ask_both(captured: Opponent) -> str:
    """Ask a question of both agents, and return the action's id."""
    _, summary = captured.platform.mig_json("agentinfo", "-t", "os = 'linux'")
    return str(summary["action"])


def test_answers_exchanged_in_the_database_are_not_believed(captured: Opponent) -> None:
    action = ask_both(captured)
    captured.execute(
        "UPDATE results SET envelope = (SELECT other.envelope FROM results AS other"
        " WHERE other.action_id = results.action_id AND other.seq != results.seq) WHERE action_id = ?",
        action,
    )
    done = captured.platform.mig("results", action, check=False)
    assert done.returncode == 4
    assert "not believed" in done.stdout
    captured.require_unharmed()


def test_answers_deleted_from_the_database_are_missed(captured: Opponent) -> None:
    """Not promised: that the platform keeps answers. Promised: that the roster misses them."""
    action = ask_both(captured)
    captured.execute("DELETE FROM results WHERE action_id = ?", action)
    done = captured.platform.mig("results", action, check=False)
    assert done.returncode == 3
    assert done.stdout.count("no answer from") == 2
    captured.require_unharmed()


def test_an_action_edited_in_the_database_does_not_run(
    captured: Opponent, ada: Investigator, tmp_path: Path
) -> None:
    platform = captured.platform
    platform.kill("two")
    body = sign_action(ada, name="true", target="tags->>'name' = 'two'")
    forged = edited(body, name="edited", target="os = 'linux'")
    file = tmp_path / "action.json"
    file.write_bytes(body)
    # The server finds the queue of an agent that is away, so what is there is taken out, too.
    platform.mig("action", "submit", str(file), "--yes")
    action = json.loads(opened(body).payload)["id"]
    captured.execute("UPDATE actions SET envelope = ? WHERE id = ?", forged, action)
    captured.publish(captured.agent("two"), forged)
    platform.start_agent("two")
    captured.wait_online("two")
    captured.require_unharmed()
    assert "edited" not in captured.ran("two")
