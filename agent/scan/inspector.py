"""Judges the files of a batch for all searches that are active there, the cheapest check first.

Rules:

* What is needed by nobody is not looked at, and what nobody needs to know is not read.
* A file is opened once and read once for all searches (`agent.scan.reading`). Had it been replaced since its
  name was listed, the checks on its status are judged anew on what is there.
* A file that cannot be read satisfies no check on what it holds, inverted or not, and that is said.
* An examination from outside, such as a rule engine, is asked of each file that some search selects, once.
"""

import os
from typing import AbstractSet, Callable, Iterator, List, Optional, Sequence

from agent.scan.attributes import AttributeReader
from agent.scan.batch import FILE, LINK, Batch
from agent.scan.coverage import Coverage
from agent.scan.fence import Fence
from agent.scan.judging import UNREAD, Candidate, Match, by_attributes, by_name, by_status, decide
from agent.scan.limits import Ranks
from agent.scan.mounts import Mounts
from agent.scan.plan import Plan
from agent.scan.reading import Name, Opened, Reader, is_other
from agent.scan.roots import join

# Examines an open file: its descriptor (at its beginning), status and path give a small reply, never empty.
# It may raise OSError where the file cannot be read.
Examine = Callable[[int, os.stat_result, bytes], bytes]


class Inspector:
    """Judges batches; `closed` holds searches that want no more."""

    def __init__(
        self,
        plan: Plan,
        *,
        coverage: Coverage,
        mounts: Mounts,
        fence: Fence,
        closed: AbstractSet[int],
        check: Callable[[], None],
        examine: Optional[Examine] = None,
    ) -> None:
        self._plan = plan
        self._coverage = coverage
        self._closed = closed
        self._check = check
        self._examine = examine
        self._ranks = Ranks(plan)
        self._attributes = AttributeReader(coverage, fence)
        self._reader = Reader(plan, coverage=coverage, mounts=mounts, fence=fence, check=check)

    def inspect(self, batch: Batch) -> Iterator[Match]:
        """Yield the matches among a batch's entries, in their order."""
        active = self._active(batch)
        for entry in batch.names:
            self._check()
            if any(one.root.search in self._closed for one in active):
                active = self._active(batch)
            if not active:
                return
            name = Name(batch.directory, entry, batch.kinds.get(entry, FILE), join(batch.path, entry))
            status: Optional[os.stat_result] = None
            if name.kind == LINK:
                # Also where no name fits: what lies behind a link to a directory was not seen; it counts.
                status = self._reader.status(name)
                if status is None:
                    continue
            self._coverage.files_seen += 1
            named = [kept for kept in (by_name(one, entry) for one in active) if kept is not None]
            if not named:
                continue
            status = status or self._reader.status(name)
            if status is not None:
                yield from self._judge(name, status, named)

    def _active(self, batch: Batch) -> List[Candidate]:
        return [
            Candidate(root, self._plan.searches[root.search], ())
            for root in batch.active
            if root.search not in self._closed
        ]

    def _judge(self, name: Name, status: os.stat_result, named: Sequence[Candidate]) -> Iterator[Match]:
        candidates = self._by_metadata(name, status, named)
        facts, examined = UNREAD, b""
        opened = self._reader.open(name, status) if self._needs_opening(candidates) else None
        if opened is None:
            decided = decide(candidates, facts)
        else:
            try:
                if is_other(status, opened.status):
                    candidates = self._by_metadata(name, opened.status, named)
                status = opened.status
                facts = self._reader.read(opened, candidates)
                decided = decide(candidates, facts)
                if decided:
                    examined = self._examined(opened)
            finally:
                os.close(opened.descriptor)
        for one, checks in decided:
            kinds = one.search.report_kinds
            self._ranks.add(one.root.search, status)
            yield Match(
                search=one.root.search,
                path=one.root.show(name.path),
                kind=name.kind,
                status=status,
                digests={kind: facts.digests[kind] for kind in kinds if kind in facts.digests},
                checks=checks,
                examined=examined,
            )

    def _by_metadata(self, name: Name, status: os.stat_result, named: Sequence[Candidate]) -> List[Candidate]:
        """Judge what is known without reading: the status and, where somebody asks, attributes."""
        candidates = by_status(named, status)
        if self._ranks.has_any():
            candidates = [one for one in candidates if self._ranks.may_want(one.root.search, status)]
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
            self._coverage.fail(opened.path, error)
            return b""
