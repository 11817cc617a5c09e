"""The scheduler: brings pending commands from the database to the relay, and ends those whose time is over.

Rules:
1. The database is the outbox. A command is marked sent after the broker took it; a crash in between sends it
   twice, which the agent's journal makes harmless.
2. Nothing polls: the API, a connection to the broker, a login and the clock's next expiry wake it.
3. Sending again must heal what was lost without flooding a queue that still holds it. At each login, and at a
   heartbeat for what was sent more than `RESEND_AFTER` ago, the agent's sent and unacknowledged commands are
   counted against the commands that stand ready in its queue: where the queue holds fewer, something is
   missing, and they are published again. So a broker that was wiped, a queue that was deleted and an agent
   that lost its state are healed; an agent that is offline, or only slow, gets each command once. An agent
   that takes commands and neither answers nor acknowledges them (it trusts none of the signers) is asked at
   growing intervals, until its next login.
4. Cancels go out before commands, to all who were meant and have not answered; again at each login.
5. Of several servers one at a time empties the outbox; where it dies, the database lets the next one.
6. A command that the broker refuses (the queue is full) is put aside for `RETRY_S`, so it holds up no other.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from protocol.errors import EnvironmentFailure
from server.campaigns import Campaigns
from server.database import Database
from server.events import Events, Wake
from server.lookups import Together
from server.recurring import Recurring
from server.rows import CancelToSend, PendingCommand
from server.store import Store

_log = logging.getLogger(__name__)

RESEND_AFTER = timedelta(seconds=120)  # two heartbeats, and well below the five minutes of a usual action
RETRY_S = 30.0
_LONGEST_PATIENCE = timedelta(hours=12)
_BATCH = 500
_NAMED = 10  # actions in one line of the log
_OUTBOX_LOCK = 0x6D69676F757462  # any fixed number, like those of `server.store_base`
_DATABASE_PAUSE_S = 5.0
# A machine that was suspended does not count the time in its timers: look at the clock now and then.
_LONGEST_SLEEP_S = 300.0
_SHORTEST_SLEEP_S = 0.05
_LONGEST_TTL = timedelta(days=31)  # the broker counts no further than 49 days


class Publishing(Protocol):
    """The part of the relay that the scheduler uses."""

    @property
    def is_connected(self) -> bool:
        """Tell whether commands can be published now."""

    async def publish(self, commands: Sequence[PendingCommand]) -> frozenset[str]:
        """Publish; return the ids that the broker took."""

    async def declare_agent_queue(self, agent_id: str) -> int:
        """Declare an agent's queue; return how many commands are ready in it."""


class _Due(NamedTuple):
    """What an agent should have got: how many commands that it never acknowledged, and whether cancels."""

    commands: int
    has_cancels: bool


