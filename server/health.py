"""Whether this server can do its work: asked of database and broker anew, and answered within seconds.

Rules:
1. Each is asked for what it is needed for: the database to begin a transaction that may write, the broker for
   one of the queues, and to take a message. What the process believes to be connected proves nothing: a
   frozen one looks so.
2. A question that is not answered within `PATIENCE_S` is `silent`: the other side is frozen, somebody holds
   the database's lock, or a network swallows packets. Nobody asks again before it is answered or has failed,
   so however many look, one thread and one call wait.
3. A full disk shows in writing only: known from the last write, which heartbeats cause every minute, and on
   SQLite from what is free beneath its file.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from protocol.errors import EnvironmentFailure
from server.database import Database
from server.single_flight import PATIENCE_S, SingleFlight

State = Literal["ok", "away", "silent", "full"]
_FULL = {"disk-full", "broker-full"}


async def _state(question: SingleFlight[object]) -> State:
    """Return how it stands, after its patience at most."""
    try:
        await question.answer()
    except TimeoutError:
        return "silent"
    except EnvironmentFailure as error:
        return "full" if error.code in _FULL else "away"
    return "ok"


class HealthCheck:
    """Asks both; `ask_broker` returns when the broker has answered; raises `broker-away` or `broker-full`."""

    def __init__(
        self,
        *,
        database: Database,
        ask_broker: Callable[[], Awaitable[object]],
        patience_s: float = PATIENCE_S,
    ) -> None:
        # Of its own: when the database is frozen, its threads are all taken.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="health")

        async def ask_database() -> object:
            return await asyncio.get_running_loop().run_in_executor(self._thread, database.require_writable)

        self._database = SingleFlight(ask_database, patience_s)
        self._broker = SingleFlight(ask_broker, patience_s)

    async def look(self) -> tuple[State, State]:
        """Return how database and broker stand."""
        database, broker = await asyncio.gather(_state(self._database), _state(self._broker))
        return database, broker
