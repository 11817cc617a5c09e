"""The checks of searches in memory, each made ready to be asked of one process after the other.

A check is true, not true, or not known: where a part of what it asks about could not be read and the rest
does not tell. What is not known holds for nobody, turned round or not.
"""

from typing import Dict, FrozenSet, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from agent.scan.memory_find import Span
from agent.scan.memory_needles import Matches, Needle, NeedleSet
from agent.scan.memory_search import MemorySearch
from agent.scan.patterns import TextPattern, split_inverse


class Texts(NamedTuple):
    """Texts of a process, as far as they are known."""

    texts: Tuple[bytes, ...]
    are_all: bool


class TextCheck(NamedTuple):
    """A check that one of some texts matches; `said` is how an answer names it."""

    said: str
    wanted: bool
    pattern: TextPattern

    def truth(self, given: Texts) -> Optional[bool]:
        """Return whether one matches; None where it is not known."""
        if any(self.pattern.is_in(text) for text in given.texts):
            return True
        return False if given.are_all else None


class NeedleCheck(NamedTuple):
    """A check that something is in the memory, by its place among the needles of all searches."""

    said: str
    wanted: bool
    needle: int


class Prepared(NamedTuple):
    """One search, ready to be asked."""

    label: str
    search: MemorySearch
    span: Span
    names: Tuple[TextCheck, ...]
    libraries: Tuple[TextCheck, ...]
    needles: Tuple[NeedleCheck, ...]

    def concerns(self, pid: int) -> bool:
        """Tell whether the search is about a process at all."""
        return not self.search.pids or pid in self.search.pids

    def wanted(self) -> FrozenSet[int]:
        """Return the needles that it looks for."""
        return frozenset(check.needle for check in self.needles)


class Judged(NamedTuple):
    """The checks of a search that a process was asked so far: those that hold, and whether all did."""

    held: Tuple[str, ...] = ()
    do_all: bool = True

    def plus(self, said: str, *, truth: Optional[bool], wanted: bool) -> "Judged":
        """Return this with one more check."""
        if truth is wanted:
            return Judged((*self.held, said), self.do_all)
        return Judged(self.held, do_all=False)

    def is_match(self, search: MemorySearch) -> bool:
        """Tell whether a search is satisfied; one without a check is by every process it is about."""
        if not search.has_check() or search.options.matchall:
            return self.do_all
        return bool(self.held)


def prepare(searches: Mapping[str, MemorySearch]) -> Tuple[Tuple[Prepared, ...], NeedleSet]:
    """Make searches ready, and the needles of all of them."""
    needles: Dict[Needle, int] = {}
    prepared: List[Prepared] = []
    for label, search in sorted(searches.items()):
        checks = [
            *_needle_checks("bytes", search.bytes, needles, is_bytes=True),
            *_needle_checks("content", search.contents, needles, is_bytes=False),
        ]
        span = Span(search.options.offset, search.options.maxlength)
        names, libraries = _text_checks("name", search.names), _text_checks("library", search.libraries)
        prepared.append(Prepared(label, search, span, names, libraries, tuple(checks)))
    return tuple(prepared), NeedleSet(tuple(needles))


def judge_texts(prepared: Prepared, names: Texts, libraries: Texts) -> Judged:
    """Judge what needs no reading of memory."""
    judged = Judged()
    for checks, texts in ((prepared.names, names), (prepared.libraries, libraries)):
        for check in checks:
            judged = judged.plus(check.said, truth=check.truth(texts), wanted=check.wanted)
    return judged


def judge_needles(
    judged: Judged, prepared: Prepared, matches: Mapping[int, Matches], *, is_whole: bool
) -> Judged:
    """Judge what was looked for in memory; `is_whole` where all of it was read that was to be."""
    for check in prepared.needles:
        truth = True if matches[check.needle].number else False if is_whole else None
        judged = judged.plus(check.said, truth=truth, wanted=check.wanted)
    return judged


def _text_checks(name: str, values: Iterable[str]) -> Tuple[TextCheck, ...]:
    checks = []
    for value in values:
        expression, is_inverse = split_inverse(value)
        checks.append(TextCheck(f"{name}={value}", not is_inverse, TextPattern(expression)))
    return tuple(checks)


def _needle_checks(
    name: str, values: Sequence[str], needles: Dict[Needle, int], *, is_bytes: bool
) -> List[NeedleCheck]:
    checks = []
    for value in values:
        text, is_inverse = split_inverse(value)
        index = needles.setdefault(Needle(text, is_bytes), len(needles))
        checks.append(NeedleCheck(f"{name}={value}", not is_inverse, index))
    return checks
