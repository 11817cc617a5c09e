"""What is done with rules in the process that may die: a file or a process is read and looked at.

Rules:

* A file is read once, as far as its size said, within the limit; then it is looked at whether it changed. One
  that did, and in which nothing matched, counts as not scanned: nobody can say what was in it.
* A process is looked at stretch by stretch (`agent.scan.memory`), and a rule is judged on one of them at a
  time. It is not stopped. When it ends meanwhile, what was found until then stands.
* What matched goes back without a byte of content.
"""

import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import msgspec

from agent.module import Budget
from agent.platform.process_memory import Process, ProcessGone, Region
from agent.scan.memory import Stretch, stretches, windows
from agent.scan.rules import (
    PatternHit,
    RuleHit,
    RuleScanner,
    RuleSet,
    ScanFailed,
    ScanTimedOut,
    bound_hits,
)
from agent.scan.throttle import Throttle

FILE, PROCESS = b"F", b"P"
CHANGED, FAILED, GONE, LOST = "changed", "failed", "ended", "crashed"
TIMED_OUT, TOO_LARGE, UNREADABLE = "timed-out", "too-large", "unreadable"
# One piece is one object: a file of two pieces takes twice its size in memory when they are put together.
_PIECE_BYTES = 64 << 20
# Told of each piece that was read: keeps to the budget, and says that the work goes on.
Work = Callable[[int], None]


class Place(msgspec.Struct, array_like=True, frozen=True):
    """A mapping of a process."""

    start: int
    end: int
    permissions: str
    path: bytes


class Hit(msgspec.Struct, array_like=True, frozen=True):
    """A rule that matched, and in memory where."""

    rule: RuleHit
    place: Optional[Place] = None


class Outcome(msgspec.Struct, array_like=True, frozen=True):
    """How it went with one file or process.

    holes: why it, or a part of a process, was not scanned (reason, words); empty where all of it was.
    """

    size: int = 0
    hits: Tuple[Hit, ...] = ()
    is_cut: bool = False
    holes: Tuple[Tuple[str, str], ...] = ()


def encode(outcome: Outcome) -> bytes:
    """Return an outcome as bytes."""
    return msgspec.msgpack.encode(outcome)


def decode(data: bytes) -> Outcome:
    """Return an outcome of bytes that `encode` made."""
    return msgspec.msgpack.decode(data, type=Outcome)


class Bounds(NamedTuple):
    """What one file or process may cost: whole seconds for a file or a window of memory, and bytes."""

    timeout_s: int
    max_file_bytes: int
    max_process_bytes: int


class RuleWork:
    """Answers what a helper is asked.

    Args:
        rules: compiled before the helper was forked.
        bounds: of one file or process.
        budget: of all processes of the scan.
        share: how many processes share the budget.

    """

    def __init__(self, rules: RuleSet, bounds: Bounds, *, budget: Budget, share: int) -> None:
        self._rules = rules
        self._bounds = bounds
        self._budget = budget
        self._share = share
        self._bytes_read = 0
        self._tools: Optional[Tuple[RuleScanner, Throttle]] = None

    def __call__(self, request: bytes, descriptor: Optional[int], say: Callable[[], None]) -> bytes:
        """Answer one request: what is open here is a file, or the directory of a process."""
        if descriptor is None:
            raise ValueError("nothing came to be looked at")
        if self._tools is None:
            # Only here: neither may be made before the helper is forked.
            throttle = Throttle(self._budget, self._share, bytes_read=lambda: self._bytes_read)
            self._tools = RuleScanner(self._rules, timeout_s=self._bounds.timeout_s), throttle
        scanner, throttle = self._tools

        def work(size: int) -> None:
            self._bytes_read += size
            throttle.keep(say)

        if request[:1] == FILE:
            return encode(self._file(scanner, descriptor, request[1:], work))
        with Process(int(request[1:]), os.dup(descriptor)) as process:
            return encode(_ProcessScan(scanner, process, self._bounds.max_process_bytes, work).run())

    def _file(self, scanner: RuleScanner, descriptor: int, path: bytes, work: Work) -> Outcome:
        bounds, data = self._bounds, b""
        try:
            before = os.fstat(descriptor)
            whole = _read(descriptor, before.st_size, bounds.max_file_bytes, work)
            if whole is None:
                return too_large(bounds)
            data = whole
            scanner.name_file(path)
            hits, is_cut = bound_hits(scanner.scan(data))
            after = os.fstat(descriptor)
        except OSError as error:
            return Outcome(holes=((UNREADABLE, os.strerror(error.errno or 0)),))
        except ScanTimedOut:
            return Outcome(
                len(data), holes=((TIMED_OUT, f"the rules took longer than {bounds.timeout_s} s"),)
            )
        except ScanFailed as error:
            return Outcome(holes=((FAILED, str(error)),))
        # What the kernel makes up says that it is empty, and is not (proc(5)).
        is_other = before.st_mtime_ns != after.st_mtime_ns or (after.st_size and len(data) != after.st_size)
        holes = ((CHANGED, "changed while it was read"),) if is_other else ()
        return Outcome(len(data), tuple(map(Hit, hits)), is_cut, holes)


