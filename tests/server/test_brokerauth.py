import asyncio
import base64
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec
import pika
import pytest

from protocol.enrolment import EnrolmentToken, decode_token, encode_token, token_id
from protocol.envelope import BROKER_LOGIN, HEARTBEAT, decode_envelope, pae
from protocol.errors import InvalidInput
from protocol.heartbeat import Heartbeat
from protocol.names import (
    AGENTS_EXCHANGE,
    COMMANDS_EXCHANGE,
    RESULTS_QUEUE,
    agent_queue,
    alert_key,
    heartbeat_key,
    result_key,
)
from server.broker import PrivateBroker
from server.brokerauth import LONGEST_WAIT_S, MAX_LOGINS, MOST_AT_ONCE, BrokerAuth
from server.brokerctl import BrokerControl
from server.brokerfiles import MAX_CHANNELS, MAX_MESSAGE_BYTES, TWICE
from server.config import ServerConfig
from server.database import Database
from server.parts import utc_now
from server.store import Store
from tests.support.broker import AgentKey
from tests.support.database import migrated_database
from tests.support.relay import make_config, make_heartbeat, publish, receive_command, running_server

DAY_S = 86400
REFUSED = "ACCESS_REFUSED"


class Desk:
    """The questions of a broker, asked without one."""

    def __init__(self, config: ServerConfig, database: Database) -> None:
        self.store = Store(database)
        self.welcomed: list[str] = []
        self.is_connected = True
        self.time_s = 0.0
        self.auth = BrokerAuth(
            config=config,
            database=database,
            store=self.store,
            wait_connected=self._wait_connected,
            welcome=self._welcome,
            clock=utc_now,
            monotonic=lambda: self.time_s,
        )

    async def _wait_connected(self, _wait_s: float) -> bool:
        return self.is_connected

    async def _welcome(self, agent_id: str) -> None:
        self.welcomed.append(agent_id)

    def post(self, path: str, body: bytes) -> str | None:
        """Ask one question as it is posted."""
        return asyncio.run(self.auth.answer(path, body))

    def ask(self, question: str, **form: str) -> str:
        """Ask and return the answer."""
        answer = self.post(f"/auth/{question}", urlencode(form).encode())
        assert answer is not None
        return answer

    def log_in(self, agent: AgentKey, password: str, question: str = "user") -> str:
        """Ask about a login."""
        return self.ask(question, username=agent.id, password=password)


