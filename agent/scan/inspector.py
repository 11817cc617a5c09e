"""Judges entries of one directory for all searches that are active there, the cheapest check first.

Rules:

* What is needed by nobody is not looked at, and what nobody needs to know is not read.
* A file is opened once and read once for all searches (`agent.scan.reading`). Had it been replaced since its
  name was listed, the checks on its status are judged anew on what is there.
* A file that cannot be read satisfies no check on what it holds, inverted or not, and that is said.
* An examination from outside, such as a rule engine, is asked of each file that some search selects, once.
* What is said stands by itself: no path, no descriptor and no order of processes is in it.
"""

import os
from typing import Callable, Iterable, Iterator, List, Optional, Sequence

from agent.scan.attributes import AttributeReader
from agent.scan.batch import FILE, LINK
from agent.scan.coverage import Recorder
from agent.scan.express import Express
from agent.scan.fence import Fence
from agent.scan.items import Found, Item, Part, keep_status
from agent.scan.judging import UNREAD, Candidate, Facts, by_attributes, by_name, by_status, decide
from agent.scan.limits import may_rank
from agent.scan.mounts import Mounts
from agent.scan.plan import Plan
from agent.scan.quick_reading import Survivor
from agent.scan.reading import Name, Opened, Reader, is_other
from agent.scan.recalling import QuickDigests, Recaller
from agent.scan.roots import join

# Examines an open file: its descriptor (at its beginning), status and path give a small reply, never empty.
# It may raise OSError where the file cannot be read. It runs in the process that judges the file.
Examine = Callable[[int, os.stat_result, bytes], bytes]