def too_large(bounds: Bounds) -> Outcome:
    """Return what is said of a file that is not scanned for its size."""
    return Outcome(holes=((TOO_LARGE, f"larger than {bounds.max_file_bytes} bytes (max_file_bytes)"),))


def _read(descriptor: int, size: int, limit: int, work: Work) -> Optional[bytes]:
    """Return what a file holds: as much as it said, or where it says nothing, all; None beyond the limit."""
    pieces: List[bytes] = []
    left = size or limit + 1
    if left > limit + 1:
        return None
    while left:
        data = os.read(descriptor, min(left, _PIECE_BYTES))
        if not data:
            break
        pieces.append(data)
        left -= len(data)
        work(len(data))
    whole = b"".join(pieces)
    return whole if len(whole) <= limit else None


class _ProcessScan:
    """One look at one process."""

    def __init__(self, scanner: RuleScanner, process: Process, max_bytes: int, work: Work) -> None:
        self._scanner = scanner
        self._process = process
        self._left = max_bytes
        self._work = work
        self._size = 0
        self._hits: Dict[Tuple[int, str, str], _MemoryHit] = {}
        self._holes: Dict[str, str] = {}

    def run(self) -> Outcome:
        try:
            self._scanner.name_file(self._process.executable())
            for stretch in stretches(self._process):
                self._stretch(stretch)
        except ProcessGone:
            self._holes[GONE] = "ended, or started another program, while it was looked at"
        except OSError as error:
            self._holes[UNREADABLE] = os.strerror(error.errno or 0)
        told = [hit.tell() for hit in self._hits.values()]
        rules, is_cut = bound_hits(rule for rule, _ in told)
        hits = tuple(Hit(rule, place) for rule, (_, place) in zip(rules, told))
        return Outcome(self._size, hits, is_cut, tuple(self._holes.items()))

    def _stretch(self, stretch: Stretch) -> None:
        scanned = stretch.start
        for address, data in windows(self._process, stretch):
            self._work(len(data))
            if not data:
                self._holes.setdefault(UNREADABLE, f"a part of its memory, at {address:#x}")
                continue
            if len(data) > self._left:
                self._holes[TOO_LARGE] = "has more memory than max_process_bytes allows to read"
                return
            self._left -= len(data)
            try:
                for hit in self._scanner.scan(data):
                    self._add(stretch, hit, address, scanned)
            except ScanTimedOut:
                self._lose(TIMED_OUT, "the rules took too long", address, data)
            except ScanFailed as error:
                self._lose(FAILED, str(error), address, data)
            else:
                self._size += address + len(data) - max(scanned, address)
                scanned = address + len(data)

    def _add(self, stretch: Stretch, hit: RuleHit, address: int, scanned: int) -> None:
        held = self._hits.setdefault((stretch.start, hit.source, hit.rule), _MemoryHit(stretch, hit))
        for pattern in hit.patterns:
            held.add(pattern, address, scanned)

    def _lose(self, reason: str, words: str, address: int, data: bytes) -> None:
        self._holes.setdefault(reason, f"{words} at {address:#x}, {len(data)} bytes")


class _MemoryHit:
    """A rule that matched in a stretch, put together of what its windows say."""

    def __init__(self, stretch: Stretch, hit: RuleHit) -> None:
        self._stretch = stretch
        self._hit = hit
        self._patterns: Dict[str, List[Any]] = {}

    def add(self, pattern: PatternHit, address: int, scanned: int) -> None:
        """Add the matches of a window at an address, but those that lie wholly in what was scanned before."""
        places = ((address + offset, length) for offset, length in pattern.matches)
        fresh = [(start, length) for start, length in places if start + length > scanned]
        held = self._patterns.setdefault(pattern.identifier, [0, []])
        held[0] += len(fresh)
        held[1].extend(fresh)

    def tell(self) -> Tuple[RuleHit, Place]:
        patterns = tuple(
            PatternHit(identifier, count, tuple(matches))
            for identifier, (count, matches) in self._patterns.items()
        )
        places = [matches[0][0] for _, matches in self._patterns.values() if matches]
        region: Region = self._stretch.region_at(min(places, default=self._stretch.start))
        place = Place(region.start, region.end, region.permissions, region.path)
        return RuleHit(self._hit.source, self._hit.rule, patterns), place
