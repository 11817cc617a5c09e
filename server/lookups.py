"""Asks the database for all who ask meanwhile, in one query.

The broker asks five times at each login of an agent, and a login takes some looks of our own. When a fleet
comes back at once, hundreds of questions are open: each by itself would cost a turn of a thread, and its own
transaction, more than the query. Nothing is remembered: a query begins after the questions that it answers
were asked, so a revocation counts for the very next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from server.database import Database
from server.store import Store

_MOST = 500
# A fleet's questions come one by one: hundreds in a second when it returns, and some all the time, as what
# the broker keeps runs out. Those that come in this time share what costs no more than one.
_PAUSE_S = 0.01
Q = TypeVar("Q")
A = TypeVar("A")


class Together(Generic[Q, A]):
    """The questions of one kind that are open. One job is under way at a time; the next takes all that wait.

    `answer` gets some questions, in the order in which they came, and returns the answer to each, in that
    order. What it raises is raised by each of them. A job begins `pause_s` after the last one at the soonest:
    so a fleet's questions that come one by one are gathered, and a lone one is not waited for.
    """

    def __init__(
        self, answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, pause_s: float = 0.0
    ) -> None:
        self._answer = answer
        self._pause_s = pause_s
        self._soonest = 0.0
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._working: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """Return the answer, from a job that begins after this call."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())
        return await answer

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if len(self._waiting) < _MOST and loop.time() < self._soonest:
                await asyncio.sleep(self._soonest - loop.time())
            self._soonest = loop.time() + self._pause_s
            asked, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            questions = [question for question, _ in asked]
            (answers,) = await asyncio.gather(self._answer(questions), return_exceptions=True)
            if isinstance(answers, BaseException):
                for _, future in asked:
                    if not future.done():  # else whoever asked has gone
                        future.set_exception(answers)
                continue
            for (_, future), answer in zip(asked, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


class Enrolments:
    """Tells whether agents are enrolled."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._questions: Together[str, bool] = Together(self._answer, pause_s=_PAUSE_S)

    async def is_enrolled(self, agent_id: str) -> bool:
        """Tell whether an agent is enrolled.

        Raises:
            EnvironmentFailure: `database-away`.

        """
        return await self._questions.ask(agent_id)

    async def _answer(self, agent_ids: Sequence[str]) -> Sequence[bool]:
        enrolled = await self._database.read(self._store.enrolled_among, set(agent_ids))
        return [agent_id in enrolled for agent_id in agent_ids]
