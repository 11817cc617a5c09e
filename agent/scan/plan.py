"""The plan of a scan: all searches made ready to be asked of one file after the other.

A check is told by name, by stat, by content or by a digest, in this order of cost. `wanted` folds the two
ways of turning a check round into one: a leading `!` and `mismatch`.
"""

import os
from typing import Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Tuple

from agent.scan.patterns import LinePattern, TextPattern, compile_lines, require_engine, split_inverse
from agent.scan.search import FILTER_FIELDS, HASH_KINDS, Search
from agent.scan.texts import mode_text

_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_AGES_S = {"m": 60, "h": 3600, "d": 86400}


class NameCheck(NamedTuple):
    """A check on the base name; `said` is how an answer names it."""

    said: str
    wanted: bool
    pattern: TextPattern

    def holds(self, name: bytes) -> bool:
        """Tell whether the check holds for a name."""
        return self.pattern.is_in(name) is self.wanted


class StatCheck(NamedTuple):
    """A check on what stat says: size, mode or time of the last change."""

    said: str
    wanted: bool
    test: Callable[[os.stat_result], bool]

    def holds(self, status: os.stat_result) -> bool:
        """Tell whether the check holds for a file's status."""
        return self.test(status) is self.wanted


class ContentCheck(NamedTuple):
    """A check on the lines: some line matches or, with `all_lines`, every one does; by index of a pattern."""

    said: str
    wanted: bool
    pattern: int
    all_lines: bool


class HashCheck(NamedTuple):
    """A check on a digest: it is one of those given."""

    said: str
    wanted: bool
    kind: str
    digests: FrozenSet[str]


class PlannedSearch(NamedTuple):
    """One search, ready; limits are 0 where there is none."""

    label: str
    paths: Tuple[bytes, ...]
    names: Tuple[NameCheck, ...]
    stats: Tuple[StatCheck, ...]
    contents: Tuple[ContentCheck, ...]
    hashes: Tuple[HashCheck, ...]
    report_kinds: Tuple[str, ...]
    matchall: bool
    maxdepth: int
    matchlimit: int


class Plan(NamedTuple):
    """All searches of one scan, and the content patterns that they share."""

    searches: Tuple[PlannedSearch, ...]
    patterns: Tuple[LinePattern, ...]
    max_errors: int


def make_plan(searches: Mapping[str, Search], now_ns: int) -> Plan:
    """Make searches ready; ages count back from `now_ns` (nanoseconds since 1970).

    Raises:
        InvalidInput: `unsupported`, where a search needs google-re2 and there is none.

    """
    indices: Dict[str, int] = {}
    planned = tuple(
        _plan_search(label, search, now_ns, indices) for label, search in sorted(searches.items())
    )
    limits = [search.options.maxerrors for search in searches.values()]
    return Plan(
        searches=planned,
        patterns=tuple(compile_lines(expression) for expression in indices),
        max_errors=max(limits) if limits and all(limits) else 0,
    )


def _plan_search(label: str, search: Search, now_ns: int, indices: Dict[str, int]) -> PlannedSearch:
    if search.names or search.modes or search.contents:
        require_engine(f"search {label!r} with names, modes or contents")
    turned = frozenset(search.options.mismatch)
    hashes = tuple(_hash_check(kind, search, turned) for kind in HASH_KINDS if getattr(search, kind))
    kinds = {check.kind for check in hashes}
    if search.options.returnsha256:
        kinds.add("sha256")
    return PlannedSearch(
        label=label,
        paths=tuple(path.encode("utf-8", "surrogateescape") for path in search.paths),
        names=tuple(_name_check(value, is_turned="name" in turned) for value in search.names),
        stats=tuple(_stat_checks(search, turned, now_ns)),
        contents=tuple(_content_checks(search, indices)),
        hashes=hashes,
        report_kinds=tuple(kind for kind in HASH_KINDS if kind in kinds),
        matchall=search.options.matchall,
        maxdepth=search.options.maxdepth,
        matchlimit=search.options.matchlimit,
    )


def _said(filter_name: str, value: str, *, is_turned: bool) -> str:
    return f"{'mismatch ' if is_turned else ''}{filter_name}={value}"


def _name_check(value: str, *, is_turned: bool) -> NameCheck:
    expression, is_inverse = split_inverse(value)
    return NameCheck(
        _said("name", value, is_turned=is_turned), is_inverse is is_turned, TextPattern(expression)
    )


def _stat_checks(search: Search, turned: FrozenSet[str], now_ns: int) -> List[StatCheck]:
    checks = []
    makers: Tuple[Tuple[str, Callable[[str], Tuple[bool, Callable[[os.stat_result], bool]]]], ...] = (
        ("size", _size_test),
        ("mode", _mode_test),
        ("mtime", lambda value: _mtime_test(value, now_ns)),
    )
    for filter_name, make_test in makers:
        is_turned = filter_name in turned
        for value in getattr(search, FILTER_FIELDS[filter_name]):
            is_inverse, test = make_test(value)
            checks.append(
                StatCheck(_said(filter_name, value, is_turned=is_turned), is_inverse is is_turned, test)
            )
    return checks


def _size_test(value: str) -> Tuple[bool, Callable[[os.stat_result], bool]]:
    """`<n` is at most n, `>n` at least n, both with n itself, as the ancestor has it."""
    number = value.lstrip("<>")
    unit = _UNITS.get(number[-1])
    size = int(number[:-1]) * unit if unit else int(number)
    if value.startswith("<"):
        return False, lambda status: status.st_size <= size
    if value.startswith(">"):
        return False, lambda status: status.st_size >= size
    return False, lambda status: status.st_size == size


def _mode_test(value: str) -> Tuple[bool, Callable[[os.stat_result], bool]]:
    expression, is_inverse = split_inverse(value)
    pattern = TextPattern(expression)
    # Files share a handful of modes: each is judged once.
    known: Dict[int, bool] = {}

    def test(status: os.stat_result) -> bool:
        if status.st_mode not in known:
            known[status.st_mode] = pattern.is_in(mode_text(status.st_mode).encode("ascii"))
        return known[status.st_mode]

    return is_inverse, test


def _mtime_test(value: str, now_ns: int) -> Tuple[bool, Callable[[os.stat_result], bool]]:
    """`<90d` is after now - 90 days, `>5h` before now - 5 hours, both strictly."""
    border_ns = now_ns - int(value[1:-1]) * _AGES_S[value[-1]] * 1_000_000_000
    if value.startswith("<"):
        return False, lambda status: status.st_mtime_ns > border_ns
    return False, lambda status: status.st_mtime_ns < border_ns


def _content_checks(search: Search, indices: Dict[str, int]) -> List[ContentCheck]:
    is_turned = "content" in search.options.mismatch
    checks = []
    for value in search.contents:
        expression, is_inverse = split_inverse(value)
        checks.append(
            ContentCheck(
                said=_said("content", value, is_turned=is_turned),
                wanted=is_inverse is is_turned,
                pattern=indices.setdefault(expression, len(indices)),
                # Inverted, "on all lines" is "no line matches", which is what the inverse is without it.
                all_lines=search.options.macroal and not is_inverse,
            )
        )
    return checks


def _hash_check(kind: str, search: Search, turned: FrozenSet[str]) -> HashCheck:
    is_turned = kind in turned
    return HashCheck(
        f"mismatch {kind}" if is_turned else kind, not is_turned, kind, frozenset(getattr(search, kind))
    )
