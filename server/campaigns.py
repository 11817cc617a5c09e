"""Lets paced actions out: looks at them when something has changed and when their time has come.

Rules:
1. All state is in the database, and `advance_campaign` decides and does in one transaction. Any number of
   servers may look at the same campaign at any time, and one that starts finds everything as it stands.
2. Nothing is let out while the broker is away: it would pile up, and go out at once when it is back.
3. Where no action is paced a look is one query that finds nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from protocol.errors import EnvironmentFailure
from server.database import Database
from server.events import Events
from server.store import Store

_log = logging.getLogger(__name__)
_DATABASE_PAUSE_S = 5.0
# Another server may have taken an action in, and died.
_LONGEST_SLEEP_S = 60.0
_SHORTEST_SLEEP_S = 0.05


class Campaigns:
    """The paced actions, as one server sees to them; `on_released` is called when there is more to send."""

    def __init__(
        self,
        *,
        database: Database,
        store: Store,
        events: Events,
        is_connected: Callable[[], bool],
        clock: Callable[[], datetime],
        on_released: Callable[[], None],
    ) -> None:
        self._database = database
        self._store = store
        self._events = events
        self._is_connected = is_connected
        self._clock = clock
        self._on_released = on_released
        self.wake = events.changed

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                timeout_s = await self._advance()
            except EnvironmentFailure as error:
                _log.warning("paced actions wait", extra={"reason": error})
                timeout_s = _DATABASE_PAUSE_S
            await self.wake.wait(timeout_s)

    async def _advance(self) -> float:
        """Look at all paced actions; return the seconds until the next look."""
        if not self._is_connected():
            return _LONGEST_SLEEP_S
        times: list[datetime] = []
        for action_id in await self._database.read(self._store.running_campaigns):
            now = self._clock()
            advanced = await self._database.run(self._store.advance_campaign, action_id, now)
            if advanced.released:
                _log.info("let out", extra={"action": action_id, "commands": advanced.released})
                self._on_released()
            if advanced.changes:
                _log.warning("stopped", extra={"action": action_id, "cancelled": len(advanced.changes)})
                self._events.publish(advanced.changes)
            if advanced.look_again is not None:
                times.append(advanced.look_again)
            await asyncio.sleep(0)
        if not times:
            return _LONGEST_SLEEP_S
        left_s = (min(times) - self._clock()).total_seconds()
        return min(max(left_s, _SHORTEST_SLEEP_S), _LONGEST_SLEEP_S)
