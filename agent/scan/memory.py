"""How the memory of a process is cut into what a scanner takes: nothing at a border is missed.

Rules:

1. What lies side by side in the address space is one stretch, though it be of several mappings: a program's
   code, constants and data are looked at together, as they lie in its file.
2. A stretch larger than a window is looked at in windows that overlap.
3. Of private memory that no file stands behind only pages that exist are read: the rest is zeros, and may be
   terabytes. A page more on each side is read, and small gaps are.
4. Mappings of devices are left alone: to read there can mean to do something.
5. Behind a page that cannot be read it goes on. After `_PATIENCE_BYTES` of such pages in a row the steps
   double, up to the mapping's end: it may be terabytes of nothing.
"""

from typing import Callable, Iterator, List, NamedTuple, Tuple

from agent.platform.process_memory import PAGE_BYTES, Process, Region

WINDOW_BYTES = 32 << 20
# No match that is longer than this is promised to be seen where two windows meet.
OVERLAP_BYTES = 1 << 20
_SMALL_GAP_BYTES = 16 * PAGE_BYTES
_PATIENCE_BYTES = 1 << 20
_NO_DEVICES = (b"/dev/shm/", b"/dev/zero", b"/dev/hugepages/")


class Stretch(NamedTuple):
    """Addresses from `start` up to `end`, and the mappings that they belong to."""

    start: int
    end: int
    regions: Tuple[Region, ...]

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.end - self.start

    def region_at(self, address: int) -> Region:
        """Return the mapping that an address of it belongs to."""
        low, high = 0, len(self.regions) - 1
        while low < high:
            middle = (low + high) // 2
            if address < self.regions[middle].end:
                high = middle
            else:
                low = middle + 1
        return self.regions[low]


def stretches(
    process: Process, *, leave: Callable[[Region], bool] = lambda _region: False
) -> Iterator[Stretch]:
    """Yield what is worth reading of a process, by address, without the mappings that `leave` tells of.

    Raises:
        ProcessGone: it ended.
        PermissionError: it may not be looked at.

    """
    start = end = 0
    regions: List[Region] = []
    for region in process.regions():
        if not region.is_readable or _is_device(region) or leave(region):
            continue
        for from_, to in _parts(process, region):
            if from_ != end or not regions:
                if regions:
                    yield Stretch(start, end, tuple(regions))
                start, regions = from_, []
            end = to
            if not regions or regions[-1] is not region:
                regions.append(region)
    if regions:
        yield Stretch(start, end, tuple(regions))


def _is_device(region: Region) -> bool:
    return region.path.startswith(b"/dev/") and not region.path.startswith(_NO_DEVICES)


def _parts(process: Process, region: Region) -> Iterator[Tuple[int, int]]:
    """Yield the parts of a mapping to read."""
    if not region.is_private_anonymous:
        yield region.start, region.end
        return
    start = end = 0
    for from_, to in process.touched(region):
        if end and from_ - end <= _SMALL_GAP_BYTES:
            end = to
            continue
        if end:
            yield start, min(end + PAGE_BYTES, region.end)
        start, end = max(from_ - PAGE_BYTES, region.start), to
    if end:
        yield start, min(end + PAGE_BYTES, region.end)


def windows(
    process: Process,
    stretch: Stretch,
    *,
    window_bytes: int = WINDOW_BYTES,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Tuple[int, bytes]]:
    """Yield address and content of the windows of a stretch; nothing, where what follows cannot be read.

    Args:
        process: open.
        stretch: of its memory.
        window_bytes: at most this much at once.
        check: called while looking for where reading may go on; may raise to end it.

    Raises:
        ProcessGone: it ended.
        PermissionError: it may not be looked at.

    """
    overlap = min(OVERLAP_BYTES, window_bytes // 2)
    at = stretch.start
    while at < stretch.end:
        wanted = min(window_bytes, stretch.end - at)
        data = process.read(at, wanted)
        yield at, data
        if not data:
            # Beyond the end of a file that was cut, say, or a page that nobody may read.
            at = readable_after(process, stretch, at, check)
            continue
        at += len(data)
        if len(data) == wanted and at < stretch.end:
            at -= overlap


def readable_after(process: Process, stretch: Stretch, at: int, check: Callable[[], None]) -> int:
    """Return where reading may go on behind an address that cannot be read, the stretch's end at the latest.

    Raises:
        ProcessGone: it ended.
        PermissionError: it may not be looked at.

    """
    begin, step = at, PAGE_BYTES
    with memoryview(bytearray(1)) as byte:
        while at < stretch.end:
            # Mappings begin at pages, and so does what cannot be read; an address may lie within one.
            at = min((at // PAGE_BYTES) * PAGE_BYTES + step, stretch.region_at(at).end, stretch.end)
            if at < stretch.end and process.read_into(at, byte):
                break
            if at - begin >= _PATIENCE_BYTES:
                step *= 2
            check()
    return at
