"""Starts the occurrences of recurring actions: sends the same signed envelope again when one is due.

This is a trigger and no more: each agent computes from the signed schedule whether an occurrence is due, so
nothing that is done here, too early, too late or twice, makes anything run.

Rules:
1. At its time an occurrence becomes one command for each agent that the target means then. What was missed
   while no server ran is not made up for, unless its grace lasts.
2. An agent that comes online, or is new, while an occurrence is due gets it at its next heartbeat.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import datetime

from protocol.errors import EnvironmentFailure
from protocol.target import parse_target
from server.database import Database
from server.events import Wake
from server.store import Store

_log = logging.getLogger(__name__)
_DATABASE_PAUSE_S = 5.0
_LONGEST_SLEEP_S = 300.0
_SHORTEST_SLEEP_S = 0.05


class Recurring:
    """The recurring actions of one server; `on_started` is called when there are new commands to send."""

    def __init__(
        self,
        *,
        database: Database,
        store: Store,
        clock: Callable[[], datetime],
        on_started: Callable[[], None],
    ) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._on_started = on_started
        self.wake = Wake()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                timeout_s = await self._start()
            except EnvironmentFailure as error:
                _log.warning("occurrences wait", extra={"reason": error})
                timeout_s = _DATABASE_PAUSE_S
            await self.wake.wait(timeout_s)

    async def _start(self) -> float:
        """Start what is due; return the seconds until the next occurrence."""
        database, store = self._database, self._store
        while recurrences := await database.read(store.recurrences_to_start, self._clock()):
            for recurrence in recurrences:
                action, now = recurrence.action, self._clock()
                agent_ids = await database.read(store.find_commanded, parse_target(action.target), now)
                made = await database.run(store.start_occurrence, action, agent_ids, now)
                _log.info("started an occurrence", extra={"action": action.id, "commands": made})
            self._on_started()
            await asyncio.sleep(0)
        soonest = await database.read(store.next_start)
        if soonest is None:
            return _LONGEST_SLEEP_S
        left_s = (soonest - self._clock()).total_seconds()
        return min(max(left_s, _SHORTEST_SLEEP_S), _LONGEST_SLEEP_S)

    async def heard(self, agent_ids: Collection[str]) -> None:
        """Give agents that were heard of the occurrences that are due now, where they have not got them.

        Raises:
            EnvironmentFailure: `database-away`.

        """
        now = self._clock()
        for recurrence in await self._database.read(self._store.recurrences_due, now):
            action = recurrence.action
            target = parse_target(action.target)
            find = self._store.find_without_occurrence
            name = recurrence.occurrence
            missing = await self._database.read(find, action.id, name, target, agent_ids, now)
            if missing:
                await self._database.run(self._store.start_occurrence, action, missing, now)
                self._on_started()
