"""The opponent owns an endpoint, or none yet; later the broker too. It wants to take part, or to be another.

Promise: nobody takes part whom the investigators' organisation did not let in; an endpoint speaks for itself
only, and the broker's owner for no endpoint; what is copied shows.
"""

import asyncio
import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pika.spec import BasicProperties

from protocol.enrolment import EnrolmentToken, decode_token, encode_token
from protocol.envelope import HEARTBEAT, NOTICE, RESULT
from protocol.names import AGENTS_EXCHANGE, COMMANDS_EXCHANGE, agent_queue, heartbeat_key, result_key
from server.broker import PrivateBroker
from server.brokerfiles import MAX_MESSAGE_BYTES
from tests.hostile.captured import NAMES, Captured, OwnEndpoint
from tests.server.test_brokerauth import new_token, with_proof_of
from tests.support.broker import AgentKey
from tests.support.documents import RESULT as ANSWER
from tests.support.platform import wait_until
from tests.support.relay import running_server

# -- getting in ----------------------------------------------------------------------------------------------

Login = Callable[[EnrolmentToken, AgentKey, AgentKey], str]
LOGINS: dict[str, Login] = {
    "without a token": lambda _token, thief, _known: thief.password(),
    "with a token that is used up": lambda token, thief, _known: thief.password(token=token),
    "with a token that nobody made": lambda _token, thief, _known: thief.password(
        token=decode_token(encode_token(bytes(32)))
    ),
    "with the proof of another's login": lambda token, thief, known: with_proof_of(
        thief, known.password(token=token)
    ),
    "with a token's proof for another platform": lambda token, thief, _known: thief.password(
        token=token, broker="other"
    ),
    "with another's login": lambda _token, _thief, known: known.password(),
}