@pytest.fixture
def desk(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    node = PrivateBroker(tmp_path / "node")
    node.prepare()
    config = make_config(node, tmp_path, enrolment=getattr(request, "param", "open"))
    database = migrated_database(config.database)
    yield Desk(config, database)
    database.close()


def test_a_new_agent_is_enrolled_and_welcomed_before_it_is_let_in(desk: Desk) -> None:
    agent = AgentKey()
    assert desk.log_in(agent, agent.password()) == "allow"
    row = desk.store.get_agent(agent.id)
    assert row is not None
    assert (row.public_key, row.enrolment) == (agent.public, "enrolled")
    assert desk.welcomed == [agent.id]


@pytest.mark.parametrize("desk", ["approval"], indirect=True)
def test_under_approval_a_new_agent_waits_and_is_seen(desk: Desk) -> None:
    agent = AgentKey()
    assert desk.log_in(agent, agent.password(name="web1", addresses="10.0.0.1/24")) == "allow"
    assert desk.ask("vhost", username=agent.id, vhost="mig", ip="192.0.2.7") == "deny"
    own = {"username": agent.id, "vhost": "mig", "resource": "queue", "name": agent_queue(agent.id)}
    assert desk.ask("resource", permission="read", **own) == "deny"
    assert desk.welcomed == []
    assert desk.auth.denied["forbidden"] == 1
    row = desk.store.get_agent(agent.id)
    assert row is not None
    assert (row.enrolment, row.name, row.environment, row.peer) == (
        "pending",
        "web1",
        {"addresses": "10.0.0.1/24"},
        "192.0.2.7",
    )
    desk.store.approve_agent(agent.id, utc_now())
    assert desk.log_in(agent, agent.password()) == "allow"
    assert desk.ask("vhost", username=agent.id, vhost="mig") == "allow"
    assert desk.welcomed == [agent.id]


@pytest.mark.parametrize("desk", ["approval"], indirect=True)
def test_only_so_many_agents_may_wait(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.store_enrolment.MAX_PENDING", 1)
    first, second = AgentKey(), AgentKey()
    assert desk.log_in(first, first.password()) == "allow"
    assert desk.log_in(second, second.password()) == "deny"
    assert desk.store.get_agent(second.id) is None
    assert desk.log_in(first, first.password()) == "allow"


class HasStore(Protocol):
    """Whatever enrols agents."""

    store: Store


def new_token(desk: HasStore, *, uses: int | None = None, expires_s: float = 60) -> EnrolmentToken:
    """Make a token that the server knows."""
    token = decode_token(encode_token(os.urandom(32)))
    expires = utc_now() + timedelta(seconds=expires_s)
    desk.store.add_token(token.public_key, label="test", expires=expires, uses=uses, now=utc_now())
    return token


@pytest.mark.parametrize("desk", ["token"], indirect=True)
def test_a_token_enrols_a_new_agent_and_is_asked_for_only_once(desk: Desk) -> None:
    agent, token = AgentKey(), new_token(desk, uses=1)
    assert desk.log_in(agent, agent.password(token=token)) == "allow"
    assert desk.welcomed == [agent.id]
    row = desk.store.get_agent(agent.id)
    assert row is not None
    assert (row.enrolment, row.enrolled_by) == ("enrolled", f"token {token_id(token.public_key)}")
    assert desk.log_in(agent, agent.password(token=token)) == "allow"
    assert desk.log_in(agent, agent.password()) == "allow"
    assert [row.used for row in desk.store.list_tokens()] == [1]


@pytest.mark.parametrize("desk", ["token"], indirect=True)
@pytest.mark.parametrize("case", ["none", "unknown", "expired", "used up", "revoked", "another's proof"])
def test_without_a_good_token_nobody_new_is_let_in_and_nothing_is_kept(desk: Desk, case: str) -> None:
    agent, other = AgentKey(), AgentKey()
    token: EnrolmentToken | None = new_token(desk, uses=1, expires_s=-1 if case == "expired" else 60)
    assert token is not None
    password = agent.password(token=token)
    if case == "none":
        password = agent.password()
    elif case == "unknown":
        password = agent.password(token=decode_token(encode_token(bytes(32))))
    elif case == "used up":
        assert desk.log_in(other, other.password(token=token)) == "allow"
    elif case == "revoked":
        desk.store.revoke_token(token_id(token.public_key))
    elif case == "another's proof":
        password = with_proof_of(agent, other.password(token=token))
    assert desk.log_in(agent, password) == "deny"
    assert desk.auth.denied["bad-token"] == 1
    assert desk.store.get_agent(agent.id) is None
    assert [row.used for row in desk.store.list_tokens()] == [1 if case == "used up" else 0]


def with_proof_of(thief: AgentKey, password: str) -> str:
    """Make a login with the proof of a token out of another agent's login, signed by the thief."""
    mine = bytearray(base64.urlsafe_b64decode(thief.password()))
    theirs = base64.urlsafe_b64decode(password)
    mine[56:128] = theirs[56:128]  # id and proof of the token, behind key, time and nonce
    fields = [b"mig", b"mig", bytes(mine[:-64])]
    message = pae(BROKER_LOGIN, b"".join(b"%d:%b," % (len(field), field) for field in fields))
    mine[-64:] = thief.private.sign(message)
    return base64.urlsafe_b64encode(bytes(mine)).decode()


@pytest.mark.parametrize("desk", ["token"], indirect=True)
def test_a_token_does_not_bring_a_revoked_agent_back(desk: Desk) -> None:
    agent, token = AgentKey(), new_token(desk)
    desk.log_in(agent, agent.password(token=token))
    desk.store.revoke_agent(agent.id, utc_now())
    assert desk.log_in(agent, agent.password(token=token)) == "deny"
    with pytest.raises(InvalidInput, match="forbidden: the agent is revoked"):
        desk.store.enrol_by_token(agent.id, agent.public, token_id(token.public_key), utc_now())


def test_an_agent_that_logs_in_all_the_time_is_denied_for_a_while_and_costs_nothing(desk: Desk) -> None:
    agent, other = AgentKey(), AgentKey()
    answers = [desk.log_in(agent, agent.password()) for _ in range(MAX_LOGINS + 2)]
    assert answers == ["allow"] * MAX_LOGINS + ["deny"] * 2
    assert desk.auth.denied == {"rate-limited": 2}
    assert desk.log_in(other, other.password()) == "allow"


def test_a_revoked_agent_is_denied_everything(desk: Desk) -> None:
    agent = AgentKey()
    desk.log_in(agent, agent.password())
    own = {"username": agent.id, "vhost": "mig", "resource": "queue", "name": agent_queue(agent.id)}
    assert desk.ask("resource", permission="read", **own) == "allow"
    desk.store.revoke_agent(agent.id, utc_now())
    assert desk.log_in(agent, agent.password()) == "deny"
    assert desk.ask("vhost", username=agent.id, vhost="mig") == "deny"
    assert desk.ask("resource", permission="read", **own) == "deny"


def leave(desk: Desk, agent: AgentKey) -> None:
    """Have an agent say, in its last heartbeat, that it removes itself."""
    heartbeat = msgspec.json.decode(
        decode_envelope(make_heartbeat(agent, leaving=True), HEARTBEAT).payload, type=Heartbeat
    )
    desk.store.save_heartbeat(heartbeat, utc_now())


def test_an_agent_that_removed_itself_is_denied_until_it_is_approved_again(desk: Desk) -> None:
    agent = AgentKey()
    desk.log_in(agent, agent.password())
    leave(desk, agent)
    assert desk.log_in(agent, agent.password()) == "deny"
    assert desk.ask("vhost", username=agent.id, vhost="mig") == "deny"
    desk.store.approve_agent(agent.id, utc_now())
    assert desk.log_in(agent, agent.password()) == "allow"


@pytest.mark.parametrize("desk", ["token"], indirect=True)
def test_an_agent_that_removed_itself_is_enrolled_anew_by_a_token(desk: Desk) -> None:
    agent = AgentKey()
    token = new_token(desk)
    desk.log_in(agent, agent.password(token=token))
    leave(desk, agent)
    assert desk.log_in(agent, agent.password()) == "deny"
    assert desk.log_in(agent, agent.password(token=token)) == "allow"


class Rush:
    """Many logins at one desk, whose relay is away until they are all there."""

    def __init__(self, desk: Desk, count: int) -> None:
        self._desk = desk
        self._served = asyncio.Event()
        self.agents = [AgentKey() for _ in range(count)]
        desk.auth._wait_connected = lambda _wait_s: self._served.wait()
        self.logins = [
            asyncio.ensure_future(
                desk.auth.is_login_allowed({"username": agent.id, "password": agent.password()})
            )
            for agent in self.agents
        ]

    async def serve(self) -> list[bool]:
        """Let the relay come back; return all answers."""
        self._served.set()
        return await asyncio.gather(*self.logins)


def test_a_fleet_that_returns_at_once_is_let_in_as_far_as_it_can_be_served(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.brokerauth.MOST_WAITING", 20)
    room = MOST_AT_ONCE + 20

    async def scenario() -> tuple[list[bool], list[bool], AgentKey]:
        rush = Rush(desk, room + 10)
        # Those that are too many do not wait for the others.
        late = await asyncio.gather(*rush.logins[room:])
        return late, await rush.serve(), rush.agents[-1]

    late, answers, last = asyncio.run(scenario())
    assert late == [False] * 10
    assert answers == [True] * room + [False] * 10
    assert desk.auth.denied == {"rate-limited": 10}
    assert desk.log_in(last, last.password()) == "allow"


def test_a_login_whose_turn_comes_too_late_for_the_broker_is_denied_unread(desk: Desk) -> None:
    async def scenario() -> tuple[list[bool], list[AgentKey]]:
        rush = Rush(desk, MOST_AT_ONCE + 5)
        await asyncio.sleep(0)  # by now each has begun
        assert desk.auth._waiting == 5
        desk.time_s += LONGEST_WAIT_S + 1
        return await rush.serve(), rush.agents[MOST_AT_ONCE:]

    answers, late = asyncio.run(scenario())
    assert answers == [True] * MOST_AT_ONCE + [False] * 5
    assert desk.auth.denied == {"rate-limited": 5}
    assert [desk.store.get_agent(agent.id) for agent in late] == [None] * 5


def test_a_login_that_nobody_waits_for_any_longer_leaves_its_place_in_the_line(desk: Desk) -> None:
    async def scenario() -> list[bool]:
        rush = Rush(desk, MOST_AT_ONCE + 3)
        await asyncio.sleep(0)  # by now each has begun
        assert desk.auth._waiting == 3
        gone = rush.logins.pop(MOST_AT_ONCE)
        gone.cancel()
        rush.logins.pop(0).cancel()
        return await rush.serve()

    assert asyncio.run(scenario()) == [True] * (MOST_AT_ONCE + 1)
    assert desk.auth._waiting == 0
    agent = AgentKey()
    assert desk.log_in(agent, agent.password()) == "allow"


def test_a_password_is_good_for_one_login(desk: Desk) -> None:
    agent = AgentKey()
    password = agent.password()
    assert desk.log_in(agent, password) == "allow"
    assert desk.log_in(agent, password) == "deny"
    assert desk.auth.denied["replayed"] == 1


def test_a_broker_that_keeps_permissions_asks_twice_about_each_login(desk: Desk) -> None:
    agent = AgentKey()
    password = agent.password()
    answers = [desk.log_in(agent, password, TWICE) for _ in range(4)]
    assert answers == ["allow", "allow", "deny", "deny"]
    assert desk.welcomed == [agent.id]
    assert desk.auth.denied["replayed"] == 2
    # A login that has happened at one broker is good for nothing at another.
    assert desk.log_in(agent, password) == "deny"


def test_who_is_revoked_between_the_two_questions_is_not_let_in(desk: Desk) -> None:
    agent = AgentKey()
    password = agent.password()
    assert desk.log_in(agent, password, TWICE) == "allow"
    desk.store.revoke_agent(agent.id, utc_now())
    assert desk.log_in(agent, password, TWICE) == "deny"


def test_a_broker_that_asks_twice_leaves_an_agent_as_many_logins(desk: Desk) -> None:
    agent = AgentKey()
    for _ in range(MAX_LOGINS):
        password = agent.password()
        assert [desk.log_in(agent, password, TWICE) for _ in range(2)] == ["allow", "allow"]
    assert desk.log_in(agent, agent.password(), TWICE) == "deny"


@pytest.mark.system
def test_at_the_broker_a_login_happens_once(clean_broker: PrivateBroker, tmp_path: Path) -> None:
    """The private broker keeps permissions and asks twice; a repeated login gets neither answer."""

    async def scenario() -> None:
        async with running_server(clean_broker, tmp_path) as server:
            agent = AgentKey()
            await server.enrol(agent)
            password = agent.password()
            tries = [await asyncio.to_thread(agent.is_let_in, clean_broker, password) for _ in range(3)]
            assert tries == [True, False, False]
            assert server.parts.broker_auth.denied["replayed"] >= 1

    asyncio.run(scenario())


def test_two_agents_may_use_the_same_nonce(desk: Desk) -> None:
    for agent in (AgentKey(), AgentKey()):
        assert desk.log_in(agent, agent.password(nonce=bytes(16))) == "allow"


@pytest.mark.parametrize("hours", [-23, 23])
def test_a_wrong_clock_is_let_in_and_its_skew_recorded(desk: Desk, hours: int) -> None:
    agent = AgentKey()
    assert desk.log_in(agent, agent.password(at=time.time() + hours * 3600)) == "allow"
    row = desk.store.get_agent(agent.id)
    assert row is not None
    assert row.clock_skew_s == pytest.approx(hours * 3600, abs=30)


def test_a_clock_that_was_set_back_does_not_shut_an_agent_out(desk: Desk) -> None:
    agent = AgentKey()
    assert desk.log_in(agent, agent.password(at=time.time() + 7200)) == "allow"
    assert desk.log_in(agent, agent.password()) == "allow"


@pytest.mark.parametrize(
    "seconds", [-DAY_S - 60, DAY_S + 60, 1 << 40, 1 << 63], ids=["old", "ahead", "year 36812", "huge"]
)
def test_a_clock_further_off_than_a_day_is_denied(desk: Desk, seconds: int) -> None:
    agent = AgentKey()
    assert desk.log_in(agent, agent.password(at=time.time() + seconds)) == "deny"
    assert desk.auth.denied["unauthenticated"] == 1
    assert desk.store.get_agent(agent.id) is None


def test_a_login_for_another_broker_is_denied(desk: Desk) -> None:
    agent = AgentKey()
    assert desk.log_in(agent, agent.password(broker="other")) == "deny"
    assert desk.auth.denied["bad-signature"] == 1


def test_a_login_under_another_agents_name_is_denied(desk: Desk) -> None:
    victim, thief = AgentKey(), AgentKey()
    assert desk.log_in(victim, thief.password()) == "deny"
    assert desk.store.get_agent(victim.id) is None


@pytest.mark.parametrize("password", ["", "guest", "A" * 160, "\N{SNOWMAN}", "=" * 4000])
def test_a_password_that_is_none_is_denied(desk: Desk, password: str) -> None:
    assert desk.log_in(AgentKey(), password) == "deny"


@pytest.mark.parametrize("username", ["", "guest", "mig-server", "A" * 32, "a" * 31, "a" * 33, "a\n" * 16])
def test_a_user_that_is_no_agent_is_denied(desk: Desk, username: str) -> None:
    assert desk.ask("user", username=username, password=AgentKey().password()) == "deny"


def test_without_a_connection_to_the_broker_a_login_is_denied_and_may_come_again(desk: Desk) -> None:
    agent = AgentKey()
    desk.is_connected = False
    assert desk.log_in(agent, agent.password()) == "deny"
    desk.is_connected = True
    assert desk.log_in(agent, agent.password()) == "allow"


def test_only_the_own_queue_and_the_own_routing_keys_are_allowed(desk: Desk) -> None:
    agent, other = AgentKey(), AgentKey()
    for each in (agent, other):
        desk.log_in(each, each.password())
    own_queue, other_queue = agent_queue(agent.id), agent_queue(other.id)
    resources = [
        (resource, name, permission)
        for resource, names in {
            "queue": [own_queue, other_queue, RESULTS_QUEUE, "", "amq.gen-x"],
            "exchange": [AGENTS_EXCHANGE, COMMANDS_EXCHANGE, "amq.default", "amq.topic", "mig.dead", ""],
            "topic": [AGENTS_EXCHANGE],
        }.items()
        for name in names
        for permission in ("configure", "read", "write")
        if desk.ask(
            "resource",
            username=agent.id,
            vhost="mig",
            resource=resource,
            name=name,
            permission=permission,
        )
        == "allow"
    ]
    assert resources == [("queue", own_queue, "read"), ("exchange", AGENTS_EXCHANGE, "write")]
    keys = [
        (exchange, permission, key)
        for exchange in (AGENTS_EXCHANGE, "amq.topic")
        for permission in ("read", "write")
        for key in (
            *(own(agent.id) for own in (heartbeat_key, result_key, alert_key)),
            *(foreign(other.id) for foreign in (heartbeat_key, result_key, alert_key)),
            "result.*",
            "alert.*",
            "alert.#",
            "",
        )
        if desk.ask(
            "topic",
            username=agent.id,
            vhost="mig",
            resource="topic",
            name=exchange,
            permission=permission,
            routing_key=key,
        )
        == "allow"
    ]
    assert keys == [
        (AGENTS_EXCHANGE, "write", heartbeat_key(agent.id)),
        (AGENTS_EXCHANGE, "write", result_key(agent.id)),
        (AGENTS_EXCHANGE, "write", alert_key(agent.id)),
    ]


@pytest.mark.parametrize("vhost", ["", "/", "MIG", "mig2"])
def test_no_other_virtual_host_is_allowed(desk: Desk, vhost: str) -> None:
    agent = AgentKey()
    desk.log_in(agent, agent.password())
    assert desk.ask("vhost", username=agent.id, vhost="mig") == "allow"
    assert desk.ask("vhost", username=agent.id, vhost=vhost) == "deny"
    own = {"username": agent.id, "vhost": vhost, "resource": "queue", "name": agent_queue(agent.id)}
    assert desk.ask("resource", permission="read", **own) == "deny"


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"username=%FF&password=x",
        b"username=a&username=b",
        b"&".join(b"%d=1" % number for number in range(65)),
    ],
    ids=["empty", "bytes", "not UTF-8", "a field twice", "many fields"],
)
@pytest.mark.parametrize("question", ["user", "vhost", "resource", "topic", "heard"])
def test_a_form_that_is_none_is_denied(desk: Desk, question: str, body: bytes) -> None:
    assert desk.post(f"/auth/{question}", body) == "deny"


def test_a_login_that_was_denied_is_remembered_for_the_doctor(desk: Desk) -> None:
    agent, other = AgentKey(), AgentKey()
    assert desk.log_in(agent, agent.password(broker="(doctor)")) == "deny"
    assert desk.ask("heard", username=agent.id) == "allow"
    assert desk.ask("heard", username=other.id) == "deny"
    assert desk.store.get_agent(agent.id) is None


@pytest.mark.parametrize("path", ["/auth/User", "/", "/auth/admin", "/auth/user/", ""])
def test_what_is_no_question_has_no_answer(desk: Desk, path: str) -> None:
    assert desk.post(path, b"username=a") is None


# On a real node


def read_own_queue(broker: PrivateBroker, agent: AgentKey) -> None:
    """Log in and look for a command."""
    with agent.connection(broker) as connection:
        assert receive_command(connection, agent, wait_s=0.1) is None


def refused(connection: Any, operation: Any) -> str:
    """Do something on a channel of its own that the broker must refuse; return what it said."""
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        operation(channel)
    except pika.exceptions.ChannelClosedByBroker as error:
        return f"{error.reply_code} {error.reply_text.split(' ')[0]}"
    return "allowed"


def try_everything(broker: PrivateBroker, agent: AgentKey, other: AgentKey) -> dict[str, str]:
    """Try what an agent must not do; return the broker's answers."""
    to_other = pika.BasicProperties(user_id=other.id)
    with agent.connection(broker) as connection:
        attempts = {
            "declare": lambda channel: channel.queue_declare("mig.mine"),
            "declare, dead-lettering": lambda channel: channel.queue_declare(
                "mig.mine", arguments={"x-dead-letter-exchange": COMMANDS_EXCHANGE}
            ),
            "declare an exchange": lambda channel: channel.exchange_declare("mig.mine"),
            "bind": lambda channel: channel.queue_bind(agent_queue(agent.id), AGENTS_EXCHANGE, "#"),
            "unbind": lambda channel: channel.queue_unbind(
                agent_queue(agent.id), COMMANDS_EXCHANGE, agent.id
            ),
            "bind exchanges": lambda channel: channel.exchange_bind(COMMANDS_EXCHANGE, AGENTS_EXCHANGE, "#"),
            "delete": lambda channel: channel.queue_delete(agent_queue(agent.id)),
            "delete an exchange": lambda channel: channel.exchange_delete(AGENTS_EXCHANGE),
            "purge another's queue": lambda channel: channel.queue_purge(agent_queue(other.id)),
            "purge the results": lambda channel: channel.queue_purge(RESULTS_QUEUE),
            "consume another's queue": lambda channel: channel.basic_consume(
                agent_queue(other.id), lambda *_: None
            ),
            "declare its own queue anew, dead-lettering": lambda channel: channel.queue_declare(
                agent_queue(agent.id), durable=True, arguments={"x-dead-letter-exchange": COMMANDS_EXCHANGE}
            ),
            "read another's queue": lambda channel: channel.basic_get(agent_queue(other.id)),
            "read the results": lambda channel: channel.basic_get(RESULTS_QUEUE),
            "command": lambda channel: channel.basic_publish(COMMANDS_EXCHANGE, other.id, b"x"),
            "default exchange": lambda channel: channel.basic_publish("", agent_queue(other.id), b"x"),
            "another's key": lambda channel: channel.basic_publish(
                AGENTS_EXCHANGE, result_key(other.id), b"x"
            ),
            "another's user id": lambda channel: channel.basic_publish(
                AGENTS_EXCHANGE, result_key(agent.id), b"x", to_other
            ),
        }
        return {name: refused(connection, attempt) for name, attempt in attempts.items()}


@pytest.mark.system
def test_an_agent_gets_its_queue_and_may_do_nothing_else(clean_broker: PrivateBroker, tmp_path: Path) -> None:
    async def scenario() -> dict[str, str]:
        async with running_server(clean_broker, tmp_path):
            agent, other = AgentKey(), AgentKey()
            await asyncio.to_thread(read_own_queue, clean_broker, agent)
            await asyncio.to_thread(read_own_queue, clean_broker, other)
            return await asyncio.to_thread(try_everything, clean_broker, agent, other)

    answers = asyncio.run(scenario())
    assert answers.pop("another's user id") == "406 PRECONDITION_FAILED"
    assert set(answers.values()) == {f"403 {REFUSED}"}, answers


@pytest.mark.system
def test_an_agent_can_learn_that_a_queue_is_there_and_how_full_and_nothing_of_what_is_in_it(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    def look(agent: AgentKey) -> list[int | str]:
        with agent.connection(clean_broker) as connection:
            depth = connection.channel().queue_declare(RESULTS_QUEUE, passive=True).method.message_count
            return [depth, refused(connection, lambda channel: channel.basic_get(RESULTS_QUEUE))]

    async def scenario() -> list[int | str]:
        async with running_server(clean_broker, tmp_path):
            return await asyncio.to_thread(look, AgentKey())

    # RabbitMQ asks about no permission for a passive declaration.
    assert asyncio.run(scenario()) == [0, f"403 {REFUSED}"]


@pytest.mark.system
def test_channels_and_messages_of_an_agent_are_limited(clean_broker: PrivateBroker, tmp_path: Path) -> None:
    agent = AgentKey()

    def push() -> tuple[int, str]:
        with agent.connection(clean_broker) as connection:
            large = b"x" * (MAX_MESSAGE_BYTES + 1)
            said = refused(
                connection,
                lambda channel: channel.basic_publish(
                    AGENTS_EXCHANGE, result_key(agent.id), large, pika.BasicProperties(user_id=agent.id)
                ),
            )
            return connection._impl.params.channel_max, said

    async def scenario() -> tuple[int, str]:
        async with running_server(clean_broker, tmp_path):
            return await asyncio.to_thread(push)

    assert asyncio.run(scenario()) == (MAX_CHANNELS, "406 PRECONDITION_FAILED")


@pytest.mark.system
def test_an_agent_gets_into_no_other_virtual_host(clean_broker: PrivateBroker, tmp_path: Path) -> None:
    control = BrokerControl(clean_broker.rabbitmqctl)
    control.run("add_vhost", "other")
    agent = AgentKey()

    def log_in() -> None:
        parameters = pika.URLParameters(clean_broker.agent_url)
        parameters.virtual_host = "other"
        parameters.credentials = pika.PlainCredentials(agent.id, agent.password())
        pika.BlockingConnection(parameters).close()

    async def scenario() -> None:
        async with running_server(clean_broker, tmp_path):
            await asyncio.to_thread(log_in)

    try:
        with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="NOT_ALLOWED"):
            asyncio.run(scenario())
    finally:
        control.run("delete_vhost", "other")


@pytest.mark.system
@pytest.mark.parametrize("case", ["wrong signature", "old password", "other broker", "clock"])
def test_a_login_that_is_not_good_is_refused_by_the_broker(
    clean_broker: PrivateBroker, tmp_path: Path, case: str
) -> None:
    agent = AgentKey()
    used = agent.password()
    password = {
        "wrong signature": AgentKey().password(),
        "old password": used,
        "other broker": agent.password(broker="other"),
        "clock": agent.password(at=time.time() - DAY_S - 60),
    }[case]

    def log_in(secret: str) -> None:
        with agent.connection(clean_broker, secret):
            pass

    async def scenario() -> None:
        async with running_server(clean_broker, tmp_path):
            await asyncio.to_thread(log_in, used)
            await asyncio.to_thread(log_in, password)

    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match=REFUSED):
        asyncio.run(scenario())


@pytest.mark.system
def test_without_a_server_no_agent_is_let_in(clean_broker: PrivateBroker) -> None:
    with (
        pytest.raises(pika.exceptions.ProbableAuthenticationError, match=REFUSED),
        AgentKey().connection(clean_broker),
    ):
        pass


@pytest.mark.system
def test_an_agent_may_publish_under_its_own_three_keys(clean_broker: PrivateBroker, tmp_path: Path) -> None:
    agent = AgentKey()

    def speak() -> None:
        with agent.connection(clean_broker) as connection:
            publish(connection, heartbeat_key(agent.id), b"x", user_id=agent.id)
            publish(connection, result_key(agent.id), b"x", user_id=agent.id)
            publish(connection, alert_key(agent.id), b"x", user_id=agent.id)

    async def scenario() -> None:
        async with running_server(clean_broker, tmp_path):
            await asyncio.to_thread(speak)

    asyncio.run(scenario())
