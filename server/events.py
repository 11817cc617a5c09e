"""Who waits for what inside this process: followers of actions, and the scheduler. Nothing polls.

The last progress of each command that runs is kept here too, in memory only: the next heartbeat renews it.

All of it belongs to the event loop's thread. A follower is told that something changed, and reads answers
from the store behind the last one it has; so none is missed or given twice, whatever the order of the news.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from server.rows import Change

# News are small and shared between followers; an action on every agent of a large fleet expires in one batch.
MAX_QUEUED = 65536
_MAX_RUNNING = 100_000


class FollowerDropped(Exception):
    """The follower read too slowly, or the server stops; it comes back and resumes where it was."""


class Follower:
    """One waiting reader of one action's changes."""

    def __init__(self, max_queued: int) -> None:
        self._max_queued = max_queued
        self._queued: list[Change] = []
        self._is_dropped = False
        self._news = asyncio.Event()

    async def changes(self, timeout_s: float) -> list[Change]:
        """Wait for news and return all of them; an empty list after `timeout_s` seconds without any.

        Raises:
            FollowerDropped: more news came than are kept, or the server stops.

        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return []
        if self._is_dropped:
            raise FollowerDropped
        self._news.clear()
        queued, self._queued = self._queued, []
        return queued

    def put(self, changes: Iterable[Change]) -> None:
        """Queue news; beyond the bound the follower is dropped, never the publisher held up."""
        self._queued.extend(changes)
        if len(self._queued) > self._max_queued:
            self.drop()
        self._news.set()

    def drop(self) -> None:
        """End the follower at its next wait."""
        self._is_dropped = True
        self._queued.clear()
        self._news.set()


class Events:
    """Publish and subscribe, by action id."""

    def __init__(self, *, max_queued: int = MAX_QUEUED) -> None:
        self._max_queued = max_queued
        self._tell: Callable[[Sequence[Change]], None] = _tell_nobody
        self._followers: dict[str, set[Follower]] = {}
        self._progress: dict[str, Change] = {}
        self._is_closed = False
        self.changed = Wake()  # for whoever waits for changes of any action

    @contextmanager
    def follow(self, action_id: str) -> Iterator[Follower]:
        """Subscribe to one action's changes from now on, until the block ends."""
        follower = Follower(self._max_queued)
        if self._is_closed:
            follower.drop()
        self._followers.setdefault(action_id, set()).add(follower)
        try:
            yield follower
        finally:
            followers = self._followers[action_id]
            followers.discard(follower)
            if not followers:
                del self._followers[action_id]

    def count_followers(self, action_id: str) -> int:
        """Return how many follow an action now."""
        return len(self._followers.get(action_id, ()))

    def count_all(self) -> int:
        """Return how many follow any action now."""
        return sum(len(followers) for followers in self._followers.values())

    def tell_others(self, tell: Callable[[Sequence[Change]], None]) -> None:
        """From now on give what is published here to other servers too."""
        self._tell = tell

    def publish(self, changes: Iterable[Change]) -> None:
        """Tell the followers, and the other servers, what was committed."""
        committed = tuple(changes)
        self.publish_here(committed)
        if committed:
            self._tell(committed)

    def publish_here(self, changes: Iterable[Change]) -> None:
        """Tell the followers of this server; what nobody follows costs next to nothing."""
        by_action: dict[str, list[Change]] = {}
        for change in changes:
            self.changed.set()
            self._keep_progress(change)
            if change.action_id in self._followers:
                by_action.setdefault(change.action_id, []).append(change)
        for action_id, news in by_action.items():
            for follower in self._followers[action_id]:
                follower.put(news)

    def _keep_progress(self, change: Change) -> None:
        self._progress.pop(change.command_id, None)
        if change.progress is not None:
            self._progress[change.command_id] = change  # behind all others: the oldest stands first
            if len(self._progress) > _MAX_RUNNING:
                del self._progress[next(iter(self._progress))]

    def last_progress(self, command_id: str) -> Change | None:
        """Return how far a command was when its agent last said so, since its state last changed."""
        return self._progress.get(command_id)

    def close(self) -> None:
        """End all followers, so that the server can stop."""
        self._is_closed = True
        for followers in self._followers.values():
            for follower in followers:
                follower.drop()


def _tell_nobody(_changes: Sequence[Change]) -> None:
    """One server alone has nobody to tell."""


class Wake:
    """Tells the scheduler that there is something to do; several calls before it looks count once.

    `also` is called with each `set`: it wakes other servers.
    """

    def __init__(self, also: Callable[[], None] = lambda: None) -> None:
        self._event = asyncio.Event()
        self.also = also

    def set(self) -> None:
        """Wake the scheduler now, or as soon as it waits; and those of other servers."""
        self._event.set()
        self.also()

    def set_here(self) -> None:
        """Wake this server's scheduler alone."""
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until woken and return True, or False after `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
