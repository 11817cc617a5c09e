"""One agent that sends more than an agent does is held back, so that it starves no other.

Rules:
1. Of answers only those count that are worth nothing: malformed, forged, fitting no command, or stored
   already. There is one that is worth something for each command, and its agent forgets it once the broker
   has it. What the broker brings again, after a server's end, does not count either.
2. Of heartbeats all count: the next one says the same.
3. An agent may send `burst` of them at once and `per_s` in the long run. Beyond that its messages are dropped
   unread, as `rate-limited`: not among the dead letters, which are others' too, and at a small part of the
   cost of looking at one. An answer that was worth something is lost with them.
4. After `PATIENCE` dropped messages in a row the agent is cut off: its connections are closed, and its logins
   are denied for `PAUSE`. So a flood ends at its source instead of filling the queue that all share. That
   stands in the database, for every server and for who looks at agents.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from protocol.errors import EnvironmentFailure
from server.database import Database
from server.store import Store

_log = logging.getLogger(__name__)

RATE_LIMITED = "rate-limited"
PATIENCE = 1000
PAUSE = timedelta(minutes=5)
_MAX_COUNTED = 100_000


class Quota(NamedTuple):
    """How many messages an agent may send at once, and per second in the long run."""

    burst: int
    per_s: float


# A batch or two that are worth nothing are an accident; heartbeats may be told to come every second.
ANSWERS = Quota(200, 1.0)
HEARTBEATS = Quota(60, 2.0)


@dataclass
class _Account:
    """What an agent has left, or owes, as of when; how many of its messages were dropped meanwhile."""

    left: float
    since: float
    dropped: int = 0


class Floods:
    """The accounts of all agents for one kind of message.

    Args:
        quota: what each may send.
        on_flood: called with an agent's id when it is to be cut off.
        monotonic: in seconds.

    """

    def __init__(
        self,
        quota: Quota,
        on_flood: Callable[[str], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quota = quota
        self._on_flood = on_flood
        self._monotonic = monotonic
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def charge(self, agent_ids: Iterable[str]) -> None:
        """Count messages, one for each time that an agent is named."""
        for agent_id in agent_ids:
            account = self._account(agent_id)
            account.left -= 1  # a batch is looked at as a whole: what it took too much is owed
            self._accounts[agent_id] = account
            self._accounts.move_to_end(agent_id)
        while len(self._accounts) > _MAX_COUNTED:
            self._accounts.popitem(last=False)

    def is_dropped(self, agent_id: str) -> bool:
        """Tell whether a message of this agent is to be dropped; if so, it has been counted."""
        if agent_id not in self._accounts:
            return False
        account = self._account(agent_id)
        if account.left >= 1:
            account.dropped = 0
            return False
        account.dropped += 1
        if account.dropped % PATIENCE == 0:
            self._on_flood(agent_id)
        return True

    def _account(self, agent_id: str) -> _Account:
        now = self._monotonic()
        account = self._accounts.get(agent_id) or _Account(self._quota.burst, now)
        earned = (now - account.since) * self._quota.per_s
        account.left = min(self._quota.burst, account.left + earned)
        account.since = now
        return account


class CutOff:
    """Cuts agents off that flood, one after the other.

    Args:
        database: and
        store: where it is kept who was cut off.
        shut_out: closes connections and deletes queues (`server.shutout`).
        clock: now, aware UTC.

    """

    def __init__(
        self,
        *,
        database: Database,
        store: Store,
        shut_out: Callable[[Sequence[str]], Awaitable[None]],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._shut_out = shut_out
        self._clock = clock
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._known: set[str] = set()

    def add(self, agent_id: str) -> None:
        """Cut an agent off soon; one that waits for it already is not added again."""
        if agent_id not in self._known:
            self._known.add(agent_id)
            self._waiting.put_nowait(agent_id)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            agent_id = await self._waiting.get()
            try:
                # First the database: a login between the two would be let in.
                await self._database.run(self._store.note_flood, agent_id, self._clock())
                await self._shut_out([agent_id])
                _log.warning("an agent floods and was cut off", extra={"agent": agent_id})
            except EnvironmentFailure as error:
                _log.warning(
                    "an agent floods and could not be cut off", extra={"agent": agent_id, "reason": error}
                )
            self._known.discard(agent_id)
