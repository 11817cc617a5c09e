"""The stream of an action's events (server-sent events, WHATWG HTML section 9.2).

Free of races by order: subscribe, then note which commands are open, then read the stored answers. What comes
later is news; answers are then read behind the last one sent, so none is missed, repeated or out of order.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

import msgspec

from protocol.command import FINAL_STATES
from protocol.documents import Campaign, DoneEvent, ResultItem
from protocol.errors import MigError
from server.api.documents import result_document
from server.api.roster import command_event, progress_event
from server.events import FollowerDropped
from server.rows import Change
from server.services import Services
from server.store import Store

PING_S = 15
_PAGE = 64


async def event_stream(
    services: Services,
    action_id: str,
    after: int,
    still_allowed: Callable[[], Awaitable[bool]],
    record: Callable[[int, int], None],
    *,
    is_paced: bool = False,
) -> AsyncIterator[bytes]:
    """Yield the events of an action until no command is open.

    It ends without `done` where the reader is too slow, its session ends, the database goes away or the
    server stops: the reader comes back with the last id that it saw.

    Args:
        services: the server's parts.
        action_id: of a stored action.
        after: `seq` of the last answer that the reader has; 0 for none.
        still_allowed: asked again at every ping.
        record: told at the end how many answers were given, and the `seq` of the last.
        is_paced: how the action stands as a campaign is told too.

    """
    given = _Given(after)
    campaign = _CampaignNews(services, action_id) if is_paced else None
    try:
        with services.events.follow(action_id) as follower:
            yield b": following\n\n"
            try:
                async for event in _events(
                    services, action_id, given, follower.changes, still_allowed, campaign
                ):
                    yield event
            except (FollowerDropped, MigError):
                return
    finally:
        if given.count:
            record(given.count, given.last)


class _Given:
    """How many answers a reader was given, and the `seq` of the last one."""

    def __init__(self, after: int) -> None:
        self.count = 0
        self.last = after


class _CampaignNews:
    """How a paced action stands, told when that has changed."""

    def __init__(self, services: Services, action_id: str) -> None:
        self._services = services
        self._action_id = action_id
        self._told: Campaign | None = None

    async def events(self) -> list[bytes]:
        """Return an event, unless the last one still says it all."""
        campaign = await self._services.database.read(self._services.store.get_campaign, self._action_id)
        if campaign is None or campaign == self._told:
            return []
        self._told = campaign
        return [encode_event("campaign", campaign)]


async def _events(  # noqa: PLR0917  (what one stream consists of)
    services: Services,
    action_id: str,
    given: _Given,
    changes: Callable[[float], Awaitable[list[Change]]],
    still_allowed: Callable[[], Awaitable[bool]],
    campaign: _CampaignNews | None,
) -> AsyncIterator[bytes]:
    database, store = services.database, services.store
    loop = asyncio.get_running_loop()
    open_commands = await database.read(store.open_commands, action_id)
    next_check = loop.time() + PING_S
    known = map(services.events.last_progress, open_commands)
    for event in _news(filter(None, known), set()):
        yield event
    has_answers = True
    while True:
        while has_answers:
            items = await database.read(_result_items, store, action_id, given.last)
            for item in items:
                given.count, given.last = given.count + 1, item.seq
                yield encode_event("result", item, seq=item.seq)
            has_answers = bool(items)
        for event in await campaign.events() if campaign is not None else ():
            yield event
        if not open_commands:
            counts = await database.read(store.count_commands, action_id)
            yield encode_event("done", DoneEvent(counts=counts))
            return
        news = await changes(max(0.0, next_check - loop.time()))
        if loop.time() >= next_check:
            if not await still_allowed():
                return
            yield b": ping\n\n"
            next_check = loop.time() + PING_S
            # What another server has changed is told by it; where that was lost, here it is seen.
            open_commands = await database.read(store.open_commands, action_id)
            has_answers = True
        else:
            has_answers = any(change.seq is not None for change in news)
        for event in _news(news, open_commands):
            yield event


def _news(news: Iterable[Change], open_commands: set[str]) -> Iterator[bytes]:
    """Yield what has changed, answers left out, and note which commands are open.

    Of progress only the last one of each command: a reader that is behind does not get the earlier ones.
    """
    last: dict[str, Change] = {}
    for change in news:
        last[change.command_id] = change
        if change.progress is not None:
            continue  # it opens no command that has ended meanwhile
        if change.state in FINAL_STATES:
            open_commands.discard(change.command_id)
        else:
            open_commands.add(change.command_id)
        if change.seq is None:
            yield encode_event("command", command_event(change))
    for change in last.values():
        if change.progress is not None:
            yield encode_event("progress", progress_event(change, change.progress))


def _result_items(store: Store, action_id: str, after: int) -> list[ResultItem]:
    return [result_document(row) for row in store.list_results(action_id, after, _PAGE)]


def encode_event(kind: str, document: msgspec.Struct, *, seq: int | None = None) -> bytes:
    """Return one event of a stream; `seq` is what a reader comes back with."""
    # Encoded JSON holds no line end, so nothing that an agent wrote can end the event.
    lines = [b"event: " + kind.encode("ascii")]
    if seq is not None:
        lines.append(b"id: %d" % seq)
    return b"\n".join([*lines, b"data: " + msgspec.json.encode(document), b"", b""])
