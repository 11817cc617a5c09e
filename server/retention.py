"""Deletes what is older than the configuration says, little by little, by the server's clock.

Rules:
1. Nothing is deleted unless the operator said after how many days: what was found may be evidence.
2. Small transactions with a pause after each, so that answers which come meanwhile wait for a moment only.
3. Several servers may do this at once; what one has deleted the other does not find.
4. A clock that is set years ahead would make everything old. So nothing is deleted unless agents were heard
   lately whose clocks, by the middle one, are within a day of ours.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from protocol.errors import EnvironmentFailure
from server.config import ServerConfig
from server.database import Database
from server.store import Store

_log = logging.getLogger(__name__)
_EVERY_S = 3600.0
_BATCH = 500  # of ids that stand in one statement and in one entry of the audit log
_PAUSE_S = 0.02


class Retention:
    """Deletes old answers, commands, actions and alerts."""

    def __init__(
        self, *, config: ServerConfig, database: Database, store: Store, clock: Callable[[], datetime]
    ) -> None:
        self._answers_days = config.keep_answers_days
        self._actions_days = config.keep_actions_days
        self._alerts_days = config.keep_alerts_days
        self._database = database
        self._store = store
        self._clock = clock

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.delete_old()
            except EnvironmentFailure as error:
                _log.warning("nothing is deleted", extra={"reason": error})
            await asyncio.sleep(_EVERY_S)

    async def delete_old(self) -> None:
        """Delete all that is old by now.

        Raises:
            EnvironmentFailure: `database-away` or `disk-full`; what was deleted is deleted.

        """
        now = self._clock()
        if not (self._answers_days or self._actions_days or self._alerts_days):
            return
        doubt = await self._database.read(self._store.doubt_clock, now)
        if doubt is not None:
            _log.warning("nothing is deleted", extra={"reason": doubt})
            return
        if self._answers_days:
            before = now - timedelta(days=self._answers_days)
            await self._delete("answers", self._store.delete_answers, before)
        if self._actions_days:
            before = now - timedelta(days=self._actions_days)
            await self._delete("commands", self._store.delete_commands, before)
            await self._delete("actions", self._store.delete_actions, before)
        if self._alerts_days:
            before = now - timedelta(days=self._alerts_days)
            await self._delete("alerts", self._store.delete_alerts, before)

    async def _delete(
        self, what: str, delete: Callable[[datetime, datetime, int], int], before: datetime
    ) -> None:
        total = 0
        while count := await self._database.run(delete, before, self._clock(), _BATCH):
            total += count
            await asyncio.sleep(_PAUSE_S)
        if total:
            _log.info("deleted", extra={"what": what, "count": total, "before": before.isoformat()})
