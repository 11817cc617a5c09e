"""The opponent is root on the platform: it publishes at the real broker with the server's own credentials,
and edits the real database by hand, while real agents and the real client go on.

Promise: whoever takes over server, database and broker commands nothing, and is believed nothing. Each attack
is followed by a true question; it passes the same queue, so what came before it has been dealt with, and its
answer shows that nothing true was lost.
"""

import json
import socket
from collections import Counter
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

from protocol.names import AGENTS_EXCHANGE, agent_queue, result_key
from tests.hostile.captured import BOTH, Captured
from tests.hostile.opponent import edited, opened, rewrapped
from tests.support.broker import AgentKey
from tests.support.endpoint import sign_action
from tests.support.gpg import Investigator
from tests.support.platform import wait_until

# Where nobody else logs in from: an address has so many logins, and others' are to be left alone.
ELSEWHERE = ("127.0.0.2", 0)


def test_an_action_that_is_handed_to_another_agent_does_not_run_there(
    captured: Captured, ada: Investigator
) -> None:
    body = sign_action(ada, name="for one", target="tags->>'name' = 'one'")
    captured.publish(captured.agent("two"), body)
    captured.require_unharmed()
    assert "for one" not in captured.ran("two")
    captured.publish(captured.agent("one"), body)
    captured.require_unharmed()
    assert captured.ran("one").count("for one") == 1


def test_an_action_runs_once_however_often_and_whenever_it_is_delivered(
    captured: Captured, ada: Investigator
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


def test_a_flood_at_the_broker_stops_nobody(captured: Captured, bob: Investigator) -> None:
    forged = sign_action(bob, name="forged")
    one = captured.agent("one")
    captured.publish(one, *(rewrapped(forged, number) for number in range(200)), b"", b"{}", bytes(1 << 20))
    captured.publish(result_key(one), *[b"garbage"] * 200, exchange=AGENTS_EXCHANGE)
    captured.require_unharmed()
    assert "forged" not in captured.ran("one")


def test_an_answer_that_the_platform_publishes_as_an_agents_is_not_taken(
    captured: Captured, ada: Investigator
) -> None:
    liar = AgentKey()
    one = captured.agent("one")
    for name in ("result", "heartbeat"):
        body = liar.sign(f"application/vnd.mig.{name}+json", b'{"agent":"x"}')
        captured.publish(f"{name}.{one}", body, exchange=AGENTS_EXCHANGE)
    captured.require_unharmed()
    log = captured.platform.log("server")
    assert "Traceback" not in log


def test_a_queue_that_is_deleted_stands_again(captured: Captured) -> None:
    captured.delete_queue(agent_queue(captured.agent("two")))

    def is_answered() -> bool:
        _, summary = captured.platform.mig_json("agentinfo", "-t", BOTH, "--expire", "10s")
        return bool(summary["exit"] == 0)

    wait_until(is_answered, "an answer of both")


def test_an_investigator_whom_the_platform_adds_commands_nobody(
    captured: Captured, bob: Investigator, tmp_path: Path
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


def test_answers_exchanged_in_the_database_are_not_believed(captured: Captured) -> None:
    action = captured.ask()
    captured.execute(
        "UPDATE results SET envelope = (SELECT other.envelope FROM results AS other"
        " WHERE other.action_id = results.action_id AND other.seq != results.seq) WHERE action_id = ?",
        action,
    )
    done = captured.platform.mig("results", action, check=False)
    assert done.returncode == 4
    assert "not believed" in done.stdout
    captured.require_unharmed()


def test_answers_deleted_from_the_database_are_missed(captured: Captured) -> None:
    """Not promised: that the platform keeps answers. Promised: that the roster misses them."""
    action = captured.ask()
    captured.execute("DELETE FROM results WHERE action_id = ?", action)
    done = captured.platform.mig("results", action, check=False)
    assert done.returncode == 3
    assert done.stdout.count("no answer from") == 2
    captured.require_unharmed()


def test_an_action_edited_in_the_database_does_not_run(
    captured: Captured, ada: Investigator, tmp_path: Path
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


def test_logins_without_end_cost_the_others_nothing(captured: Captured) -> None:
    """Pitfall 11: what fails is cheap and limited, and nobody waits for those who send slowly."""
    address = ("127.0.0.1", captured.platform.api_port)
    with ExitStack() as idle:
        for _ in range(50):
            connection = idle.enter_context(socket.create_connection(address, source_address=ELSEWHERE))
            connection.sendall(
                b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{"
            )
        refused = Counter(post_login(*address, b'{"payloadType":"x"}') for _ in range(100))
        captured.require_unharmed()
    assert set(refused) <= {400, 429}
    assert refused[429]


def post_login(host: str, port: int, body: bytes) -> int:
    with closing(HTTPConnection(host, port, timeout=30, source_address=ELSEWHERE)) as connection:
        connection.request("POST", "/api/v1/session", body)
        return connection.getresponse().status
