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
* How small files are read is the matter of `agent.scan.quick_reading`.
"""

import os
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

from agent.scan.asking import reads_every_file, status_test, told_at_once
from agent.scan.batch import FILE, LINK
from agent.scan.coverage import Recorder
from agent.scan.intake import Demands
from agent.scan.items import Found, Part, keep_status
from agent.scan.judging import Candidate
from agent.scan.mounts import Mounts
from agent.scan.plan import Plan
from agent.scan.quick_reading import CHECK_EVERY, FORMAT, REGULAR, QuickReader, Reading, Survivor
from agent.scan.sieve import NameSieve, can_sift

# What a search may ask of a file that is read here.
_KNOWN = (
    "stats", "contents", "reads", "byte_strings", "wants_magic", "wants_entropy", "hashes", "report_kinds",
)  # fmt: skip
_NONE: FrozenSet[bytes] = frozenset()
_NO_DIGESTS: Dict[str, str] = {}


class _Shape(NamedTuple):
    """What is asked of every file for one choice of searches.

    `base` are the searches that the sieve does not decide. With `looks` every one of them asks for a status
    first; `reading` says what is asked where some of them must read every file. `told` is the one search
    there is, with what it says, where names or the status tell it all.
    """

    sieve: Optional[NameSieve]
    base: Tuple[Candidate, ...]
    looks: bool
    reading: Optional[Reading]
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
        self._reader = QuickReader(plan, recorder=recorder, check=check, demands=demands)
        self._shapes: Dict[Tuple[int, ...], Optional[_Shape]] = {}

    def survivors(self, part: Part, directory: int) -> Optional[Iterator[Survivor]]:
        """Yield what is left to be judged, with its status where that is known; None for all of it.

        What is not left is judged: it is counted, and the recorder knows its matches.
        """
        shape, device = self._shape_for(part, directory)
        return None if shape is None else self._go(part, directory, shape, device)

    def glance(self, part: Part, directory: int) -> bool:
        """Judge all that is in a directory by one look at each entry; False where that cannot tell all.

        So it is for one search that asks for nothing but the status, where all are regular files. Names are
        put in order only where some file is wanted.
        """
        shape, _ = self._shape_for(part, directory)
        if shape is None or shape.told is None or not shape.looks or shape.sieve is not None:
            return False
        self._check()
        try:
            with os.scandir(directory) as listing:
                entries = list(listing)
            statuses = [entry.stat(follow_symlinks=False) for entry in entries]
        except OSError:
            return False
        is_wanted, wanted = status_test(shape.base)
        found: Dict[bytes, os.stat_result] = {}
        for entry, status in zip(entries, statuses):
            if status.st_mode & FORMAT != REGULAR:
                return False
            if is_wanted(status) is wanted:
                found[os.fsencode(entry.name)] = status
        self._check()
        self._tell_some(entries, found, shape.told)
        return True

    def _tell_some(
        self, entries: Sequence["os.DirEntry[str]"], found: Dict[bytes, os.stat_result], told: Candidate
    ) -> None:
        """Tell of the wanted files of a directory, and count the others, as they come by name."""
        recorder, before = self._recorder, 0
        if found:
            names = sorted(os.fsencode(entry.name) for entry in entries)
            recorder.begin(names, 0)
            for index, name in enumerate(names):
                if name in found:
                    recorder.files_seen += index - before
                    before = index + 1
                    status = keep_status(found[name])
                    recorder.tell(index, Found(told.number, FILE, status, _NO_DIGESTS, told.said))
        recorder.files_seen += len(entries) - before

    def _shape_for(self, part: Part, directory: int) -> Tuple[Optional[_Shape], int]:
        """Return what is asked of every file of a part, None where each must be judged alone; its device."""
        if part.searches not in self._shapes:
            self._shapes[part.searches] = self._make_shape(part.searches)
        shape = self._shapes[part.searches]
        if shape is None or part.passed_over or part.unmapped or part.borders or self._mounts.hold(part.path):
            return None, 0
        device = os.fstat(directory).st_dev
        return (shape if self._mounts.pseudo_type(device) is None else None), device

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
        reading = self._reader.prepare(base) if reads else None
        return _Shape(sieve, base, looks, reading, told_at_once(chosen))

    def _go(self, part: Part, directory: int, shape: _Shape, device: int) -> Iterator[Survivor]:
        if shape.reading is not None:
            yield from self._reader.read_all(part, directory, device, _sift(part.names, shape), shape.reading)
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