class Scheduler:
    """The scheduler of one server; `wake` is what the API sets when it has created an action."""

    def __init__(
        self,
        *,
        database: Database,
        store: Store,
        events: Events,
        relay: Publishing,
        wake: Wake,
        clock: Callable[[], datetime],
        on_sent: Callable[[Collection[str]], None],
    ) -> None:
        self._database = database
        self._store = store
        self._events = events
        self._relay = relay
        self._wake = wake
        self._clock = clock
        self._on_sent = on_sent
        self._outbox = Wake()
        self._expiries = Wake()
        self._recurring = Recurring(database=database, store=store, clock=clock, on_started=self._on_started)
        self._campaigns = Campaigns(
            database=database,
            store=store,
            events=events,
            is_connected=lambda: relay.is_connected,
            clock=clock,
            on_released=self._outbox.set,
        )
        self._aside: dict[str, tuple[str, datetime]] = {}  # command: its agent, and when to try again
        self._due: Together[str, _Due] = Together(self._find_due)
        self._patience: dict[str, timedelta] = {}  # agents that keep silent, and how long to wait now

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._send_for_ever())
            tasks.create_task(self._expire_for_ever())
            tasks.create_task(self._recurring.run())
            tasks.create_task(self._campaigns.run())

    def _on_started(self) -> None:
        self._outbox.set()
        self._expiries.set()

    def connected(self) -> None:
        """Send what waits: the relay has (again) a connection."""
        self._aside.clear()
        self._outbox.set()
        self._campaigns.wake.set()

    async def welcome(self, agent_id: str) -> None:
        """Make an agent's queue, at its login, and send again what the queue has lost.

        Raises:
            EnvironmentFailure: `broker-away`, `database-away`.

        """
        self._patience.pop(agent_id, None)
        ready = await self._relay.declare_agent_queue(agent_id)
        due = await self._due.ask(agent_id)
        if ready < due.commands:
            await self._requeue(agent_id, self._clock())
        if due.has_cancels:
            await self._send_again(agent_id)
        aside = [command_id for command_id, (agent, _) in self._aside.items() if agent == agent_id]
        for command_id in aside:
            del self._aside[command_id]
        if aside:  # else nothing has changed, and a fleet that returns would have it looked at all the time
            self._outbox.set()

    async def _find_due(self, agent_ids: Sequence[str]) -> Sequence[_Due]:
        return await self._database.read(self._read_due, agent_ids, self._clock())

    def _read_due(self, agent_ids: Sequence[str], now: datetime) -> Sequence[_Due]:
        counts = self._store.count_unacknowledged(agent_ids, now, now)
        cancelled = self._store.agents_with_cancels(agent_ids, now)
        return [_Due(counts[agent_id], agent_id in cancelled) for agent_id in agent_ids]

    async def _send_again(self, agent_id: str) -> None:
        """Send the cancels of what an agent holds: its queue may have lost them."""
        now = self._clock()
        for cancel in await self._database.read(self._store.cancels_for, agent_id, now):
            await self._relay.publish(_cancel_messages(cancel, now))

    async def heard(self, agent_ids: Collection[str]) -> None:
        """Send again, after heartbeats, what was sent a while ago and has not reached these agents."""
        now = self._clock()
        try:
            silent = self._store.silent_agents
            for agent_id in await self._database.read(silent, list(agent_ids), now, now - RESEND_AFTER):
                await self._remind(agent_id, now)
            await self._recurring.heard(agent_ids)
        except EnvironmentFailure as error:
            _log.warning("nothing was sent again", extra={"reason": error})

    async def _remind(self, agent_id: str, now: datetime) -> None:
        patience = self._patience.get(agent_id, RESEND_AFTER)
        if await self._count_missing(agent_id, now - patience):
            ready = await self._relay.declare_agent_queue(agent_id)
            if ready < await self._count_missing(agent_id, now - patience):
                await self._requeue(agent_id, now - patience)
                self._patience[agent_id] = min(2 * patience, _LONGEST_PATIENCE)

    async def _count_missing(self, agent_id: str, sent_before: datetime) -> int:
        count = self._store.count_unacknowledged
        return (await self._database.read(count, [agent_id], self._clock(), sent_before))[agent_id]

    async def _requeue(self, agent_id: str, sent_before: datetime) -> None:
        requeue = self._store.requeue_agent
        again = await self._database.run(requeue, agent_id, self._clock(), sent_before)
        _log.info("sending again", extra={"agent": agent_id, "commands": again})
        self._outbox.set()

    async def _listen(self) -> None:
        while True:
            await self._wake.wait()
            self._outbox.set()
            self._expiries.set()
            self._recurring.wake.set()
            self._campaigns.wake.set()

    async def _send_for_ever(self) -> None:
        timeout_s: float | None = None
        while True:
            await self._outbox.wait(timeout_s)
            try:
                async with self._alone():
                    has_cancels = await self._send_cancels()
                    await self._empty_outbox()
                timeout_s = RETRY_S if self._aside or has_cancels else None
            except EnvironmentFailure as error:
                _log.warning("commands wait", extra={"reason": error})
                timeout_s = _DATABASE_PAUSE_S

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Be the one server of several that empties the outbox: two would send everything twice."""
        acquiring = asyncio.ensure_future(self._database.read(self._database.acquire, _OUTBOX_LOCK))
        try:
            release = await asyncio.shield(acquiring)
        except asyncio.CancelledError:
            # The thread that waits cannot be told; what it gets must not stay behind.
            await self._database.read(await acquiring)
            raise
        try:
            yield
        finally:
            # Cancelled while it waits for a thread, it would not be run at all.
            await asyncio.shield(asyncio.ensure_future(self._database.read(release)))

    async def _send_cancels(self) -> bool:
        """Send each cancel to the agents that are left; tell whether some still are."""
        if not self._relay.is_connected:
            return False
        now = self._clock()
        is_left = False
        for cancel in await self._database.read(self._store.cancels_to_send, now):
            taken = await self._relay.publish(_cancel_messages(cancel, now))
            unsent = [agent_id for agent_id in cancel.agent_ids if _cancel_id(cancel, agent_id) not in taken]
            await self._database.run(self._store.mark_cancel_sent, cancel.action_id, unsent)
            is_left = is_left or bool(unsent)
        return is_left

    async def _empty_outbox(self) -> None:
        while self._relay.is_connected:
            now = self._clock()
            latest = now + timedelta(
                seconds=RETRY_S
            )  # what lies beyond was put aside before the clock was set
            self._aside = {known: entry for known, entry in self._aside.items() if now < entry[1] <= latest}
            waiting = await self._database.read(self._store.pending_commands, now, _BATCH + len(self._aside))
            chosen = [command for command in waiting if command.id not in self._aside][:_BATCH]
            if not chosen:
                return
            taken = await self._relay.publish(chosen)
            if taken:
                sent = await self._database.run(self._store.mark_sent, sorted(taken), self._clock())
                self._on_sent(taken)
                self._events.publish(sent)
                ids = sorted({command.action_id for command in chosen if command.id in taken})
                _log.info("sent", extra={"commands": len(taken), "actions": ",".join(ids[:_NAMED])})
            again = self._clock() + timedelta(seconds=RETRY_S)
            self._aside |= {
                command.id: (command.agent_id, again) for command in chosen if command.id not in taken
            }

    async def _expire_for_ever(self) -> None:
        while True:
            try:
                timeout_s = await self._expire()
            except EnvironmentFailure as error:
                _log.warning("expiries wait", extra={"reason": error})
                timeout_s = _DATABASE_PAUSE_S
            await self._expiries.wait(timeout_s)

    async def _expire(self) -> float:
        """End what is over; return the seconds until the next expiry."""
        self._events.publish(await self._database.run(self._store.expire_commands, self._clock()))
        soonest = await self._database.read(self._store.next_expiry)
        if soonest is None:
            return _LONGEST_SLEEP_S
        left_s = (soonest - self._clock()).total_seconds()
        return min(max(left_s, _SHORTEST_SLEEP_S), _LONGEST_SLEEP_S)


def _cancel_id(cancel: CancelToSend, agent_id: str) -> str:
    """Return the id of a message: a command's has other characters, so they cannot be mixed up."""
    return f"cancel-{cancel.action_id}-{agent_id}"


def _cancel_messages(cancel: CancelToSend, now: datetime) -> list[PendingCommand]:
    expireafter = min(cancel.expireafter, now + _LONGEST_TTL)
    return [
        PendingCommand(
            id=_cancel_id(cancel, agent_id),
            agent_id=agent_id,
            action_id=cancel.action_id,
            expireafter=expireafter,
            body=cancel.envelope,
        )
        for agent_id in cancel.agent_ids
    ]
