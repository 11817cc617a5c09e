"""What is in a range of a block device: digests of it, and where patterns are found; read once for all."""

from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

from agent.platform.block_reader import RawDevice
from agent.scan.digests import new_digest
from agent.scan.raw_patterns import Places, RawPattern, RawSearch

# Larger than a piece and what is searched with it.
_TAUGHT_BYTES = 16 << 20


class Range(NamedTuple):
    """From `start` up to `end`, in bytes from the device's beginning."""

    start: int
    end: int


class Wanted(NamedTuple):
    """What is asked of a range; `most` places of each pattern are told."""

    patterns: Sequence[RawPattern]
    hashes: Sequence[str]
    most: int


class Look(NamedTuple):
    """What was found: digests by kind, none where a part could not be read or was not; and places."""

    digests: Dict[str, str]
    places: Tuple[Places, ...]
    bytes_read: int
    unreadable_bytes: int


def look_at_range(device: RawDevice, over: Range, wanted: Wanted, pulse: Callable[[int], None]) -> Look:
    """Read a range and return what is in it; `pulse` is told of every piece how large it was."""
    # glibc learns by what is freed that such memory comes again, and gives it back no more (mallopt(3),
    # M_MMAP_THRESHOLD): else each piece is paid for with fresh pages, more than searching it costs.
    bytes(_TAUGHT_BYTES)
    digests = {kind: new_digest(kind) for kind in wanted.hashes}
    search = RawSearch(wanted.patterns, most=wanted.most, check=lambda: pulse(0))
    search.begin(over.start)
    bytes_read = unreadable = 0
    for piece in device.pieces(over.start, over.end):
        pulse(len(piece.data))
        if piece.hole_bytes:
            unreadable += piece.hole_bytes
            search.begin(piece.offset + piece.hole_bytes)
            continue
        bytes_read += len(piece.data)
        for digest in digests.values():
            digest.update(piece.data)
        search.feed(piece.data)
        if not digests and not search.is_open():
            break
    search.finish()
    is_whole = bytes_read == over.end - over.start
    told: Dict[str, str] = {kind: digest.hexdigest() for kind, digest in digests.items()} if is_whole else {}
    places: List[Places] = search.places()
    return Look(told, tuple(places), bytes_read, unreadable)
