"""Two servers on one PostgreSQL let a paced action out as one would."""

import asyncio

import pytest

from protocol.documents import Pacing
from server.database import Database
from server.migrations import migrate
from tests.server.test_scheduler import Bench, MemoryRelay
from tests.support.broker import AgentKey
from tests.support.postgres import make_database
from tests.support.relay import PATIENCE_S

pytestmark = pytest.mark.system

_FLEET = 24
_AT_ONCE = 5


def test_no_agent_is_asked_twice_and_never_more_at_once_than_allowed(private_postgres: str) -> None:
    make_database(private_postgres, "campaigns")
    url = private_postgres.replace("/mig?", "/campaigns?")

    async def whole() -> None:
        databases = [Database(url), Database(url)]
        migrate(databases[0])
        servers = [Bench(database, MemoryRelay()) for database in databases]
        working = [asyncio.ensure_future(server.scheduler.run()) for server in servers]
        try:
            await ask(servers)
            assert not any(task.done() for task in working)
        finally:
            for task in working:
                task.cancel()
            await asyncio.wait(working)
            for database in databases:
                database.close()

    async def ask(servers: list[Bench]) -> None:
        first = servers[0]
        agents = [AgentKey() for _ in range(_FLEET)]
        await first.enrol(*agents)
        action = await first.submit(*agents, pacing=Pacing(waves=(1,), concurrency=_AT_ONCE))
        body = await first.body(action)
        answered: set[str] = set()
        async with asyncio.timeout(PATIENCE_S):
            while len(answered) < _FLEET:
                queues = [server.relay.queues for server in servers]
                asked = [agent for agent in agents for queue in queues if body in queue.get(agent.id, [])]
                assert len(asked) == len({agent.id for agent in asked})
                waiting = [agent for agent in asked if agent.id not in answered]
                assert len(waiting) <= (_AT_ONCE if answered else 1)
                if waiting:
                    answered.add(waiting[0].id)
                    await servers[len(answered) % 2].answer(action, waiting[0])
                    for server in servers:
                        server.wake.set()
                await asyncio.sleep(0)
        bodies = [sent for server in servers for queue in server.relay.queues.values() for sent in queue]
        assert bodies == [body] * _FLEET

    asyncio.run(whole())
