"""How the memory of a process is cut into what a scanner takes: nothing at a border is missed.

Rules:

1. What lies side by side in the address space is one stretch, though it be of several mappings: a program's
   code, constants and data are looked at together, as they lie in its file.
2. A stretch larger than a window is looked at in windows that overlap.
3. Of private memory that no file stands behind only pages that exist are read: the rest is zeros, and may be
   terabytes. A page more on each side is read, and small gaps are.
4. Mappings of devices are left alone: to read there can mean to do something.
"""

from typing import Callable, Iterator, List, NamedTuple, Tuple

from agent.platform.process_memory import PAGE_BYTES, Process, Region

WINDOW_BYTES = 32 << 20
# No match that is longer than this is promised to be seen where two windows meet.
OVERLAP_BYTES = 1 << 20
_SMALL_GAP_BYTES = 16 * PAGE_BYTES
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
        return next(region for region in self.regions if address < region.end)


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
    process: Process, stretch: Stretch, *, window_bytes: int = WINDOW_BYTES
) -> Iterator[Tuple[int, bytes]]:
    """Yield address and content of the windows of a stretch; nothing, where a mapping's rest cannot be read.

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
            # Beyond the end of a file that was cut, say: the rest of that mapping is not there either.
            at = stretch.region_at(at).end
            continue
        at += len(data)
        if len(data) == wanted and at < stretch.end:
            at -= overlap
