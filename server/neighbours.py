"""Several servers on one database and one broker: each tells the others what it has changed.

Rules:
1. What is told saves waiting, and nothing else: every server finds out by itself, a little later, from the
   database (streams look at each ping, the outbox when a claim ends). So news may be lost, and are bounded.
2. They go over an exchange that only the servers' own account may use, each server reads from a queue of its
   own that goes with its connection. What arrives is decoded into one shape or refused.
3. SQLite has one server: there nobody is told anything.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from protocol.errors import MigError
from server.amqp import Delivery
from server.events import Events
from server.rows import Change

_log = logging.getLogger(__name__)

_MOST_CHANGES = 500  # in one message: some 100 KiB
_MOST_WAITING = 1000


class News(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What one server tells the others: what has changed, and whether there are commands or alerts."""

    server: str
    changes: tuple[Change, ...] = ()
    commands: bool = False
    alerts: bool = False


_decode_news = msgspec.json.Decoder(News)


class Neighbours:
    """What this server hears from the others, and tells them.

    Args:
        name: of this server, as long as it runs.
        events: gets what has changed elsewhere.
        broadcast: brings one message to all servers, this one included; may fail, and is then not repeated.
        on_commands: called when another server has something new for the outbox.
        on_alerts: called when another server has stored alerts.

    """

    def __init__(
        self,
        name: str,
        *,
        events: Events,
        broadcast: Callable[[bytes], Awaitable[None]],
        on_commands: Callable[[], None],
        on_alerts: Callable[[], None],
    ) -> None:
        self.name = name
        self._events = events
        self._broadcast = broadcast
        self._on_commands = on_commands
        self._on_alerts = on_alerts
        self._waiting: deque[News] = deque(maxlen=_MOST_WAITING)
        self._has_news = asyncio.Event()

    def tell_changes(self, changes: Sequence[Change]) -> None:
        """Tell what was committed."""
        for start in range(0, len(changes), _MOST_CHANGES):
            self._tell(News(server=self.name, changes=tuple(changes[start : start + _MOST_CHANGES])))

    def tell_commands(self) -> None:
        """Tell that there is something to send."""
        self._tell(News(server=self.name, commands=True))

    def tell_alerts(self) -> None:
        """Tell that alerts were stored."""
        self._tell(News(server=self.name, alerts=True))

    def _tell(self, news: News) -> None:
        self._waiting.append(news)
        self._has_news.set()

    async def run(self) -> None:
        """Send what there is to tell, until cancelled."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            while self._waiting:
                try:
                    await self._broadcast(msgspec.json.encode(self._waiting.popleft()))
                except MigError as error:
                    _log.info("the other servers were not told", extra={"reason": error})

    async def handle(self, batch: Sequence[Delivery]) -> Sequence[str | None]:
        """Take what other servers tell; return, for each message, None or why it is refused."""
        return [self._hear(delivery.body) for delivery in batch]

    def _hear(self, body: bytes) -> str | None:
        try:
            news = _decode_news.decode(body)
        except msgspec.MsgspecError:
            return "bad-document"
        if news.server == self.name:
            return None
        self._events.publish_here(news.changes)
        if news.commands:
            self._on_commands()
        if news.alerts:
            self._on_alerts()
        return None
