"""Many questions about agents at once are one query; each is answered by what stood after it was asked."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from protocol.errors import EnvironmentFailure
from server.database import Database
from server.lookups import Enrolments, Together
from server.store import Store
from tests.support.database import migrated_database
from tests.support.fleet import NOW, FleetAgent


class Bench:
    """A store whose queries about agents are counted."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = Store(database)
        self.enrolments = Enrolments(database, self.store)
        self.queries = 0
        sa.event.listen(database._engine, "before_cursor_execute", self._count)

    def _count(self, _connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        self.queries += "public_key" in statement

    async def ask(self, *agent_ids: str) -> list[bool]:
        """Ask about some agents at once."""
        return await asyncio.gather(*map(self.enrolments.is_enrolled, agent_ids))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(migrated_database(f"sqlite:///{tmp_path / 'mig.sqlite'}"))


def test_hundreds_of_questions_are_a_few_queries(bench: Bench) -> None:
    agents = [FleetAgent(bench.store, f"web{number}") for number in range(20)]
    bench.queries = 0
    ids = [agent.id for agent in agents] * 20 + ["f" * 32]
    assert asyncio.run(bench.ask(*ids)) == [True] * 400 + [False]
    assert bench.queries <= 2
    bench.database.close()


def test_a_revocation_counts_for_the_very_next_question(bench: Bench) -> None:
    agent = FleetAgent(bench.store)

    async def ask() -> list[bool]:
        before = await bench.enrolments.is_enrolled(agent.id)
        await bench.database.run(bench.store.revoke_agent, agent.id, NOW)
        return [before, await bench.enrolments.is_enrolled(agent.id)]

    assert asyncio.run(ask()) == [True, False]
    bench.database.close()


def test_where_the_database_is_away_everyone_who_asked_hears_of_it_and_the_next_may_ask_again(
    bench: Bench,
) -> None:
    agent = FleetAgent(bench.store)

    async def ask() -> None:
        with bench.database.writing() as connection:
            connection.execute(sa.text("ALTER TABLE agents RENAME TO gone"))
        answers = await asyncio.gather(
            *(bench.enrolments.is_enrolled(agent.id) for _ in range(3)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [EnvironmentFailure] * 3
        with bench.database.writing() as connection:
            connection.execute(sa.text("ALTER TABLE gone RENAME TO agents"))
        assert await bench.enrolments.is_enrolled(agent.id)

    asyncio.run(ask())
    bench.database.close()


def test_neither_a_lone_question_nor_a_full_job_waits_for_others() -> None:
    jobs: list[list[int]] = []

    async def answer(questions: Sequence[int]) -> Sequence[int]:
        jobs.append(list(questions))
        return [-question for question in questions]

    async def ask() -> list[int]:
        together = Together(answer, pause_s=3600.0)
        first = await together.ask(1)
        return [first, *await asyncio.gather(*map(together.ask, range(1000, 1500)))]

    assert asyncio.run(ask()) == [-1, *range(-1000, -1500, -1)]
    assert jobs == [[1], list(range(1000, 1500))]


def test_who_goes_away_leaves_the_answers_of_the_others_alone() -> None:
    begun, free = asyncio.Event(), asyncio.Event()

    async def answer(questions: Sequence[int]) -> Sequence[int]:
        begun.set()
        await free.wait()
        return questions

    async def ask() -> list[int]:
        together = Together(answer)
        asking = [asyncio.ensure_future(together.ask(number)) for number in range(3)]
        await begun.wait()
        asking.pop(1).cancel()
        free.set()
        return await asyncio.gather(*asking)

    assert asyncio.run(ask()) == [0, 2]
