"""Puts what was said of batches into the order of the walk, and cuts it where a search has enough.

Whoever judged a batch, and when, nobody can tell from the answer. That takes one rule: what was learnt from a
batch (a search has enough; older files are no more among its newest) has an influence from the `LAG`-th batch
after it on, neither sooner nor later; so far a scan may be ahead of what it has told. Where no search is left
the answer ends at the very file.
"""

from collections import deque
from typing import Callable, Deque, Dict, Iterable, Iterator, List, Sequence, Set, Tuple

from agent.scan.batch import Batch
from agent.scan.coverage import Coverage
from agent.scan.items import Item, Match
from agent.scan.limits import Limits
from agent.scan.plan import Plan

LAG = 512


class Settlement:
    """What a scan has told so far; `closed` holds searches that the walk need not care for any more."""

    def __init__(self, plan: Plan, *, coverage: Coverage, truncate: Callable[[str], None]) -> None:
        self.closed: Set[int] = set()
        self.limits = Limits(plan, coverage.note, truncate)
        self._searches = len(plan.searches)
        self._coverage = coverage
        self._told_bytes = 0
        # As of the end of which batch, and the borders then.
        self._borders: Deque[Tuple[int, Dict[int, int]]] = deque([(-1, {})])
        self._full: List[Tuple[int, int]] = []  # number of the batch in which a search had enough, and which

    def is_over(self) -> bool:
        """Tell whether every search has enough."""
        return len(self._full) == self._searches

    def close(self, number: int) -> None:
        """Say which batch comes next: what had enough long enough ago is closed."""
        for at, search in self._full:
            if at + LAG <= number:
                self.closed.add(search)
        while len(self._borders) > 1 and self._borders[1][0] + LAG <= number:
            self._borders.popleft()

    def due(self, number: int) -> int:
        """Return up to which batch all must be settled before this one is made."""
        return number - LAG

    def borders(self) -> Dict[int, int]:
        """Return the borders that hold for the batch that comes next."""
        return self._borders[0][1]

    def tell_under_way(self, bytes_read: int) -> None:
        """Say how much was read of files that are not judged yet.

        What was told once stands: what is judged and waits for its turn is counted by nobody meanwhile.
        """
        settled = self._coverage.bytes_read
        self._told_bytes = max(self._told_bytes, settled + bytes_read)
        self._coverage.bytes_under_way = self._told_bytes - settled

    def end(self) -> None:
        """Say that nothing is under way: the counts are what was settled."""
        self._coverage.bytes_under_way = 0

    def take(self, items: Iterable[Item]) -> None:
        """Take what the walk said by itself."""
        for item in items:
            self._coverage.count(item)

    def settle(self, number: int, batch: Batch, items: Iterable[Item]) -> Iterator[Match]:
        """Take what was said of a batch, in the order of its entries; yield its matches."""
        # What shows a path as the search's own path leads to it; most need nothing, and matches are many.
        shows = {root.search: None if root.real == root.shown else root.show for root in batch.active}
        directory = batch.path if batch.path.endswith(b"/") else batch.path + b"/"
        for item in items:
            self._coverage.count(item)
            found = item.found
            if found is None or found.search in self.limits.closed:
                continue
            path = directory + item.name
            show = shows[found.search]
            match = Match(
                found.search,
                path if show is None else show(path),
                found.kind,
                found.status,
                found.digests,
                found.checks,
                found.examined,
                found.is_cached,
            )
            if self.limits.admits(match):
                yield match
            elif found.search in self.limits.closed:
                self._full.append((number, found.search))
                if self.is_over():
                    return
        borders = self.limits.borders()
        if borders != self._borders[-1][1]:
            self._borders.append((number, borders))


def in_order(items: Sequence[Item]) -> List[Item]:
    """Return the items of a batch by entry, where some entries were judged later than others."""
    return sorted(items, key=lambda item: item.index)
