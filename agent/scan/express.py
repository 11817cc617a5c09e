"""Judges at once what most files have in common: that nobody wants them, or that all ask the same of them.

A general judge (`agent.scan.inspector`) takes tens of microseconds for a file, and the system's calls for a
small one take eight. So for each choice of searches that are active together it is worked out once what every
file must be asked; what a loop here cannot tell for sure is left to the general judge, and both give the same
answer.

Rules:

* Names first, all at once. Of the rest, files are looked up where every search asks for a status, and are
  read where some search must read every file; nothing else is done here.
* Only names of regular files in plain directories: no access rules, no made-up file system, nothing mounted
  in the directory itself, where a name can lead to what must not be read.
* A small file is read with one call and looked at once, afterwards. It has not changed meanwhile if its
  status has not changed (ctime, which nobody can set) since before the part was begun; one that has is judged
  anew, with a look before and one after. So is one that is larger, of another size than was read, or no file.
"""

import os
import time
from typing import (
    AbstractSet,
    Callable,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from agent.scan.asking import Digests, Maker, reads_every_file, status_test, told_at_once, wanted_digests
from agent.scan.batch import FILE, LINK
from agent.scan.coverage import Recorder
from agent.scan.digests import digest_maker
from agent.scan.intake import Demands, Intake
from agent.scan.items import Found, Part, keep_status
from agent.scan.judging import Candidate, Facts, by_status, decide, is_undecided
from agent.scan.lines import LineAnswers
from agent.scan.mounts import Mounts
from agent.scan.opening import QUICK_FLAGS
from agent.scan.plan import Plan
from agent.scan.sieve import NameSieve, can_sift

# What is read at first; and up to where the rest is read with a second call.
_FIRST_BYTES = 32 << 10
MAX_BYTES = 1 << 20
# The times of files are as coarse as the kernel's clock (4 ms and more), and clocks of disks may be behind.
SETTLED_NS = 2_000_000_000
CHECK_EVERY = 32
FORMAT, REGULAR = 0o170000, 0o100000

NO_LINES = LineAnswers({}, {})
# What a search may ask of a file that is read here, and what it may ask where nothing is found.
_KNOWN = (
    "stats", "contents", "reads", "byte_strings", "wants_magic", "wants_entropy", "hashes", "report_kinds",
)  # fmt: skip
_FOUND = ("contents", "reads", "byte_strings", "report_kinds")
_NONE: FrozenSet[bytes] = frozenset()
_NO_DIGESTS: Dict[str, str] = {}
# Index in the batch, name, and status where that is known.
Survivor = Tuple[int, bytes, Optional[os.stat_result]]


class _Shape(NamedTuple):
    """What is asked of every file for one choice of searches.

    `base` are the searches that the sieve does not decide. With `looks` every one of them asks for a status
    first; with `reads` some of them must read every file. `wanted` are the digests where a file is wanted for
    its digest or not at all; None where it takes more to tell. `is_idle` tells of a content, if it can, that
    nobody wants a file with it. `told` is the one search there is, with what it says, where names
    or the status tell it all.
    """

    sieve: Optional[NameSieve]
    base: Tuple[Candidate, ...]
    looks: bool
    reads: bool
    wanted: Optional[Digests]
    is_idle: Optional[Callable[[bytes], bool]]
    has_stats: bool
    has_contents: bool
    has_reads: bool
    told: Optional[Candidate]


class Express:
    """Goes over the entries of a part before the general judge does."""

    def __init__(
        self,
        plan: Plan,
        *,
        recorder: Recorder,
        mounts: Mounts,
        check: Callable[[], None],
        demands: Demands,
        keeps_digests: bool = False,
    ) -> None:
        self._plan = plan
        # Then what only digests are asked of need not be read, and others see to it.
        self._keeps_digests = keeps_digests
        self._recorder = recorder
        self._mounts = mounts
        self._check = check
        self._demands = demands
        self._shapes: Dict[Tuple[int, ...], Optional[_Shape]] = {}
        self._makers: Dict[str, Maker] = {}

    def survivors(self, part: Part, directory: int) -> Optional[Iterator[Survivor]]:
        """Yield what is left to be judged, with its status where that is known; None for all of it.

        What is not left is judged: it is counted, and the recorder knows its matches.
        """
        if part.searches not in self._shapes:
            self._shapes[part.searches] = self._make_shape(part.searches)
        shape = self._shapes[part.searches]
        if shape is None or part.passed_over or part.unmapped or part.borders or self._mounts.hold(part.path):
            return None
        device = os.fstat(directory).st_dev
        if self._mounts.pseudo_type(device) is not None:
            return None
        return self._go(part, directory, shape, device)

    def _make_shape(self, searches: Tuple[int, ...]) -> Optional[_Shape]:
        chosen = [Candidate(number, self._plan.searches[number], ()) for number in searches]
        named = [one for one in chosen if can_sift(one.search)]
        base = tuple(one for one in chosen if not can_sift(one.search))
        if any(one.search.names for one in base):
            return None
        looks = reads = False
        if base:
            looks = all(one.search.matchall and one.search.stats for one in base)
            reads = (
                not looks
                and not (self._keeps_digests and all(one.search.is_by_digest() for one in base))
                and all(one.search.asks_only(*_KNOWN) for one in base)
                and any(reads_every_file(one) for one in base)
            )
            if not looks and not reads:
                return None
        sieve = NameSieve([one.search for one in named]) if named else None
        for one in base:
            for kind in one.search.report_kinds:
                self._makers.setdefault(kind, digest_maker(kind))
        return _Shape(
            sieve,
            base,
            looks,
            reads,
            wanted_digests(base) if reads else None,
            self._idle_test(base) if reads else None,
            has_stats=any(one.search.stats for one in base),
            has_contents=any(one.search.contents for one in base),
            has_reads=any(one.search.reads for one in base),
            told=told_at_once(chosen),
        )

    def _idle_test(self, base: Sequence[Candidate]) -> Optional[Callable[[bytes], bool]]:
        """Return what tells that nothing of what is looked for is there, where nobody wants such a file."""
        demand = self._demands.of(base)
        nothing = Facts(demand.question.nothing, {}, strings=dict.fromkeys(demand.strings, False))
        if not all(one.search.asks_only(*_FOUND) for one in base) or decide(base, nothing):
            return None
        is_nowhere = demand.question.is_nowhere
        strings = [self._plan.byte_strings.strings[index] for index in sorted(demand.strings)]
        if not strings:
            return is_nowhere
        return lambda data: not any(string in data for string in strings) and is_nowhere(data)

    def _go(self, part: Part, directory: int, shape: _Shape, device: int) -> Iterator[Survivor]:
        if shape.reads:
            yield from self._read_all(part, directory, shape, device, _sift(part.names, shape))
        elif shape.looks:
            yield from self._look_at_all(part, directory, shape, _sift(part.names, shape))
        else:
            yield from self._pass_by(part, directory, shape)

    def _pass_by(self, part: Part, directory: int, shape: _Shape) -> Iterator[Survivor]:
        """Tell, or leave, what is wanted for its name; count the others."""
        recorder, kinds = self._recorder, part.kinds
        if part.is_sifted and not kinds and shape.told is not None:
            yield from self._tell_all(part, directory, shape.told)
            return
        # Of a part that was sifted all files are wanted; of its links nothing is known.
        kept = _sift(kinds if part.is_sifted else part.names, shape)
        if not kept and not kinds and not part.is_sifted:
            recorder.files_seen += len(part.names)
            return
        for index, name in enumerate(part.names, part.first):
            if not index % CHECK_EVERY:
                self._check()
            if name in kinds:
                if name in kept or not _is_file_link(name, part, directory):
                    yield index, name, None
                else:
                    recorder.files_seen += 1
            elif not part.is_sifted and name not in kept:
                recorder.files_seen += 1
            elif shape.told is None or not self._tell(index, name, directory, shape.told):
                yield index, name, None

    def _tell_all(self, part: Part, directory: int, told: Candidate) -> Iterator[Survivor]:
        """Tell of the files of a part, all of which one search wants for their names; leave what is none."""
        for at in range(0, len(part.names), CHECK_EVERY):
            self._check()
            names, first = part.names[at : at + CHECK_EVERY], part.first + at
            statuses = _statuses_of_files(names, directory)
            if statuses is None:
                for index, name in enumerate(names, first):
                    if not self._tell(index, name, directory, told):
                        yield index, name, None
                continue
            self._recorder.tell_all(
                first,
                [
                    Found(told.number, FILE, keep_status(status), _NO_DIGESTS, told.said)
                    for status in statuses
                ],
            )

    def _tell(self, index: int, name: bytes, directory: int, told: Candidate) -> bool:
        """Tell of a regular file; False for whatever somebody else must look into."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return False
        if status.st_mode & FORMAT != REGULAR:
            return False
        self._recorder.tell(index, Found(told.number, FILE, keep_status(status), _NO_DIGESTS, told.said))
        return True

    def _look_at_all(
        self, part: Part, directory: int, shape: _Shape, kept: AbstractSet[bytes]
    ) -> Iterator[Survivor]:
        """Leave what has a status that some search may want."""
        recorder, stat, told = self._recorder, os.stat, shape.told
        is_wanted, wanted = status_test(shape.base)
        special = kept | part.kinds.keys()
        for at in range(0, len(part.names), CHECK_EVERY):
            self._check()
            seen = 0  # not told to the recorder yet
            for index, name in enumerate(part.names[at : at + CHECK_EVERY], part.first + at):
                status: Optional[os.stat_result] = None
                if name not in special:
                    try:
                        status = stat(name, dir_fd=directory, follow_symlinks=False)
                    except OSError:
                        status = None
                if status is not None and status.st_mode & FORMAT == REGULAR:
                    if is_wanted(status) is not wanted:
                        seen += 1
                        continue
                    if told is not None:
                        recorder.files_seen += seen
                        seen = 0
                        recorder.tell(
                            index, Found(told.number, FILE, keep_status(status), _NO_DIGESTS, told.said)
                        )
                        continue
                recorder.files_seen += seen
                seen = 0
                yield index, name, status
            recorder.files_seen += seen

    def _read_all(
        self, part: Part, directory: int, shape: _Shape, device: int, kept: AbstractSet[bytes]
    ) -> Iterator[Survivor]:
        """Read and judge all small files; leave the others."""
        recorder, kinds, wanted, is_idle = self._recorder, part.kinds, shape.wanted, shape.is_idle
        open_file, read, fstat, close = os.open, os.read, os.fstat, os.close
        border_ns = time.time_ns() - SETTLED_NS
        for index, name in enumerate(part.names, part.first):
            if not index % CHECK_EVERY:
                self._check()
            if name in kept or name in kinds:
                yield index, name, None
                continue
            recorder.at(index)
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
                yield index, name, None
                continue
            if (
                status.st_mode & FORMAT != REGULAR
                or status.st_dev != device
                or status.st_size != len(data) + len(more)
                or status.st_ctime_ns > border_ns
            ):
                yield index, name, None
                continue
            recorder.files_seen += 1
            recorder.files_read += 1
            recorder.bytes_read += status.st_size
            if wanted is not None:
                if not _has_one(wanted, data, more):
                    continue
            elif is_idle is not None and is_idle(data + more if more else data):
                continue
            self._conclude(status, data + more if more else data, shape)

    def _conclude(self, status: os.stat_result, data: bytes, shape: _Shape) -> None:
        """Judge a file of which all is at hand, as `Inspector` and `Reader` do."""
        candidates: Sequence[Candidate] = by_status(shape.base, status) if shape.has_stats else shape.base
        readers = [one for one in candidates if one.needs_reading()]
        facts = self._read_facts(readers, data) if shape.has_reads else self._facts(readers, data, shape)
        for one, checks in decide(candidates, facts):
            known = {kind: facts.digests[kind] for kind in one.search.report_kinds if kind in facts.digests}
            self._recorder.find(Found(one.number, FILE, keep_status(status), known, checks))

    def _read_facts(self, readers: Sequence[Candidate], data: bytes) -> Facts:
        intake = Intake(self._demands, readers)
        if readers:
            intake.take(data, is_last=True)
        return intake.facts()

    def _facts(self, readers: Sequence[Candidate], data: bytes, shape: _Shape) -> Facts:
        """Return the same as an intake would, where it is of lines and digests only."""
        answers = NO_LINES
        if shape.has_contents:
            answers = self._demands.of(readers).question.answer(data)
            facts = Facts(answers, {})
            readers = [one for one in readers if is_undecided(one, facts)]
        digests: Dict[str, str] = {}
        for one in readers:
            for kind in one.search.report_kinds:
                if kind not in digests:
                    digests[kind] = self._makers[kind](data).hexdigest()
        return Facts(answers, digests)


def _sift(names: Iterable[bytes], shape: _Shape) -> AbstractSet[bytes]:
    return shape.sieve.keep(list(names)) if shape.sieve is not None else _NONE


def _statuses_of_files(names: Sequence[bytes], directory: int) -> Optional[Sequence[os.stat_result]]:
    """Return the statuses of regular files; None where one of them is not there, or is something else."""
    try:
        statuses = [os.stat(name, dir_fd=directory, follow_symlinks=False) for name in names]
    except OSError:
        return None
    return statuses if all(status.st_mode & FORMAT == REGULAR for status in statuses) else None


def _is_file_link(name: bytes, part: Part, directory: int) -> bool:
    """Tell whether a name is a link to a regular file; nothing is said of what it is otherwise."""
    if part.kinds[name] != LINK:
        return False
    try:
        return os.stat(name, dir_fd=directory).st_mode & FORMAT == REGULAR
    except OSError:
        return False


def _has_one(wanted: Digests, data: bytes, more: bytes) -> bool:
    for maker, digests in wanted:
        digest = maker(data)
        if more:
            digest.update(more)
        if digest.hexdigest() in digests:
            return True
    return False
