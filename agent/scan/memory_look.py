"""Rules applied to the memory of one process, in the process that may die.

Rules:

* A rule is judged on one window of one stretch at a time (`agent.scan.memory`), or, where it is asked for, on
  all that fits into a bundle of windows, with line ends between them, so that nothing matches across a seam
  by accident. The place of what does all the same is not told.
* A match that two windows see, since they overlap, is told once.
* The process is not stopped. When it ends meanwhile, what was found until then stands.
"""

import os
from bisect import bisect_right
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from agent.platform.process_memory import Process, ProcessGone, Region
from agent.scan.memory import Stretch, stretches, windows
from agent.scan.outcome import (
    APART,
    FAILED,
    GONE,
    TIMED_OUT,
    TOO_LARGE,
    UNREADABLE,
    Hit,
    Outcome,
    Place,
    Work,
)
from agent.scan.rules import PatternHit, RuleHit, RuleScanner, ScanFailed, ScanTimedOut, bound_hits

BUNDLE_BYTES = 128 << 20
# Longer than what most expressions may skip; a line's end, at which `.` stops.
_SEAM = b"\n" * 4096


class _Window(NamedTuple):
    """What was read at an address; of it what ends at `scanned` or before was seen by the window before."""

    stretch: Stretch
    address: int
    data: bytes
    scanned: int


class _Enough(Exception):
    """As much was read as may be."""


class MemoryLook:
    """One look at one process.

    Args:
        scanner: with the rules.
        process: open.
        max_bytes: as much is read of it.
        work: told of each piece that was read.

    """

    def __init__(self, scanner: RuleScanner, process: Process, max_bytes: int, work: Work) -> None:
        self._scanner = scanner
        self._process = process
        self._left = max_bytes
        self._work = work
        self._size = 0
        self._hits: Dict[Tuple[int, str, str], _MemoryHit] = {}
        self._holes: Dict[str, str] = {}

    def run(self, *, is_together: bool) -> Outcome:
        """Return what matched, and why something was not scanned."""
        try:
            self._scanner.name_file(self._process.executable())
            if is_together:
                self._judge_together()
            else:
                self._judge_apart()
        except _Enough:
            self._holes[TOO_LARGE] = "has more memory than max_process_bytes allows to read"
        except ProcessGone:
            self._holes[GONE] = "ended, or started another program, while it was looked at"
        except OSError as error:
            self._holes[UNREADABLE] = os.strerror(error.errno or 0)
        return self._outcome()

    def _judge_apart(self) -> None:
        for stretch in stretches(self._process):
            # Of a window that could not be scanned the next one tells all that it holds.
            scanned = stretch.start
            for address, data in self._read(stretch):
                if self._scan([_Window(stretch, address, data, scanned)]):
                    scanned = address + len(data)

    def _judge_together(self) -> None:
        bundle: List[_Window] = []
        size = bundles = 0
        try:
            for stretch in stretches(self._process):
                scanned = stretch.start
                for address, data in self._read(stretch):
                    if bundle and size + len(data) > BUNDLE_BYTES:
                        self._scan(bundle)
                        bundle, size, bundles = [], 0, bundles + 1
                    bundle.append(_Window(stretch, address, data, scanned))
                    size += len(data)
                    scanned = address + len(data)
        finally:
            # Also where it has ended meanwhile: what was read is there.
            if bundle:
                self._scan(bundle)
            if bundles:
                self._holes[APART] = f"its memory was judged in {bundles + 1} pieces, not all at once"

    def _read(self, stretch: Stretch) -> Iterator[Tuple[int, bytes]]:
        for address, data in windows(self._process, stretch, check=lambda: self._work(0)):
            self._work(len(data))
            if not data:
                self._holes.setdefault(UNREADABLE, f"a part of its memory, at {address:#x}")
                continue
            self._left -= len(data)
            if self._left < 0:
                raise _Enough
            yield address, data

    def _scan(self, bundle: List[_Window]) -> bool:
        """Apply the rules to windows, judged together; tell whether that was possible."""
        first = bundle[0]
        alone = len(bundle) == 1
        words = f"{first.address:#x}, {sum(len(window.data) for window in bundle)} bytes"
        try:
            hits = self._scanner.scan(first.data if alone else _SEAM.join(window.data for window in bundle))
        except ScanTimedOut:
            self._holes.setdefault(TIMED_OUT, f"the rules took too long at {words}")
            return False
        except ScanFailed as error:
            self._holes.setdefault(FAILED, f"{error} at {words}")
            return False
        starts: List[int] = []
        at = 0
        for window in bundle:
            starts.append(at)
            at += len(window.data) + len(_SEAM)
            self._size += window.address + len(window.data) - max(window.scanned, window.address)
        for hit in hits:
            key = (first.stretch.start if alone else 0, hit.source, hit.rule)
            held = self._hits.setdefault(key, _MemoryHit(hit, first.stretch))
            for pattern in hit.patterns:
                held.add(pattern, bundle, starts)
        return True

    def _outcome(self) -> Outcome:
        told = [hit.tell() for hit in self._hits.values()]
        rules, is_cut = bound_hits(rule for rule, _ in told)
        hits = tuple(Hit(rule, place) for rule, (_, place) in zip(rules, told))
        return Outcome(self._size, hits, is_cut, tuple(self._holes.items()))


class _MemoryHit:
    """A rule that matched, put together of what windows say."""

    def __init__(self, hit: RuleHit, stretch: Stretch) -> None:
        self._hit = hit
        self._first: Optional[Tuple[int, Stretch]] = None
        self._otherwise = stretch
        self._patterns: Dict[str, List[Any]] = {}

    def add(self, pattern: PatternHit, bundle: List[_Window], starts: List[int]) -> None:
        """Add the matches of a pattern, by address, but those seen before and those across a seam."""
        held = self._patterns.setdefault(pattern.identifier, [0, []])
        for offset, length in pattern.matches:
            number = bisect_right(starts, offset) - 1
            window = bundle[number]
            inside = offset - starts[number]
            address = window.address + inside
            if inside + length > len(window.data) or address + length <= window.scanned:
                continue
            held[0] += 1
            held[1].append((address, length))
            if self._first is None or address < self._first[0]:
                self._first = (address, window.stretch)

    def tell(self) -> Tuple[RuleHit, Place]:
        """Return the rule with all its matches, and the mapping of the first."""
        patterns = tuple(
            PatternHit(identifier, count, tuple(matches))
            for identifier, (count, matches) in self._patterns.items()
            if count
        )
        address, stretch = self._first or (self._otherwise.start, self._otherwise)
        region: Region = stretch.region_at(address)
        place = Place(region.start, region.end, region.permissions, region.path)
        return RuleHit(self._hit.source, self._hit.rule, patterns), place
