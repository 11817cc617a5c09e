"""Searches in memory, asked of one process after the other: what they found, and what was not looked at.

Rules:

* Memory is read only where no path rule of the ACL could be got round by it (`agent.scan.memory_scan`).
* The agent's own processes are left out, and counted.
* What needs no memory is asked first; memory is read once for all searches that ask for the same span of it.
"""

import os
from collections import Counter
from contextlib import suppress
from typing import Dict, Iterator, Mapping, NamedTuple, Optional, Set, Tuple

from agent.module import Budget, Context
from agent.platform.process_memory import Process, ProcessGone, Region, list_pids
from agent.platform.processes import ProcessDirectory
from agent.scan.memory_checks import Judged, Prepared, Texts, judge_needles, judge_texts, prepare
from agent.scan.memory_find import DENIED, REMOTE, Found, MemoryFinder, Span
from agent.scan.memory_needles import Matches
from agent.scan.memory_scan import own_pids, require_memory_allowed
from agent.scan.memory_search import MemorySearch
from agent.scan.outcome import GONE, UNREADABLE
from agent.scan.rule_scan import MatchLimits
from agent.scan.texts import path_text
from agent.scan.throttle import Throttle

_OWN = "own-process"
_MOST_ADDRESSES = 10
_NAMED = 50
_DELETED = b" (deleted)"
_WORDS = {
    DENIED: "its memory may not be looked at",
    GONE: "ended, or started another program, while it was looked at",
    REMOTE: "{} bytes of files on network file systems were not read",
    UNREADABLE: "{} bytes of its memory could not be read",
}


class ProcessMatch(NamedTuple):
    """A process that a search found.

    `found` tells by check what was in its memory, `places` in which mappings the addresses of that are.
    """

    label: str
    search: MemorySearch
    pid: int
    name: bytes
    executable: Optional[bytes]
    is_deleted: bool
    checks: Tuple[str, ...]
    found: Tuple[Tuple[str, Matches], ...]
    places: Mapping[int, Region]
    regions: Tuple[Region, ...]


class _About(NamedTuple):
    """A process as it is named."""

    pid: int
    name: bytes
    executable: Optional[bytes]
    is_deleted: bool
    is_known: bool

    def names(self) -> Texts:
        """Return what names are matched on."""
        if not self.executable:
            return Texts((self.name,), self.is_known)
        return Texts((self.name, self.executable, self.executable.rpartition(b"/")[2]), self.is_known)