class Inspector:
    """Judges parts of batches; `recorder` keeps what is said in between."""

    def __init__(
        self,
        plan: Plan,
        *,
        recorder: Recorder,
        mounts: Mounts,
        fence: Fence,
        check: Callable[[], None],
        examine: Optional[Examine] = None,
        on_map: Optional[Callable[[bool], None]] = None,
        cache: Optional[QuickDigests] = None,
    ) -> None:
        self._plan = plan
        self._recorder = recorder
        self._check = check
        self._examine = examine
        self._attributes = AttributeReader(recorder, fence)
        self._reader = Reader(
            plan, coverage=recorder, mounts=mounts, fence=fence, check=check, on_map=on_map, cache=cache
        )
        # What says something of each file, or is told where it may look, must see each by itself.
        self._express: Optional[Express] = None
        self._recaller: Optional[Recaller] = None
        if examine is None and fence.is_open:
            self._express = Express(
                plan,
                recorder=recorder,
                mounts=mounts,
                check=check,
                demands=self._reader.demands,
                keeps_digests=cache is not None,
            )
            if cache is not None:
                self._recaller = Recaller(plan, recorder=recorder, mounts=mounts, check=check, cache=cache)

    def inspect(self, part: Part, directory: int) -> Iterator[Item]:
        """Yield what is to be said of the entries, in their order."""
        active = [Candidate(search, self._plan.searches[search], ()) for search in part.searches]
        recorder = self._recorder
        recorder.begin(part.names, part.first)
        for index, entry, status in self._entries(part, directory):
            self._check()
            if entry in part.passed_over:
                continue
            recorder.at(index)
            name = Name(directory, entry, part.kinds.get(entry, FILE), join(part.path, entry))
            self._inspect(name, status, active, part, may_map=entry not in part.unmapped)
            if recorder.has_items():
                yield from recorder.kept()
        yield from recorder.rest()

    def glance(self, part: Part, directory: int) -> Optional[List[Item]]:
        """Return what is to be said of all that is in a directory; None where it must be listed for that."""
        for judge in (self._recaller, self._express):
            if judge is not None and judge.glance(part, directory):
                return self._recorder.rest()
        return None

    def _entries(self, part: Part, directory: int) -> Iterable[Survivor]:
        """Return what is to be judged here; of the rest the recorder knows already."""
        for judge in (self._recaller, self._express):
            left = judge.survivors(part, directory) if judge is not None else None
            if left is not None:
                return left
        return ((index, name, None) for index, name in enumerate(part.names, part.first))

    def _inspect(
        self,
        name: Name,
        status: Optional[os.stat_result],
        active: Sequence[Candidate],
        part: Part,
        *,
        may_map: bool,
    ) -> None:
        if name.kind == LINK:
            # Also where no name fits: what lies behind a link to a directory was not seen; it counts.
            status = self._reader.status(name)
            if status is None:
                return
        named = [kept for kept in (by_name(one, name.name) for one in active) if kept is not None]
        if named and status is None:
            status = self._reader.status(name)
        if not named or status is None:
            self._recorder.files_seen += 1
            return
        candidates = self._by_metadata(name, status, named, part)
        needs_opening = self._needs_opening(candidates)
        if needs_opening and self._examine is None:
            recalled = self._reader.recall(status, candidates)
            if recalled is not None:
                self._recorder.files_seen += 1
                self._recorder.files_cached += 1
                self._tell(name, status, candidates, recalled)
                return
        if needs_opening and 0 < part.defer_bytes <= status.st_size:
            self._recorder.defer(name.kind)
            return
        self._recorder.files_seen += 1
        if needs_opening:
            self._open(name, status, named, candidates, part, may_map=may_map)
        else:
            self._conclude(name, status, candidates)

    def _open(
        self,
        name: Name,
        status: os.stat_result,
        named: Sequence[Candidate],
        candidates: List[Candidate],
        part: Part,
        *,
        may_map: bool,
    ) -> None:
        opened = self._reader.open(name, status)
        if opened is None:
            self._conclude(name, status, candidates)
            return
        try:
            if is_other(status, opened.status):
                candidates = self._by_metadata(name, opened.status, named, part)
            self._conclude(name, opened.status, candidates, opened, may_map=may_map)
        finally:
            os.close(opened.descriptor)

    def _conclude(
        self,
        name: Name,
        status: os.stat_result,
        candidates: List[Candidate],
        opened: Optional[Opened] = None,
        *,
        may_map: bool = False,
    ) -> None:
        """Say which searches the file satisfies, with all that can be known of it."""
        facts = UNREAD if opened is None else self._reader.read(opened, candidates, may_map=may_map)
        self._tell(name, status, candidates, facts, opened)

    def _tell(
        self,
        name: Name,
        status: os.stat_result,
        candidates: List[Candidate],
        facts: Facts,
        opened: Optional[Opened] = None,
    ) -> None:
        decided = decide(candidates, facts)
        examined = b"" if opened is None or not decided else self._examined(opened)
        for one, checks in decided:
            known = facts.of(one.search).digests
            digests = {kind: known[kind] for kind in one.search.report_kinds if kind in known}
            found = Found(
                one.number,
                name.kind,
                keep_status(status),
                digests,
                checks,
                examined,
                is_cached=facts.is_cached and bool(digests),
            )
            self._recorder.find(found)

    def _by_metadata(
        self, name: Name, status: os.stat_result, named: Sequence[Candidate], part: Part
    ) -> List[Candidate]:
        """Judge what is known without reading: the status and, where somebody asks, attributes."""
        candidates = by_status(named, status)
        if part.borders:
            borders = part.borders
            candidates = [one for one in candidates if may_rank(one.search, status, borders.get(one.number))]
        checks = [check for one in candidates for check in one.search.attributes]
        if not checks:
            return candidates
        attributes = self._attributes.read(
            name.name, name.directory, follow=name.is_link, status=status, path=name.path, checks=checks
        )
        return by_attributes(candidates, attributes)

    def _needs_opening(self, candidates: Sequence[Candidate]) -> bool:
        if any(one.needs_reading() for one in candidates):
            return True
        return self._examine is not None and any(one.may_match_unread() for one in candidates)

    def _examined(self, opened: Opened) -> bytes:
        if self._examine is None:
            return b""
        try:
            os.lseek(opened.descriptor, 0, os.SEEK_SET)
            return self._examine(opened.descriptor, opened.status, opened.path)
        except OSError as error:
            self._recorder.fail(opened.path, error)
            return b""
