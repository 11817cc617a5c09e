"""Asks the database whether agents are enrolled, for all who are asked about meanwhile in one query.

The broker asks five times at each login of an agent. When a fleet comes back at once, hundreds of questions
are open: each by itself would cost a turn of a thread, more than the query. Nothing is remembered: a query
begins after the questions that it answers were asked, so a revocation counts for the very next one.
"""

import asyncio

from server.database import Database
from server.store import Store

_MOST = 500


class Enrolments:
    """The questions that are open. One query is under way at a time; who comes meanwhile shares the next."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database = database
        self._store = store
        self._waiting: list[tuple[str, asyncio.Future[bool]]] = []
        self._working: asyncio.Task[None] | None = None

    async def is_enrolled(self, agent_id: str) -> bool:
        """Tell whether an agent is enrolled.

        Raises:
            EnvironmentFailure: `database-away`.

        """
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((agent_id, answer))
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            ids = {agent_id for agent_id, _ in asked}
            reading = asyncio.ensure_future(self._database.read(self._store.enrolled_among, ids))
            await asyncio.wait([reading])
            problem = reading.exception()
            for agent_id, answer in asked:
                if answer.done():  # whoever asked has gone
                    continue
                if problem is not None:
                    answer.set_exception(problem)
                else:
                    answer.set_result(agent_id in reading.result())