class MemoryRun:
    """One question.

    Raises:
        InvalidInput: `acl-refused`.

    """

    def __init__(self, searches: Mapping[str, MemorySearch], budget: Budget, context: Context) -> None:
        require_memory_allowed(context.paths)
        self._context = context
        self._prepared, needles = prepare(searches)
        self._counts: Counter[str] = Counter(
            processes_seen=0, processes_read=0, processes_matched=0, bytes_read=0, errors=0
        )
        self._throttle = Throttle(budget, 1, bytes_read=lambda: self._counts["bytes_read"])
        self._finder = MemoryFinder(
            needles, most_addresses=_MOST_ADDRESSES, work=self._work, check=context.check
        )
        self._limits = MatchLimits(
            {one.label: one.search.options.matchlimit for one in self._prepared}, context.truncate
        )
        self._skipped: Counter[str] = Counter()
        self._bytes_skipped: Counter[str] = Counter()
        self._named = 0

    def matches(self) -> Iterator[ProcessMatch]:
        """Yield what the searches find, by process."""
        own = own_pids()
        named = {pid for one in self._prepared for pid in one.search.pids}
        chosen = set(named) if all(one.search.pids for one in self._prepared) else named.union(list_pids())
        for pid in sorted(chosen):
            self._context.check()
            if self._limits.is_over():
                return
            self._counts["processes_seen"] += 1
            if pid in own:
                self._skipped[_OWN] += 1
                continue
            try:
                with Process(pid) as process:
                    yield from self._look(process)
            except ProcessGone:
                self._lose(GONE, f"process {pid}: there is none" if pid in named else "")
            except PermissionError:
                self._lose(DENIED, f"process {pid}: may not be looked at")
            self._tell()
            self._context.progress()

    def finish(self) -> None:
        """Tell the counts, and say in words what was only counted."""
        if self._skipped[_OWN]:
            self._context.note(f"{self._skipped[_OWN]} processes of the agent itself were left out")
        if self._named > _NAMED:
            self._context.note(f"further processes not read, or in part only: {self._named - _NAMED}")
        self._tell()

    def _look(self, process: Process) -> Iterator[ProcessMatch]:
        about = _about(process)
        judged: Dict[str, Judged] = {}
        libraries: Optional[Texts] = None
        for one in self._prepared:
            if not one.concerns(about.pid):
                continue
            if one.libraries and libraries is None:
                libraries = _libraries(process, about)
            first = judge_texts(one, about.names(), libraries or Texts((), are_all=True))
            if first.do_all or not one.search.options.matchall:
                judged[one.label] = first
        found = self._read(process, about, judged)
        for one in self._prepared:
            if one.label not in judged:
                continue
            result = found.get(one.span)
            verdict = judged[one.label]
            if one.needles:
                matches = result.matches if result is not None else {}
                verdict = judge_needles(
                    verdict, one, matches, is_whole=result is not None and not result.holes
                )
            if verdict.is_match(one.search) and self._limits.admits(one.label):
                self._counts["processes_matched"] += 1
                yield self._match(one, about, verdict, result, process)

    def _read(self, process: Process, about: _About, judged: Mapping[str, Judged]) -> Dict[Span, Found]:
        """Read memory for all searches that are still to be judged, once for each span."""
        spans: Dict[Span, Set[int]] = {}
        for one in self._prepared:
            if one.needles and one.label in judged:
                spans.setdefault(one.span, set()).update(one.wanted())
        found: Dict[Span, Found] = {}
        for span, wanted in spans.items():
            found[span] = self._finder.look(process, frozenset(wanted), span)
        if found:
            self._count(about, found)
        return found

    def _count(self, about: _About, found: Mapping[Span, Found]) -> None:
        holes: Counter[str] = Counter()
        for one in found.values():
            for reason, size in one.holes.items():
                holes[reason] = max(holes[reason], size)
        self._counts["processes_read"] += any(one.bytes_read for one in found.values())
        for reason, size in sorted(holes.items()):
            self._bytes_skipped[reason] += size
            words = _WORDS[reason].format(size)
            self._lose(reason, f"process {about.pid} ({path_text(about.name)}): {words}")

    def _match(
        self, one: Prepared, about: _About, verdict: Judged, result: Optional[Found], process: Process
    ) -> ProcessMatch:
        told = []
        if result is not None:
            told = [
                (check.said, result.matches[check.needle])
                for check in one.needles
                if check.wanted and result.matches[check.needle].number
            ]
        regions: Tuple[Region, ...] = ()
        if one.search.options.returnregions:
            # What was found stands also where it has ended meanwhile.
            with suppress(ProcessGone):
                regions = tuple(process.regions())
        return ProcessMatch(
            label=one.label,
            search=one.search,
            pid=about.pid,
            name=about.name,
            executable=about.executable,
            is_deleted=about.is_deleted,
            checks=verdict.held,
            found=tuple(told),
            places=result.regions if result is not None else {},
            regions=regions,
        )

    def _work(self, size: int) -> None:
        self._counts["bytes_read"] += size
        self._throttle.keep(self._context.check)

    def _lose(self, reason: str, text: str) -> None:
        self._skipped[reason] += 1
        self._counts["errors"] += reason != GONE
        self._named += bool(text)
        if text and self._named <= _NAMED:
            self._context.note(text)

    def _tell(self) -> None:
        self._context.statistics.update(self._counts)
        self._context.statistics["skipped"] = dict(sorted(self._skipped.items()))
        self._context.statistics["bytes_skipped"] = {
            reason: size for reason, size in sorted(self._bytes_skipped.items()) if size
        }


def _about(process: Process) -> _About:
    name = process.name()
    with ProcessDirectory(process.pid, descriptor=os.dup(process.descriptor)) as directory:
        try:
            executable, is_deleted = directory.executable()
        except PermissionError:
            return _About(process.pid, name, None, is_deleted=False, is_known=False)
    return _About(process.pid, name, executable, is_deleted, is_known=True)


def _libraries(process: Process, about: _About) -> Texts:
    try:
        regions = process.regions()
    except PermissionError:
        return Texts((), are_all=False)
    own = about.executable
    if own is not None and about.is_deleted:
        own += _DELETED
    paths = dict.fromkeys(one.path for one in regions if one.inode and one.path != own)
    return Texts(tuple(paths), are_all=True)
