"""How many of a search's matches are reported: the first ones, or the newest or oldest of all.

The newest (or oldest) of a search can be told only at its end. Until then as many matches are held, and what
could not be among them any more is not opened: `Ranks` knows that from times alone, in whichever process it
judges files, since a file that is behind enough others in a part of the walk is behind them in the whole.
"""

import heapq
import os
from typing import Callable, Dict, Iterator, List, Set, Tuple

from agent.scan.judging import Match
from agent.scan.plan import Plan, PlannedSearch


def _key(search: PlannedSearch, status: os.stat_result) -> int:
    """Return what is larger, the more a file is wanted."""
    return status.st_mtime_ns if search.newest else -status.st_mtime_ns


class Ranks:
    """The times of the best matches so far, of the searches that want only the newest or oldest."""

    def __init__(self, plan: Plan) -> None:
        self._searches = {
            index: search for index, search in enumerate(plan.searches) if search.newest or search.oldest
        }
        self._best: Dict[int, List[int]] = {index: [] for index in self._searches}

    def has_any(self) -> bool:
        """Tell whether any search is ranked."""
        return bool(self._searches)

    def may_want(self, index: int, status: os.stat_result) -> bool:
        """Tell whether a file can still be among a search's best; of equals the first one met stays."""
        search = self._searches.get(index)
        if search is None:
            return True
        best = self._best[index]
        return len(best) < (search.newest or search.oldest) or _key(search, status) > best[0]

    def add(self, index: int, status: os.stat_result) -> None:
        """Count a match."""
        search = self._searches.get(index)
        if search is None:
            return
        best = self._best[index]
        heapq.heappush(best, _key(search, status))
        if len(best) > (search.newest or search.oldest):
            heapq.heappop(best)


class Limits:
    """Holds matches to the limits of their searches; `closed` are the searches that want no more."""

    def __init__(self, plan: Plan, note: Callable[[str], None], truncate: Callable[[str], None]) -> None:
        self.closed: Set[int] = set()
        self._plan = plan
        self._note = note
        self._truncate = truncate
        self._counts = [0] * len(plan.searches)
        # By search a heap of its best: what makes them so, the place in the walk (negative), the match.
        self._best: Dict[int, List[Tuple[int, int, Match]]] = {}

    def admits(self, match: Match) -> bool:
        """Tell whether a match is to be reported now; of a ranked search it is kept for the end."""
        search = self._plan.searches[match.search]
        if search.newest or search.oldest:
            self._keep(search, match)
            return False
        # A search is cut only when there is a match beyond its limit.
        if search.matchlimit and self._counts[match.search] >= search.matchlimit:
            self.closed.add(match.search)
            self._truncate(
                f"search {search.label}: stopped at its matchlimit of {search.matchlimit};"
                " there are more matches"
            )
            return False
        self._counts[match.search] += 1
        return True

    def _keep(self, search: PlannedSearch, match: Match) -> None:
        best = self._best.setdefault(match.search, [])
        self._counts[match.search] += 1
        item = (_key(search, match.status), -self._counts[match.search], match)
        if len(best) < (search.newest or search.oldest):
            heapq.heappush(best, item)
        else:
            heapq.heappushpop(best, item)

    def ranked(self) -> Iterator[Match]:
        """Yield the best matches of the ranked searches, the best first."""
        for index, best in sorted(self._best.items()):
            search = self._plan.searches[index]
            if self._counts[index] > len(best):
                what = "newest" if search.newest else "oldest"
                self._note(f"search {search.label}: only the {len(best)} {what} of its matches are reported")
            for _, _, match in sorted(best, key=lambda item: (-item[0], -item[1])):
                yield match
