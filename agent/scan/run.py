"""A scan under way: the walk goes ahead, files are judged here or by workers, and what was said is settled.

What is judged where depends on nothing but how much there was before, and has no influence on the answer.
"""

import os
import time
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING, Callable, Deque, Iterator, List, NamedTuple, Optional, Tuple

from agent.module import Budget
from agent.scan.batch import Batch
from agent.scan.coverage import Recorder
from agent.scan.fence import Fence
from agent.scan.inspector import Examine, Inspector
from agent.scan.items import Item, Match, Part
from agent.scan.leaf import list_leaf
from agent.scan.mounts import Mounts
from agent.scan.plan import Plan
from agent.scan.recalling import QuickDigests
from agent.scan.roots import RootFinder
from agent.scan.settling import Settlement, in_order
from agent.scan.texts import path_text
from agent.scan.throttle import Throttle
from agent.scan.turns import Turn, alone
from agent.scan.walk import Walker

if TYPE_CHECKING:
    from agent.scan.pool import Pool

_PROGRESS_S = 0.5
_LISTEN_MS = 100
# Between two looks at whether a scan is still small.
_STEP_NAMES = 16
# What may wait to be settled, beside the number of batches: it may be that every one of them is a match.
_MAX_WAITING_NAMES = 20_000
# A task is one message: what has a longer path than this is judged here.
_MAX_PATH_BYTES = 16 << 10


class Effort(NamedTuple):
    """How a scan goes about its work; it has no influence on the answer.

    The first `here_files` files and `here_bytes` bytes are judged in the scan's own process; `defer_bytes` is
    the size from which on a file is a task of its own.
    """

    here_files: int = 256
    here_bytes: int = 4 << 20
    defer_bytes: int = 16 << 20


class _Wait(NamedTuple):
    """What is to be settled when its turn comes: what the walk said, then what was said of a batch."""

    said: List[Item]
    number: int
    batch: Batch
    turn: Turn