def test_nobody_takes_part_with_a_token_that_is_not_good_for_them(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    async def scenario() -> dict[str, bool]:
        async with running_server(clean_broker, tmp_path, enrolment="token") as server:
            token, known = new_token(server, uses=1), AgentKey()

            async def let_in(agent: AgentKey, password: str) -> bool:
                return await asyncio.to_thread(agent.is_let_in, clean_broker, password)

            assert await let_in(known, known.password(token=token))
            thieves = {way: AgentKey() for way in LOGINS}
            tried = {
                way: await let_in(thief, LOGINS[way](token, thief, known)) for way, thief in thieves.items()
            }
            # A foreign key under a known id: the id is the hash of the key.
            known.private, own = AgentKey().private, known.private
            tried["under a known id"] = await let_in(known, known.password(token=token))
            known.private = own
            assert await let_in(known, known.password())
            assert [thief for thief in thieves.values() if server.store.get_agent(thief.id)] == []
            return tried

    tried = asyncio.run(scenario())
    assert tried == dict.fromkeys(tried, False)


def test_a_signed_list_of_approvals_cannot_be_altered_nor_used_again(
    captured: Captured, endpoint: OwnEndpoint, tmp_path: Path
) -> None:
    signed, liar = tmp_path / "approval", AgentKey()
    one = captured.agent("one")
    captured.mig("agents", "approve", one, "--yes", "--output", str(signed))
    altered = tmp_path / "altered"
    envelope = json.loads(signed.read_bytes())
    payload = json.loads(base64.b64decode(envelope["payload"]))
    longer = json.dumps({**payload, "agents": [one, liar.id]}).encode()
    altered.write_text(json.dumps({**envelope, "payload": base64.b64encode(longer).decode()}))
    assert "bad-signature" in captured.operate("agent", "approve", "--file", str(altered)).stderr
    assert captured.execute("SELECT 1 FROM agents WHERE id = ?", liar.id) == []
    # An old approval does not bring back who was shut out since.
    captured.mig("agents", "approve", endpoint.id, "--yes", "--output", str(signed))
    captured.mig("agents", "revoke", endpoint.id, "--yes")
    captured.operate("agent", "approve", "--file", str(signed))
    [(enrolment,)] = captured.execute("SELECT enrolment FROM agents WHERE id = ?", endpoint.id)
    assert enrolment == "revoked"


def test_a_copied_identity_shows(captured: Captured, endpoint: OwnEndpoint) -> None:
    for minute, started in enumerate(("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z") * 2, start=1):
        endpoint.beat(started=started, time=f"2026-12-01T00:{minute:02}:00Z")
    captured.require_unharmed()
    told = "two agents run under this id"
    wait_until(lambda: told in captured.mig("agents", "-t", f"id = '{endpoint.id}'").stdout, told)


def test_an_agent_does_not_start_where_others_can_write(captured: Captured, tmp_path: Path) -> None:
    """Pitfall 16: who can write an agent's directory could give it another identity, journal or bundle."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    command = captured.platform.agent_command("one", "run", "--foreground", "--state-dir", str(state))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "unsafe-file" in done.stderr
    assert "Traceback" not in done.stderr


# -- being another -------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint(captured: Captured) -> Iterator[OwnEndpoint]:
    """An endpoint that is the opponent's."""
    endpoint = OwnEndpoint(captured, "theirs")
    yield endpoint
    endpoint.close()


def test_an_endpoint_gets_nothing_at_the_broker_but_its_own_queue_and_its_own_name(
    captured: Captured, endpoint: OwnEndpoint
) -> None:
    one = captured.agent("one")
    as_one = BasicProperties(user_id=one)
    forward = {"x-dead-letter-exchange": COMMANDS_EXCHANGE, "x-dead-letter-routing-key": one}
    own = agent_queue(endpoint.id)
    attempts: dict[str, Callable[[Any], Any]] = {
        "answers for another": lambda at: at.basic_publish(AGENTS_EXCHANGE, result_key(one), b"x"),
        "uses another's name": lambda at: at.basic_publish(
            AGENTS_EXCHANGE, result_key(endpoint.id), b"x", as_one
        ),
        "commands another": lambda at: at.basic_publish(COMMANDS_EXCHANGE, one, b"x"),
        "reads another's commands": lambda at: at.basic_get(agent_queue(one)),
        "takes another's commands": lambda at: at.queue_purge(agent_queue(one)),
        "has its messages forwarded": lambda at: at.queue_declare(own, durable=True, arguments=forward),
        "makes a queue that forwards": lambda at: at.queue_declare("theirs", arguments=forward),
        "listens to all": lambda at: at.queue_bind(own, AGENTS_EXCHANGE, "#"),
        "sends more than fits": lambda at: at.basic_publish(
            AGENTS_EXCHANGE, result_key(endpoint.id), bytes(MAX_MESSAGE_BYTES + 1)
        ),  # pitfall 10
    }
    answers = {name: endpoint.attempt(attempt) for name, attempt in attempts.items()}
    assert set(answers.values()) <= {"ACCESS_REFUSED", "PRECONDITION_FAILED"}, answers
    captured.require_unharmed()


def test_what_an_endpoint_has_the_broker_copy_to_others_is_not_taken(
    captured: Captured, endpoint: OwnEndpoint
) -> None:
    one = captured.agent("one")
    [before] = captured.execute("SELECT name FROM agents WHERE id = ?", one)
    said = json.dumps({**endpoint.said, "agent": one, "name": "owned"}).encode()
    for header in ("CC", "BCC"):
        endpoint.say(HEARTBEAT, heartbeat_key(endpoint.id), said, headers={header: [heartbeat_key(one)]})
    captured.require_unharmed()
    assert captured.execute("SELECT name FROM agents WHERE id = ?", one) == [before]


def test_an_endpoint_that_floods_the_platform_holds_up_nobody(
    captured: Captured, endpoint: OwnEndpoint
) -> None:
    """Pitfall 10: garbage, answers to nothing, and as large as they may be."""
    key = result_key(endpoint.id)
    nothing = json.dumps({**ANSWER, "agent": endpoint.id}).encode()
    for _ in range(30):
        endpoint.say(RESULT, key, nothing)
        endpoint.say(RESULT, key, b"garbage")
        endpoint.beat(name="\x1b[2J")
    endpoint.say(RESULT, key, bytes(1 << 20))
    captured.require_unharmed()
    assert "\x1b" not in captured.mig("agents").stdout


def test_who_owns_the_broker_speaks_for_no_endpoint(captured: Captured) -> None:
    """It puts any name and any routing key on a message; what it lacks is the key that signs."""
    captured.impersonate()
    liar, action = AgentKey(), captured.ask()
    one, two = (captured.agent(name) for name in NAMES)
    # What others are called is theirs to say: heartbeats of the tests before may still be on their way.
    named = "SELECT id, CASE WHEN id IN (?, ?) THEN name END FROM agents ORDER BY id"
    before = captured.execute(named, one, two)
    answers = captured.execute("SELECT envelope FROM results ORDER BY seq")
    heartbeat = json.dumps({**ANSWER, "agent": one}).encode()
    send = partial(captured.publish, exchange=AGENTS_EXCHANGE)
    send(result_key(one), liar.sign(RESULT, heartbeat), b"garbage", b"", sender=one)
    send(heartbeat_key(one), liar.sign(HEARTBEAT, b"{}"), liar.sign(RESULT, b"{}"), sender=one)
    # A true answer, once more, and in another's name; an answer that comes as a heartbeat.
    true = captured.answer(action, one)
    send(result_key(one), true, true, sender=one)
    send(result_key(two), true, sender=two)
    send(heartbeat_key(one), true, sender=one)
    # To the agents: notices that nobody signed, answers and heartbeats in place of commands.
    for agent in (one, two):
        captured.publish(agent, liar.sign(NOTICE, b"{}"), true, liar.sign(HEARTBEAT, b"{}"))
    captured.require_unharmed()
    assert captured.execute(named, one, two) == before
    assert captured.execute("SELECT envelope FROM results ORDER BY seq")[: len(answers)] == answers
    assert captured.mig("results", action).returncode == 0
