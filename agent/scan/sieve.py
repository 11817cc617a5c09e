"""Tells of many names at once which of them some search may want; most directories hold none."""

from typing import List, Optional, Sequence, Set

from agent.scan.checks import NameCheck
from agent.scan.patterns import TextPattern
from agent.scan.plan import PlannedSearch


class NameSieve:
    """Sifts names for searches of which each must have all its checks on the name."""

    def __init__(self, searches: Sequence[PlannedSearch]) -> None:
        # What is wanted leaves less over than what is not, and is looked for first.
        self._only: Optional[TextPattern] = None
        if len(searches) == 1 and len(searches[0].names) == 1 and searches[0].names[0].wanted:
            self._only = searches[0].names[0].pattern
        self._searches = [sorted(one.names, key=lambda check: not check.wanted) for one in searches]

    def keep(self, names: List[bytes]) -> Set[bytes]:
        """Return the names that satisfy all checks on the name of at least one search."""
        if not names:
            return set()
        block = b"\n".join(names)
        if self._only is not None:
            return self._only.among(names, block)
        kept: Set[bytes] = set()
        for checks in self._searches:
            kept |= self._sift(checks, names, block)
        return kept

    def _sift(self, checks: Sequence[NameCheck], names: List[bytes], block: bytes) -> Set[bytes]:
        left = names
        for check in checks:
            found = check.pattern.among(left, block)
            left = [name for name in left if (name in found) is check.wanted]
            if not left:
                return set()
            if len(left) < len(names):
                block = b"\n".join(left)
        return set(left)


def can_sift(search: PlannedSearch) -> bool:
    """Tell whether a search wants nothing of a name that does not satisfy its checks."""
    return bool(search.names) and search.matchall
