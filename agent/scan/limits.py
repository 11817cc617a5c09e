"""How many of a search's matches are reported: the first ones, or the newest or oldest of all.

The newest (or oldest) of a search can be told only at its end. Until then as many matches are held, and what
could not be among them any more is not opened: that can be known from times alone (`may_rank`).
"""

import heapq
import os
from typing import Callable, Dict, Iterator, List, Optional, Set, Tuple, Union

from agent.scan.items import Match, Status
from agent.scan.plan import Plan, PlannedSearch


def _key(search: PlannedSearch, status: Union[os.stat_result, Status]) -> int:
    """Return what is larger, the more a file is wanted."""
    return status.st_mtime_ns if search.newest else -status.st_mtime_ns


def may_rank(search: PlannedSearch, status: os.stat_result, border: Optional[int]) -> bool:
    """Tell whether a file can still be among a search's best; of equals the first one met stays.

    `border` is what `Limits.borders` once said of the search, None where it said nothing.
    """
    return border is None or _key(search, status) > border


class Limits:
    """Holds matches to the limits of their searches; `closed` are the searches that want no more."""

    def __init__(self, plan: Plan, note: Callable[[str], None], truncate: Callable[[str], None]) -> None:
        self.closed: Set[int] = set()
        self._plan = plan
        self._note = note
        self._truncate = truncate
        self._counts = [0] * len(plan.searches)
        self._most = [search.matchlimit for search in plan.searches]
        self._ranked = {at for at, search in enumerate(plan.searches) if search.newest or search.oldest}
        # By search a heap of its best: what makes them so, the place in the walk (negative), the match.
        self._best: Dict[int, List[Tuple[int, int, Match]]] = {}

    def admits(self, match: Match) -> bool:
        """Tell whether a match is to be reported now; of a ranked search it is kept for the end."""
        number = match.search
        if number in self._ranked:
            self._keep(self._plan.searches[number], match)
            return False
        most = self._most[number]
        # A search is cut only when there is a match beyond its limit.
        if most and self._counts[number] >= most:
            self.closed.add(number)
            label = self._plan.searches[number].label
            self._truncate(f"search {label}: stopped at its matchlimit of {most}; there are more matches")
            return False
        self._counts[number] += 1
        return True

    def _keep(self, search: PlannedSearch, match: Match) -> None:
        best = self._best.setdefault(match.search, [])
        self._counts[match.search] += 1
        item = (_key(search, match.status), -self._counts[match.search], match)
        if len(best) < (search.newest or search.oldest):
            heapq.heappush(best, item)
        else:
            heapq.heappushpop(best, item)

    def borders(self) -> Dict[int, int]:
        """Return, by search, behind what no file can be among its best any more; nothing where any can."""
        searches = self._plan.searches
        return {
            index: best[0][0]
            for index, best in self._best.items()
            if len(best) >= (searches[index].newest or searches[index].oldest)
        }

    def ranked(self) -> Iterator[Match]:
        """Yield the best matches of the ranked searches, the best first."""
        for index, best in sorted(self._best.items()):
            search = self._plan.searches[index]
            if self._counts[index] > len(best):
                what = "newest" if search.newest else "oldest"
                self._note(f"search {search.label}: only the {len(best)} {what} of its matches are reported")
            for _, _, match in sorted(best, key=lambda item: (-item[0], -item[1])):
                yield match
