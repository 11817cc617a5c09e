"""Looks for needles in the memory of one process, without stopping it.

Rules:

* What is worth reading, and what lies side by side, is as for rules (`agent.scan.memory`): side by side is
  one run as long as it can be read.
* Where a page cannot be read the run ends, and the next begins behind it.
* A mapping of a file that lies on another machine is left alone: to read it may hang.
* All that was not read is counted, by its reason. Where anything was not, nobody can say that something is
  not there.
"""

from collections import Counter
from typing import Callable, Dict, FrozenSet, NamedTuple, Optional

from agent.platform.process_memory import Process, ProcessGone, Region
from agent.scan.memory import Stretch, readable_after, stretches
from agent.scan.memory_needles import Matches, NeedleScan, NeedleSet, Sizes
from agent.scan.mounts import Mounts
from agent.scan.outcome import GONE, UNREADABLE

REMOTE, DENIED = "remote-filesystem", "denied"


class Span(NamedTuple):
    """Which addresses are looked at: from `offset` on, so many bytes that can be read; 0 is all."""

    offset: int = 0
    maxlength: int = 0


class Found(NamedTuple):
    """What one look told.

    `matches` by needle, `regions` by the addresses that these name; `holes` are the reasons why something was
    not read, with how many bytes that were, 0 where it is not known.
    """

    matches: Dict[int, Matches]
    regions: Dict[int, Region]
    bytes_read: int
    holes: Dict[str, int]


class MemoryFinder:
    """Looks into one process after the other, with one buffer.

    Args:
        needles: made ready.
        most_addresses: so many of the matches of a needle are told.
        work: told of each piece that was read; may raise to end it.
        mounts: which file systems are elsewhere.
        sizes: of the buffer.

    """

    def __init__(
        self,
        needles: NeedleSet,
        *,
        most_addresses: int,
        work: Callable[[int], None],
        check: Callable[[], None],
        mounts: Optional[Mounts] = None,
        sizes: Sizes = Sizes(),  # noqa: B008  (immutable)
    ) -> None:
        self._needles = needles
        self._most_addresses = most_addresses
        self._work = work
        self._check = check
        self._mounts = mounts or Mounts()
        self._sizes = sizes
        self._buffer = bytearray(sizes.buffer_bytes)

    def look(self, process: Process, wanted: FrozenSet[int], span: Span) -> Found:
        """Look for some of the needles in the memory of a process."""
        scan = NeedleScan(self._needles, wanted, most_addresses=self._most_addresses, sizes=self._sizes)
        look = _Look(process, scan, span, self._buffer, self._sizes.kept_bytes)
        try:
            for stretch in stretches(process, leave=lambda region: self._is_elsewhere(region, look)):
                if not look.read(stretch, self._work, self._check):
                    break
        except ProcessGone:
            look.holes[GONE] += 0
        except PermissionError:
            look.holes[DENIED] += 0
        matches = {index: look.scan.matches(index) for index in wanted}
        return Found(matches, look.regions, look.bytes_read, dict(look.holes))

    def _is_elsewhere(self, region: Region, look: "_Look") -> bool:
        if not region.inode or not self._mounts.has_remote():
            return False
        if self._mounts.remote_on_way(region.path) is None:
            return False
        look.holes[REMOTE] += region.end - region.start
        return True


class _Look:
    """One look at one process; `holes` counts the bytes that were not read, by reason."""

    def __init__(
        self, process: Process, scan: NeedleScan, span: Span, buffer: bytearray, kept_bytes: int
    ) -> None:
        self.scan = scan
        self.holes: Counter[str] = Counter()
        self.regions: Dict[int, Region] = {}
        self.bytes_read = 0
        self._process = process
        self._span = span
        self._buffer = buffer
        self._kept_bytes = kept_bytes

    def read(self, stretch: Stretch, work: Callable[[int], None], check: Callable[[], None]) -> bool:
        """Read a stretch and look into it, run by run; tell whether there may be more to look at."""
        try:
            return self._read(stretch, work, check)
        finally:
            self.regions.update((address, stretch.region_at(address)) for address in self.scan.take_new())

    def _read(self, stretch: Stretch, work: Callable[[int], None], check: Callable[[], None]) -> bool:
        at = max(stretch.start, self._span.offset)
        while at < stretch.end:
            at = self._run(at, stretch.end, work, check)
            if self.scan.is_over() or self._left() == 0:
                return False
            if at < stretch.end:
                at = self._skip(at, stretch, check)
        return True

    def _left(self) -> Optional[int]:
        """Return how much may still be read; None is all."""
        return self._span.maxlength - self.bytes_read if self._span.maxlength else None

    def _run(self, at: int, end: int, work: Callable[[int], None], check: Callable[[], None]) -> int:
        """Look into what can be read from an address on without a gap, and return where that ends."""
        kept, is_first = 0, True
        while True:
            filled, is_last = self._fill(at, end, kept, work)
            at += filled - kept
            if filled > (0 if is_first else kept) or (is_last and not is_first):
                self.scan.look(
                    self._buffer, filled, at - filled, is_first=is_first, is_last=is_last, check=check
                )
            if is_last or self.scan.is_over():
                return at
            kept, is_first = self._kept_bytes, False
            self._buffer[:kept] = self._buffer[filled - kept : filled]

    def _fill(self, at: int, end: int, kept: int, work: Callable[[int], None]) -> "tuple[int, bool]":
        """Fill the buffer behind what is kept; return how much is in it, and whether the run ends there."""
        filled = kept
        while filled < len(self._buffer):
            wanted = min(len(self._buffer) - filled, end - at)
            left = self._left()
            if left is not None:
                wanted = min(wanted, left)
            if not wanted:
                return filled, True
            with memoryview(self._buffer) as whole, whole[filled : filled + wanted] as part:
                count = self._process.read_into(at, part)
            if not count:
                return filled, True
            filled += count
            at += count
            self.bytes_read += count
            work(count)
        return filled, at >= end

    def _skip(self, at: int, stretch: Stretch, check: Callable[[], None]) -> int:
        """Count what cannot be read from an address on, and return where reading may go on behind it."""
        begin, at = at, readable_after(self._process, stretch, at, check)
        self.holes[UNREADABLE] += at - begin
        return at
