"""Decides which searches a file satisfies, from facts alone: nothing here touches the disk.

The order is that of the cost: name, then status, attributes, content, digests. A search that must have every
check (`matchall`) is dropped at the first that fails; of one that is satisfied by any check, those that held
are kept for its answer.
"""

import os
from typing import FrozenSet, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from agent.scan.attributes import Attributes
from agent.scan.lines import LineAnswers
from agent.scan.plan import PlannedSearch


class Candidate(NamedTuple):
    """A file that a search may still want, by its place in the plan; `said` are checks that held so far."""

    number: int
    search: PlannedSearch
    said: Tuple[str, ...]

    def may_match_unread(self) -> bool:
        """Tell whether the search may want the file whatever is in it."""
        return self.search.matchall or bool(self.said)

    def needs_reading(self) -> bool:
        """Tell whether the search's answer depends on what is in the file."""
        search = self.search
        if search.contents or search.reads or search.hashes:
            return True
        return bool(search.report_kinds) and self.may_match_unread()


class Facts(NamedTuple):
    """What reading a content told; `lines` is None where it was not read.

    `unpacked` tells the same of what is packed in it, for searches that ask to decompress; None where it is
    not packed. `is_cached` tells that it was read by an earlier scan.
    """

    lines: Optional[LineAnswers]
    digests: Mapping[str, str]
    strings: Mapping[int, bool] = {}
    magics: Optional[FrozenSet[str]] = None
    entropy: Optional[float] = None
    unpacked: Optional["Facts"] = None
    is_cached: bool = False

    def of(self, search: PlannedSearch) -> "Facts":
        """Return the facts that a search goes by."""
        return self.unpacked if search.decompress and self.unpacked is not None else self


class Decision(NamedTuple):
    """A search that wants the file, and the checks to report (none where all were needed, but for `only`)."""

    candidate: Candidate
    checks: Tuple[str, ...]


UNREAD = Facts(None, {})


def by_name(one: Candidate, name: bytes) -> Optional[Candidate]:
    """Judge the checks on the name."""
    checks = one.search.names
    if not checks:
        return one
    if one.search.matchall:
        return one if all(check.holds(name) for check in checks) else None
    held = tuple(check.said for check in checks if check.holds(name))
    search = one.search
    has_more = search.stats or search.attributes or search.contents or search.reads or search.hashes
    return one._replace(said=held) if held or has_more else None


def by_status(candidates: Sequence[Candidate], status: os.stat_result) -> List[Candidate]:
    """Judge the checks on size, mode and time."""
    judged = (
        _judged(one, ((check.said, check.holds(status)) for check in one.search.stats)) for one in candidates
    )
    return [one for one in judged if one is not None]


def by_attributes(candidates: Sequence[Candidate], attributes: Optional[Attributes]) -> List[Candidate]:
    """Judge the checks on extended attributes; where they are not known none holds."""
    judged = (
        _judged(one, ((check.said, check.holds(attributes)) for check in one.search.attributes))
        for one in candidates
    )
    return [one for one in judged if one is not None]


def _judged(one: Candidate, verdicts: Iterable[Tuple[str, bool]]) -> Optional[Candidate]:
    """Return a candidate with the checks that hold, or None where it had to satisfy all and does not."""
    if one.search.matchall:
        return one if all(holds for _, holds in verdicts) else None
    held = tuple(said for said, holds in verdicts if holds)
    return one._replace(said=one.said + held) if held else one


def patterns_of(readers: Sequence[Candidate], *, all_lines: bool) -> FrozenSet[int]:
    """Return the content patterns that are asked of some line, or of all lines, by index in the plan."""
    checks = (check for one in readers for check in one.search.contents)
    return frozenset(check.pattern for check in checks if check.all_lines is all_lines)


def is_undecided(one: Candidate, facts: Facts) -> bool:
    """Tell whether a search still wants the file: not where every check counts and one on its content failed.

    `facts` are those so far: what they do not tell may still be told.
    """
    if not one.search.matchall:
        return True
    if facts.lines is not None:
        for check in one.search.contents:
            found = facts.lines.every if check.all_lines else facts.lines.some
            if check.pattern in found and found[check.pattern] is not check.wanted:
                return False
    return all(check.truth(facts) in (None, check.wanted) for check in one.search.reads)


def decide(candidates: Sequence[Candidate], facts: Facts) -> List[Decision]:
    """Return the searches that the file satisfies, with all that is known of it."""
    decided = []
    for one in candidates:
        checks = _decide(one, facts)
        if checks is not None:
            decided.append(Decision(one, checks))
    return decided


def _decide(one: Candidate, facts: Facts) -> Optional[Tuple[str, ...]]:
    held = list(one.said)
    for holds, said in _answers(one.search, facts.of(one.search)):
        if holds:
            held.append(said)
        elif one.search.matchall:
            return None
    if one.search.matchall:
        return one.search.only
    return tuple(held) or None


def _answers(search: PlannedSearch, facts: Facts) -> Iterator[Tuple[bool, str]]:
    """Yield of each check on the content whether it holds, and how an answer names it."""
    for check in search.contents:
        found: Mapping[int, bool] = {}
        if facts.lines is not None:
            found = facts.lines.every if check.all_lines else facts.lines.some
        yield found.get(check.pattern) is check.wanted, check.said
    for read_check in search.reads:
        yield read_check.truth(facts) is read_check.wanted, read_check.said
    for hash_check in search.hashes:
        digest = facts.digests.get(hash_check.kind)
        holds = digest is not None and (digest in hash_check.digests) is hash_check.wanted
        yield holds, f"{hash_check.said}={digest}" if hash_check.wanted else hash_check.said
