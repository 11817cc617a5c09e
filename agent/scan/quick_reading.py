"""Reads every small file of a directory with one call, and judges it by all that its searches ask.

A small file is read with one call and looked at once, afterwards. It has not changed meanwhile if its status
has not changed (ctime, which nobody can set) since before the part was begun; one that has is left to the
general judge (`agent.scan.inspector`), which looks before and after. So is one that is larger, of another
size than was read, or no file.

Most files are dull: nobody wants them, and that can be told without asking each search by itself.
"""

import os
import time
from typing import AbstractSet, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from agent.scan.asking import Maker, status_test, wanted_digests
from agent.scan.batch import FILE
from agent.scan.coverage import Recorder
from agent.scan.digests import digest_maker
from agent.scan.intake import Demands, Intake
from agent.scan.items import Found, Part, keep_status
from agent.scan.judging import Candidate, Facts, by_status, decide, is_undecided
from agent.scan.lines import LineAnswers
from agent.scan.opening import QUICK_FLAGS
from agent.scan.plan import Plan

# What is read at first; and up to where the rest is read with a second call.
_FIRST_BYTES = 32 << 10
MAX_BYTES = 1 << 20
# The times of files are as coarse as the kernel's clock (4 ms and more), and clocks of disks may be behind.
SETTLED_NS = 2_000_000_000
CHECK_EVERY = 32
FORMAT, REGULAR = 0o170000, 0o100000

NO_LINES = LineAnswers({}, {})
# What a search may ask of a file where nothing that it looks for is in it.
_FOUND = ("contents", "reads", "byte_strings", "report_kinds")
# Index in the batch, name, and status where that is known.
Survivor = Tuple[int, bytes, Optional[os.stat_result]]
# Tells of a status and of what was read, in one piece or two, whether no search can want such a file.
IsDull = Callable[[os.stat_result, bytes, bytes], bool]


class Reading(NamedTuple):
    """What is asked of every file for one choice of searches; `is_dull` is None where nothing tells."""

    base: Tuple[Candidate, ...]
    is_dull: Optional[IsDull]
    has_stats: bool
    has_contents: bool
    has_reads: bool


