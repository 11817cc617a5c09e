"""Rules applied to the files that selections choose: what was found, and what was not scanned and why.

Rules:

* Of each file or process there is one of three outcomes: something matched, nothing did (it counts as
  scanned), or it was not scanned, which is counted by reason and named.
* Hostile bytes meet the rule engine in a helper (`agent.scan.helper`), one for each process that judges
  files: how it ended is the reason why that one file was not scanned, and the scan goes on.
"""

import os
import stat
import time
from collections import Counter
from contextlib import closing
from typing import Callable, Iterator, Mapping, NamedTuple, Optional, Set, Tuple

import msgspec
from msgspec.structs import replace

from agent.module import Budget, Context
from agent.scan.coverage import Coverage
from agent.scan.helper import Helper, HelperLost
from agent.scan.items import Match
from agent.scan.outcome import LOST, TIMED_OUT, UNREADABLE, Hit, Outcome, decode, encode
from agent.scan.plan import Plan, make_plan
from agent.scan.rule_work import FILE, Bounds, too_large
from agent.scan.run import Effort
from agent.scan.scan import scan
from agent.scan.search import Selection
from agent.scan.texts import path_text

# Scanning a file costs more than judging its name: workers are worth their start sooner.
_EFFORT = Effort(here_files=32, here_bytes=1 << 20)
_NO_FILE = "no-file"
_NAMED = 100


class ProcessName(NamedTuple):
    """A process as an answer names it."""

    pid: int
    name: bytes
    executable: bytes


class Finding(NamedTuple):
    """A rule that matched: in a file, or in a process; of one search, by its label."""

    search: str
    hit: Hit
    file: Optional[Match] = None
    process: Optional[ProcessName] = None


class Enough(Exception):
    """As much was scanned as may be."""


class Tally:
    """Counts the outcomes and says the reasons."""

    def __init__(self, context: Context, max_total_bytes: int) -> None:
        self._context = context
        self._left = max_total_bytes
        self._bounds_total = max_total_bytes
        self._named = 0
        self.not_scanned: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def begin(self, kind: str) -> None:
        """Have the counts of files or of processes told also where they are zero."""
        for what in ("scanned", "matched"):
            self.counts[f"{kind}_{what}"] += 0

    def count(self, kind: str, outcome: Outcome, name: str) -> None:
        """Count one file or process; `kind` is the plural of what it is.

        Raises:
            Enough: more than that is not to be scanned.

        """
        for reason, words in outcome.holes:
            self.lose(reason, f"{name}: not scanned: {words}")
        if outcome.is_cut:
            self._context.note(f"{name}: more matched than is told of it")
        if not outcome.holes or outcome.hits:
            self.counts[f"{kind}_scanned"] += 1
        if outcome.hits:
            self.counts[f"{kind}_matched"] += 1
        self.counts["bytes_scanned"] += outcome.size
        self._left -= outcome.size
        if self._left < 0:
            self._context.truncate(f"stopped: {self._bounds_total} bytes were scanned (max_total_bytes)")
            raise Enough

    def lose(self, reason: str, text: str = "") -> None:
        """Count something that was not scanned, and name it unless it is said elsewhere."""
        self.not_scanned[reason] += 1
        self._named += bool(text)
        if text and self._named <= _NAMED:
            self._context.note(text)

    def finish(self) -> None:
        """Say in words what is only counted."""
        if self._named > _NAMED:
            self._context.note(f"further things not scanned, only counted: {self._named - _NAMED}")

    def tell(self) -> None:
        """Put the counts into the statistics."""
        self._context.statistics.update(self.counts)
        self._context.statistics["not_scanned"] = dict(sorted(self.not_scanned.items()))


class MatchLimits:
    """Counts matching files or processes of each search against its matchlimit."""

    def __init__(self, limits: Mapping[str, int], truncate: Callable[[str], None]) -> None:
        self._limits = limits
        self._truncate = truncate
        self._counts: Counter[str] = Counter()
        self.closed: Set[str] = set()

    def admits(self, search: str) -> bool:
        """Tell whether one more match of a search is told; say so when it is the first that is not."""
        limit = self._limits[search]
        if limit and self._counts[search] >= limit:
            if search not in self.closed:
                self.closed.add(search)
                self._truncate(
                    f"search {search}: stopped at its matchlimit of {limit}; there are more matches"
                )
            return False
        self._counts[search] += 1
        return True

    def is_over(self) -> bool:
        """Tell whether no search wants more."""
        return len(self.closed) == len(self._limits)


def ask(helper: Helper, request: bytes, descriptor: int) -> bytes:
    """Return what the helper says of a file or process, or how it ended over it."""
    try:
        answer = helper.ask(request, descriptor)
        # It has met hostile bytes: what it says is looked at before anybody relies on it.
        decode(answer)
    except HelperLost as lost:
        return encode(Outcome(holes=((TIMED_OUT if lost.is_silent else LOST, str(lost)),)))
    except msgspec.MsgspecError:
        helper.close()
        return encode(Outcome(holes=((LOST, "its process gave an answer that is none"),)))
    return answer


def scan_files(
    selections: Mapping[str, Selection],
    helper: Helper,
    bounds: Bounds,
    tally: Tally,
    context: Context,
    *,
    budget: Budget,
) -> Iterator[Finding]:
    """Yield what matches in the files that the selections choose."""

    def examine(descriptor: int, status: os.stat_result, path: bytes) -> bytes:
        if status.st_size > bounds.max_file_bytes:
            return encode(too_large(bounds))
        return ask(helper, FILE + path, descriptor)

    def progress() -> None:
        context.statistics.update(coverage.statistics())
        tally.tell()
        context.progress()

    tally.begin("files")
    plan = make_plan(
        {label: _every_match(selection) for label, selection in selections.items()}, time.time_ns()
    )
    limits = MatchLimits(
        {label: selection.options.matchlimit for label, selection in selections.items()}, context.truncate
    )
    coverage = Coverage(context.note, max_errors=plan.max_errors)
    found = scan(
        plan,
        coverage=coverage,
        rules=context.paths,
        check=context.check,
        truncate=context.truncate,
        examine=examine,
        budget=budget,
        effort=_EFFORT,
        progress=progress,
    )
    with closing(found):
        try:
            yield from _judge_files(found, plan, limits, tally)
        finally:
            context.statistics.update(coverage.statistics())


def _every_match(selection: Selection) -> Selection:
    """Return a selection whose limit is ours to keep, and which takes every file where it has no check."""
    options = replace(selection.options, matchlimit=0)
    if not selection.has_check():
        options = replace(options, matchall=True)
    return replace(selection, options=options)


def _judge_files(found: Iterator[Match], plan: Plan, limits: MatchLimits, tally: Tally) -> Iterator[Finding]:
    last: Tuple[int, int, bytes] = (0, 0, b"")
    for match in found:
        label = plan.searches[match.search].label
        outcome = decode(match.examined) if match.examined else Outcome()
        this = (match.status.st_dev, match.status.st_ino, match.path.rpartition(b"/")[2])
        # The matches of one file come one after the other: it is counted once.
        is_counted, last = this == last, this
        if match.examined and outcome.hits and limits.admits(label):
            for hit in outcome.hits:
                yield Finding(label, hit, file=match)
        if not is_counted:
            if match.examined:
                tally.count("files", outcome, path_text(match.path))
            else:
                # Why it could not be opened is said by the coverage.
                tally.lose(UNREADABLE if stat.S_ISREG(match.status.st_mode) else _NO_FILE)
        if limits.is_over():
            return
