"""Judges files by digests that were kept, where nothing else is asked: what is known is not even opened.

A general judge (`agent.scan.inspector`) takes longer for a file than reading a small one does, so that what
was kept would save nothing. Here a file that is known costs its status and one look into the table. A small
file that is not known is read with one call and kept; the rest is left to the general judge, which keeps it
too.

The rules are those of `agent.scan.express`, for the parts of which this takes care instead.
"""

import os
import time
from typing import Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Protocol, Tuple

from agent.scan.batch import FILE
from agent.scan.coverage import Recorder
from agent.scan.digests import Digest, digest_maker
from agent.scan.items import Found, Part, keep_status
from agent.scan.judging import Candidate, Facts, decide
from agent.scan.mounts import Mounts
from agent.scan.opening import QUICK_FLAGS
from agent.scan.plan import Plan
from agent.scan.quick_reading import CHECK_EVERY, FORMAT, MAX_BYTES, NO_LINES, REGULAR, SETTLED_NS, Survivor
from agent.scan.reading import KeptDigests

Find = Callable[[os.stat_result], Optional[bytes]]


class QuickDigests(KeptDigests, Protocol):
    """Kept digests that can be asked for one kind, of one device, quickly."""

    def finder(self, device: int, kind: str) -> Optional[Find]:
        """Return what finds digests of a kind; None where none are kept."""


class _Asked(NamedTuple):
    """What is asked of every file for one choice of searches: digests by kind, which may be none."""

    candidates: Tuple[Candidate, ...]
    digests: Dict[str, FrozenSet[bytes]]
    makers: Dict[str, Callable[[bytes], Digest]]


class _Ready(NamedTuple):
    """What is asked of a part's entries, their device, and for each kind what finds kept digests there."""

    asked: _Asked
    device: int
    finders: List[Tuple[Find, FrozenSet[bytes]]]


class Recaller:
    """Goes over the entries of a part before any other judge does."""

    def __init__(
        self,
        plan: Plan,
        *,
        recorder: Recorder,
        mounts: Mounts,
        check: Callable[[], None],
        cache: QuickDigests,
    ) -> None:
        self._plan = plan
        self._recorder = recorder
        self._mounts = mounts
        self._check = check
        self._cache = cache
        self._asked: Dict[Tuple[int, ...], Optional[_Asked]] = {}

    def survivors(self, part: Part, directory: int) -> Optional[Iterator[Survivor]]:
        """Yield what is left to be judged, with its status where that is known; None for all of it."""
        ready = self._ready_for(part, directory)
        return None if ready is None else self._go(part, directory, ready)

    def glance(self, part: Part, directory: int) -> bool:
        """Judge all that is in a directory by what is kept; False where some is not known, or is wanted."""
        ready = self._ready_for(part, directory)
        if ready is None:
            return False
        self._check()
        files = 0
        try:
            with os.scandir(directory) as listing:
                for entry in listing:
                    status = entry.stat(follow_symlinks=False)
                    if status.st_mode & FORMAT != REGULAR or status.st_dev != ready.device:
                        return False
                    for find, looked_for in ready.finders:
                        digest = find(status)
                        if digest is None or digest in looked_for:
                            return False
                    files += 1
        except OSError:
            return False
        self._check()
        self._recorder.files_seen += files
        self._recorder.files_cached += files
        return True

    def _ready_for(self, part: Part, directory: int) -> Optional[_Ready]:
        """Return with what a part can be judged; None where each of its entries must be judged alone."""
        if part.searches not in self._asked:
            self._asked[part.searches] = self._ask(part.searches)
        asked = self._asked[part.searches]
        if asked is None or part.passed_over or part.unmapped or part.borders or self._mounts.hold(part.path):
            return None
        device = os.fstat(directory).st_dev
        finders = []
        for kind, looked_for in asked.digests.items():
            find = self._cache.finder(device, kind)
            if find is None:
                return None
            finders.append((find, looked_for))
        return _Ready(asked, device, finders)

    def _ask(self, searches: Tuple[int, ...]) -> Optional[_Asked]:
        chosen = tuple(Candidate(number, self._plan.searches[number], ()) for number in searches)
        digests: Dict[str, FrozenSet[bytes]] = {}
        for one in chosen:
            search = one.search
            if not search.hashes or not search.asks_only("hashes", "report_kinds"):
                return None
            for kind in search.report_kinds:
                digests.setdefault(kind, frozenset())
            for check in search.hashes:
                if not check.wanted:
                    return None
                digests[check.kind] |= frozenset(map(bytes.fromhex, check.digests))
        return _Asked(chosen, digests, {kind: digest_maker(kind) for kind in digests})

    def _go(self, part: Part, directory: int, ready: _Ready) -> Iterator[Survivor]:
        recorder, kinds, stat = self._recorder, part.kinds, os.stat
        asked, device, finders = ready
        border_ns = time.time_ns() - SETTLED_NS
        for index, name in enumerate(part.names, part.first):
            if not index % CHECK_EVERY:
                self._check()
            if name in kinds:
                yield index, name, None
                continue
            try:
                status = stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError:
                yield index, name, None
                continue
            if status.st_mode & FORMAT != REGULAR or status.st_dev != device:
                yield index, name, None
                continue
            is_wanted = False
            for find, looked_for in finders:
                digest = find(status)
                if digest is None:
                    break
                is_wanted = is_wanted or digest in looked_for
            else:
                recorder.files_seen += 1
                recorder.files_cached += 1
                if is_wanted:
                    recorder.at(index)
                    self._tell(status, asked, self._cache.recall(status, asked.digests), is_cached=True)
                continue
            recorder.at(index)
            if status.st_ctime_ns > border_ns or not self._read(name, directory, status, asked, border_ns):
                yield index, name, status

    def _read(
        self, name: bytes, directory: int, status: os.stat_result, asked: _Asked, border_ns: int
    ) -> bool:
        """Read, keep and judge a small file; tell whether that could be done."""
        if status.st_size > MAX_BYTES:
            return False
        try:
            descriptor = os.open(name, QUICK_FLAGS, dir_fd=directory)
            try:
                data = os.read(descriptor, status.st_size + 1)
                now = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            return False
        # The same file, of a ctime that lies before all this: it has not changed meanwhile.
        is_same = now.st_ino == status.st_ino and now.st_dev == status.st_dev
        if not is_same or len(data) != now.st_size or now.st_ctime_ns > border_ns:
            return False
        self._recorder.files_seen += 1
        self._recorder.files_read += 1
        self._recorder.bytes_read += len(data)
        digests = {kind: make(data).hexdigest() for kind, make in asked.makers.items()}
        self._cache.keep(status, now, digests)
        if any(bytes.fromhex(digests[kind]) in looked_for for kind, looked_for in asked.digests.items()):
            self._tell(now, asked, digests, is_cached=False)
        return True

    def _tell(
        self, status: os.stat_result, asked: _Asked, digests: Optional[Dict[str, str]], *, is_cached: bool
    ) -> None:
        facts = Facts(NO_LINES, digests or {}, is_cached=is_cached)
        for one, checks in decide(asked.candidates, facts):
            known = {kind: facts.digests[kind] for kind in one.search.report_kinds}
            found = Found(one.number, FILE, keep_status(status), known, checks, is_cached=is_cached)
            self._recorder.find(found)