class QuickReader:
    """Reads and judges small files; `recorder` keeps what is said of them."""

    def __init__(
        self, plan: Plan, *, recorder: Recorder, check: Callable[[], None], demands: Demands
    ) -> None:
        self._plan = plan
        self._recorder = recorder
        self._check = check
        self._demands = demands
        self._makers: Dict[str, Maker] = {}

    def prepare(self, base: Tuple[Candidate, ...]) -> Reading:
        """Work out what these searches ask of every file."""
        for one in base:
            for kind in one.search.report_kinds:
                self._makers.setdefault(kind, digest_maker(kind))
        return Reading(
            base,
            self._dull_test(base),
            has_stats=any(one.search.stats for one in base),
            has_contents=any(one.search.contents for one in base),
            has_reads=any(one.search.reads for one in base),
        )

    def _dull_test(self, base: Sequence[Candidate]) -> Optional[IsDull]:
        """Return what tells of a file that nobody wants it; None where it takes each search's own judgement.

        Searches are told apart by what they go by: the status, digests, or what is found in the content. One
        test for each sort will do, the cheapest first.
        """
        by_state = [one for one in base if one.search.matchall and one.search.asks_only("stats")]
        by_digest = [
            one for one in base if one.search.hashes and one.search.asks_only("hashes", "report_kinds")
        ]
        others = [one for one in base if one not in by_state and one not in by_digest]
        tests: List[IsDull] = []
        if by_state:
            is_wanted, wanted = status_test(by_state)
            tests.append(lambda status, _data, _more: is_wanted(status) is not wanted)
        if others:
            is_nowhere = self._nowhere_test(others)
            if is_nowhere is None:
                return None
            tests.append(is_nowhere)
        if by_digest:
            has_none = _digest_test(by_digest)
            if has_none is None:
                return None
            tests.append(has_none)
        if len(tests) == 1:
            return tests[0]

        def is_dull(status: os.stat_result, data: bytes, more: bytes) -> bool:
            return all(test(status, data, more) for test in tests)

        return is_dull

    def _nowhere_test(self, base: Sequence[Candidate]) -> Optional[IsDull]:
        """Return what tells that nothing of what is looked for is there, where nobody wants such a file."""
        demand = self._demands.of(base)
        nothing = Facts(demand.question.nothing, {}, strings=dict.fromkeys(demand.strings, False))
        if not all(one.search.asks_only(*_FOUND) for one in base) or decide(base, nothing):
            return None
        is_nowhere = demand.question.is_nowhere
        strings = [self._plan.byte_strings.strings[index] for index in sorted(demand.strings)]

        def is_dull(_status: os.stat_result, data: bytes, more: bytes) -> bool:
            whole = data + more if more else data
            return not any(string in whole for string in strings) and is_nowhere(whole)

        return is_dull if strings else lambda _, data, more: is_nowhere(data + more if more else data)

    def read_all(
        self, part: Part, directory: int, device: int, passed: AbstractSet[bytes], reading: Reading
    ) -> Iterator[Survivor]:
        """Read and judge all small files but those passed; yield what is left to be judged."""
        recorder, is_dull = self._recorder, reading.is_dull
        special = passed | part.kinds.keys()
        open_file, read, fstat, close = os.open, os.read, os.fstat, os.close
        border_ns = time.time_ns() - SETTLED_NS
        for at in range(0, len(part.names), CHECK_EVERY):
            self._check()
            files = total = 0  # not told to the recorder yet
            for index, name in enumerate(part.names[at : at + CHECK_EVERY], part.first + at):
                if special and name in special:
                    recorder.count_read(files, total)
                    files = total = 0
                    yield index, name, None
                    continue
                recorder.at(index)
                status: Optional[os.stat_result] = None
                try:
                    descriptor = open_file(name, QUICK_FLAGS, dir_fd=directory)
                    try:
                        data, more = read(descriptor, _FIRST_BYTES), b""
                        status = fstat(descriptor)
                        if _FIRST_BYTES < status.st_size <= MAX_BYTES and len(data) == _FIRST_BYTES:
                            more = read(descriptor, status.st_size - _FIRST_BYTES)
                            status = fstat(descriptor)
                    finally:
                        close(descriptor)
                except OSError:
                    status = None
                if (
                    status is None
                    or status.st_size != len(data) + len(more)
                    or status.st_mode & FORMAT != REGULAR
                    or status.st_dev != device
                    or status.st_ctime_ns > border_ns
                ):
                    recorder.count_read(files, total)
                    files = total = 0
                    yield index, name, None
                    continue
                files += 1
                total += status.st_size
                if is_dull is None or not is_dull(status, data, more):
                    recorder.count_read(files, total)
                    files = total = 0
                    self._conclude(status, data + more if more else data, reading)
            recorder.count_read(files, total)

    def _conclude(self, status: os.stat_result, data: bytes, reading: Reading) -> None:
        """Judge a file of which all is at hand, as `Inspector` and `Reader` do."""
        base = reading.base
        candidates: Sequence[Candidate] = by_status(base, status) if reading.has_stats else base
        readers = [one for one in candidates if one.needs_reading()]
        facts = self._read_facts(readers, data) if reading.has_reads else self._facts(readers, data, reading)
        for one, checks in decide(candidates, facts):
            known = {kind: facts.digests[kind] for kind in one.search.report_kinds if kind in facts.digests}
            self._recorder.find(Found(one.number, FILE, keep_status(status), known, checks))

    def _read_facts(self, readers: Sequence[Candidate], data: bytes) -> Facts:
        intake = Intake(self._demands, readers)
        if readers:
            intake.take(data, is_last=True)
        return intake.facts()

    def _facts(self, readers: Sequence[Candidate], data: bytes, reading: Reading) -> Facts:
        """Return the same as an intake would, where it is of lines and digests only."""
        answers = NO_LINES
        if reading.has_contents:
            answers = self._demands.of(readers).question.answer(data)
            facts = Facts(answers, {})
            readers = [one for one in readers if is_undecided(one, facts)]
        digests: Dict[str, str] = {}
        for one in readers:
            for kind in one.search.report_kinds:
                if kind not in digests:
                    digests[kind] = self._makers[kind](data).hexdigest()
        return Facts(answers, digests)


def _digest_test(base: Sequence[Candidate]) -> Optional[IsDull]:
    """Return what tells that a file has none of the digests for which alone it is wanted."""
    wanted = wanted_digests(base)
    if wanted is None:
        return None
    if len(wanted) == 1:
        only_make, only_digests = wanted[0]

        def has_not(_status: os.stat_result, data: bytes, more: bytes) -> bool:
            digest = only_make(data)
            if more:
                digest.update(more)
            return digest.digest() not in only_digests

        return has_not

    def has_none(_status: os.stat_result, data: bytes, more: bytes) -> bool:
        for make, digests in wanted:
            digest = make(data)
            if more:
                digest.update(more)
            if digest.digest() in digests:
                return False
        return True

    return has_none