class Run:
    """One scan."""

    def __init__(
        self,
        plan: Plan,
        settlement: Settlement,
        *,
        fence: Fence,
        mounts: Mounts,
        examine: Optional[Examine],
        cache: Optional[QuickDigests],
        budget: Budget,
        effort: Effort,
        workers: int,
        check: Callable[[], None],
        progress: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._settlement = settlement
        self._fence = fence
        self._examine = examine
        self._cache = cache
        self._budget = budget
        self._effort = effort
        self._workers = workers
        self._check = check
        self._progress = progress
        self._next_progress = time.monotonic() + _PROGRESS_S
        self._walked = Recorder()
        self._judged = Recorder()
        self._mounts = mounts
        self._throttle = Throttle(budget, workers + 1, bytes_read=self._judged.bytes_in_all)
        self._inspector = self._make_inspector(self._judged, self._pulse, None)
        for text in plan.unknown:
            self._walked.skip("unknown-account")
            self._walked.note(text)
        self._by_name = [examine is None and search.is_by_name() for search in plan.searches]
        self._pool: Optional[Pool] = None
        self._waits: Deque[_Wait] = deque()
        self._waiting_names = 0
        self._files_here = 0

    def _make_inspector(
        self, recorder: Recorder, check: Callable[[], None], on_map: Optional[Callable[[bool], None]]
    ) -> Inspector:
        return Inspector(
            self._plan,
            recorder=recorder,
            mounts=self._mounts,
            fence=self._fence,
            check=check,
            examine=self._examine,
            on_map=on_map,
            cache=self._cache,
        )

    def _pulse(self) -> None:
        """Do what belongs into every loop: see whether to end, keep to the budget, tell of the progress."""
        self._throttle.keep(self._check)
        now = time.monotonic()
        if now >= self._next_progress:
            self._next_progress = now + _PROGRESS_S
            if not self._waits:
                self._settlement.take(self._walked.rest())
            self._settlement.tell_under_way(self._pool.bytes_read() if self._pool is not None else 0)
            self._progress()

    def matches(self) -> Iterator[Match]:
        """Yield everything."""
        settlement = self._settlement
        finder = RootFinder(self._plan, self._walked, self._pulse, self._fence, self._mounts)
        walker = Walker(
            self._plan,
            finder.roots,
            coverage=self._walked,
            mounts=self._mounts,
            fence=self._fence,
            closed=settlement.closed,
            check=self._pulse,
        )
        with closing(walker.batches()) as batches:
            for number, batch in enumerate(batches):
                yield from self._take(number, batch)
                if self._waits:
                    yield from self._settle_until(settlement.due(number + 1))
                if settlement.is_over():
                    return
                settlement.close(number + 1)
        yield from self._settle_until(None)
        if settlement.is_over():
            return
        for use in finder.globs:
            if not use.is_used() and use.search not in settlement.limits.closed:
                label = self._plan.searches[use.search].label
                self._walked.note(f"search {label}: {path_text(use.path)} matched nothing")
        settlement.take(self._walked.rest())

    def _take(self, number: int, batch: Batch) -> Iterator[Match]:
        closed = self._settlement.closed
        searches = tuple([root.search for root in batch.active if root.search not in closed])
        is_by_name = all(self._by_name[search] for search in searches)
        if batch.unlisted and not self._has_workers_for(batch, is_by_name=is_by_name):
            names, kinds = list_leaf(batch.directory, batch.path, self._walked)
            batch = batch._replace(names=tuple(names), kinds=kinds, unlisted=0)
        if not self._waits:
            self._settlement.take(self._walked.rest())
        if batch.unlisted:
            self._hand_over(number, batch, self._part(batch, searches, 0, 0))
            return
        total = len(batch.names)
        start = 0
        while start < total and not self._settlement.is_over():
            if self._has_workers_for(batch, is_by_name=is_by_name):
                self._hand_over(number, batch, self._part(batch, searches, start, total))
                return
            end = total if is_by_name or self._pool is not None else min(start + _STEP_NAMES, total)
            part = self._part(batch, searches, start, end, may_defer=not is_by_name)
            yield from self._judge_here(number, batch, part)
            self._files_here += end - start
            start = end

    def _part(
        self, batch: Batch, searches: Tuple[int, ...], start: int, end: int, *, may_defer: bool = True
    ) -> Part:
        names = batch.names[start:end]
        kinds = {name: batch.kinds[name] for name in names if name in batch.kinds} if batch.kinds else {}
        # Before there are workers a file need not be large to be worth one.
        limit = self._effort.defer_bytes if self._pool is not None else self._effort.here_bytes
        return Part(
            batch.path,
            names,
            kinds,
            searches,
            first=start,
            defer_bytes=limit if self._workers and may_defer else 0,
            borders=self._settlement.borders(),
            is_sifted=batch.is_sifted,
            is_leaf=bool(batch.unlisted),
        )

    def _has_workers_for(self, batch: Batch, *, is_by_name: bool) -> bool:
        """Tell whether a batch is worth workers, and there are some; they are started with the first one."""
        is_worth_them = not (is_by_name or self._is_small() or len(batch.path) > _MAX_PATH_BYTES)
        return is_worth_them and self._start_pool()

    def _is_small(self) -> bool:
        """Tell whether the scan has seen so little that workers are not worth their start."""
        return (
            self._pool is None
            and self._files_here < self._effort.here_files
            and self._judged.bytes_in_all() < self._effort.here_bytes
        )

    def _start_pool(self) -> bool:
        """Start the workers, unless there are some; tell whether there are."""
        if self._pool is None and self._workers:
            from agent.scan.pool import Pool  # noqa: PLC0415  (most scans are over before it is loaded)

            try:
                self._pool = Pool(
                    self._workers,
                    self._make_inspector,
                    lambda bytes_read: Throttle(self._budget, self._workers + 1, bytes_read=bytes_read),
                )
            except OSError:
                # No such sockets on this system, or no room for processes: slower, and nothing is lost.
                self._workers = 0
        return self._pool is not None

    def _judge_here(self, number: int, batch: Batch, part: Part) -> Iterator[Match]:
        """Judge a part in this process, as its matches are asked for; what is too large goes to a worker."""
        items = self._inspector.inspect(part, batch.directory)
        rest: List[Item] = []
        if not self._waits:
            now = _until_deferred(items, rest) if part.defer_bytes else items
            yield from self._settlement.settle(number, batch, now)
        rest.extend(items)
        if not rest:
            return
        turn = Turn(part, os.dup(batch.directory), batch.unlisted or len(part.names))
        self._append(number, batch, turn)
        for item in rest:
            turn.items.append(item)
            if not item.deferred_as:
                continue
            if self._start_pool() and self._pool is not None:
                self._pool.judge_alone(turn, part, item)
            else:
                turn.items.extend(self._inspector.inspect(alone(part, item), batch.directory))
        turn.finish_one()

    def _hand_over(self, number: int, batch: Batch, part: Part) -> None:
        turn = Turn(part, os.dup(batch.directory), batch.unlisted or len(part.names))
        self._append(number, batch, turn)
        if self._pool is not None:
            self._pool.submit(turn)

    def _append(self, number: int, batch: Batch, turn: Turn) -> None:
        self._waits.append(_Wait(self._walked.rest(), number, batch, turn))
        self._waiting_names += turn.names

    def _settle_until(self, number: Optional[int]) -> Iterator[Match]:
        """Settle what is judged; wait for what must be: all, or the batches up to a number.

        It is also waited for where the workers have enough to do, or too much waits to be settled.
        """
        pool = self._pool
        while self._waits and not self._settlement.is_over():
            if pool is not None and not (pool.has_news() or self._is_pressed(number)):
                # Most directories are less than a task, and to ask each time costs as much as to walk one.
                return
            self._pulse()
            yield from self._settle_ready()
            if pool is None or not self._waits:
                continue
            if self._is_pressed(number):
                pool.flush()
                pool.listen(_LISTEN_MS)
            else:
                pool.listen(0 if pool.is_hungry() else _LISTEN_MS)
                yield from self._settle_ready()
                if pool.is_hungry():
                    return

    def _is_pressed(self, number: Optional[int]) -> bool:
        """Tell whether what waits first must be settled now, or too much waits."""
        is_due = number is None or self._waits[0].number <= number
        return is_due or self._waiting_names > _MAX_WAITING_NAMES

    def _settle_ready(self) -> Iterator[Match]:
        while self._waits and not self._waits[0].turn.waiting and not self._settlement.is_over():
            wait = self._waits.popleft()
            self._waiting_names -= wait.turn.names
            self._settlement.take(wait.said)
            yield from self._settlement.settle(wait.number, wait.batch, in_order(wait.turn.items))

    def salvage(self) -> Iterator[Match]:
        """Yield what was judged behind something that will not be any more, now that the scan ends early."""
        while self._waits and not self._settlement.is_over():
            yield from self._settle_ready()
            if self._waits:
                self._waits.popleft()

    def close(self) -> None:
        """End the workers, and count what was read last."""
        if self._pool is not None:
            self._pool.close()
        self._settlement.end()
        self._settlement.take(self._judged.rest())


def _until_deferred(items: Iterator[Item], rest: List[Item]) -> Iterator[Item]:
    for item in items:
        if item.deferred_as:
            rest.append(item)
            return
        yield item
