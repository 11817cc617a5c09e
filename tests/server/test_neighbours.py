"""Several servers on one PostgreSQL and one broker."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from protocol.command import CommandState
from protocol.errors import EnvironmentFailure
from protocol.names import agent_queue
from server.amqp import Delivery
from server.broker import PrivateBroker
from server.database import Database
from server.events import Events
from server.neighbours import Neighbours, News
from server.rows import Change
from tests.support.broker import AgentKey
from tests.support.ports import free_port
from tests.support.postgres import make_database
from tests.support.relay import (
    PATIENCE_S,
    make_config,
    make_result,
    receive,
    receive_command,
    running_server,
    send_result,
)

_numbers = itertools.count()
ACTION = "018f0000-0000-7000-8000-000000000000"


def change(number: int = 0, **changed: Any) -> Change:
    members = {
        "action_id": ACTION,
        "command_id": f"{number:032x}",
        "agent_id": "a" * 32,
        "agent_name": "web1",
        "state": CommandState.DONE,
    }
    return Change(**{**members, **changed})


class Two:
    """Two servers that hear each other without a broker."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.woken: list[str] = []
        self.alerted: list[str] = []
        self.events = {"one": Events(), "two": Events()}
        self.servers = {name: self._make(name) for name in self.events}

    def _make(self, name: str) -> Neighbours:
        async def broadcast(body: bytes) -> None:
            self.messages.append(body)
            for server in self.servers.values():
                assert await server.handle([Delivery(1, "", "", body)]) == [None]

        return Neighbours(
            name,
            events=self.events[name],
            broadcast=broadcast,
            on_commands=lambda: self.woken.append(name),
            on_alerts=lambda: self.alerted.append(name),
        )


async def deliver(two: Two, name: str) -> None:
    """Let one server send what it has to tell."""
    sending = asyncio.ensure_future(two.servers[name].run())
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait([sending])


def test_what_one_server_commits_reaches_the_followers_at_the_other() -> None:
    async def story() -> list[Change]:
        two = Two()
        with two.events["two"].follow(ACTION) as there, two.events["one"].follow(ACTION) as here:
            two.servers["one"].tell_changes([change(1, seq=7), change(2)])
            await deliver(two, "one")
            assert await here.changes(0) == []  # its own followers were told when it committed
            return await there.changes(1)

    assert asyncio.run(story()) == [change(1, seq=7), change(2)]


def test_what_is_new_for_the_outbox_wakes_the_other_servers_only() -> None:
    two = Two()
    two.servers["one"].tell_commands()
    asyncio.run(deliver(two, "one"))
    assert two.woken == ["two"]


def test_a_great_many_changes_are_told_in_bounded_messages() -> None:
    two = Two()
    two.servers["one"].tell_changes([change(number) for number in range(1200)])
    asyncio.run(deliver(two, "one"))
    told = [msgspec.json.decode(body, type=News) for body in two.messages]
    assert [len(news.changes) for news in told] == [500, 500, 200]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"server":"x","changes":[1]}', b'{"server":"x","y":1}']
)
def test_nonsense_is_refused(body: bytes) -> None:
    two = Two()
    assert asyncio.run(two.servers["one"].handle([Delivery(1, "", "", body)])) == ["bad-document"]


@pytest.fixture
def shared(private_postgres: str) -> str:
    name = f"neighbours{next(_numbers)}"
    make_database(private_postgres, name)
    return private_postgres.replace("/mig?", f"/{name}?")


@pytest.mark.system
@pytest.mark.usefixtures("clean_broker")
def test_any_of_several_servers_sends_takes_answers_and_tells_followers(
    broker: PrivateBroker, tmp_path: Path, shared: str
) -> None:
    async def story() -> None:
        config = msgspec.structs.replace(make_config(broker, tmp_path), database=shared)
        apart = msgspec.structs.replace(config, broker_auth_listen=f"127.0.0.1:{free_port()}")
        agents = [AgentKey() for _ in range(20)]
        async with running_server(broker, tmp_path, config=config) as one:
            await one.enrol(*agents)
            async with running_server(broker, tmp_path, config=apart) as two:
                for asked, other in ((one, two), (two, one)):
                    action = await asked.submit(*agents)
                    body = make_result(agents[0], action, await asked.digest(action))

                    def answer(body: bytes = body) -> None:
                        with agents[0].connection(broker) as connection:
                            assert receive_command(connection, agents[0])
                            send_result(connection, agents[0], body)

                    with other.parts.services.events.follow(action.id) as follower:
                        await asyncio.to_thread(answer)
                        async with asyncio.timeout(PATIENCE_S):
                            seen: set[CommandState] = set()
                            while CommandState.DONE not in seen:
                                seen |= {one.state for one in await follower.changes(PATIENCE_S)}
                    assert await asked.state(action, agents[0]) is CommandState.DONE
            # Everybody else gets each command once, although both servers had it to send.
            for agent in agents[1:]:
                assert await asyncio.to_thread(count_commands, agent) == 2

    def count_commands(agent: AgentKey) -> int:
        with agent.connection(broker) as connection:
            count = 0
            while receive(connection, agent_queue(agent.id), wait_s=0.3) is not None:
                count += 1
            return count

    asyncio.run(story())


@pytest.mark.system
def test_the_lock_on_the_outbox_is_one_servers_at_a_time_and_goes_with_it(shared: str) -> None:
    one, two = Database(shared), Database(shared)
    try:
        release = one.acquire(1)

        async def story() -> None:
            waiting = asyncio.ensure_future(two.read(two.acquire, 1))
            assert not (await asyncio.wait([waiting], timeout=0.2))[0]
            await one.read(release)
            (await asyncio.wait_for(waiting, PATIENCE_S))()

        asyncio.run(story())
    finally:
        one.close()
        two.close()


@pytest.mark.system
def test_a_database_that_dies_has_let_go_of_the_lock_on_the_outbox_and_that_is_said(shared: str) -> None:
    one = Database(shared)
    try:
        release = one.acquire(1)
        with sa.create_engine(shared, poolclass=sa.NullPool).begin() as other:
            holder = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            assert other.execute(sa.text(holder)).scalar_one()
        with pytest.raises(EnvironmentFailure, match="database-away"):
            release()
        one.acquire(1)()
    finally:
        one.close()


def test_that_alerts_were_stored_reaches_the_other_server_alone() -> None:
    async def story() -> tuple[list[str], list[str]]:
        two = Two()
        two.servers["one"].tell_alerts()
        await deliver(two, "one")
        return two.alerted, two.woken

    assert asyncio.run(story()) == (["two"], [])
