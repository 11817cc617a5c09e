r"""What is looked for in memory, and looking for it in a buffer that slides over what is read.

Rules:

1. What was read without a gap is a run; a run is searched as if it were one text, whatever the buffers are: a
   match is found once, where the leftmost-first rule puts it, and the next begins behind it.
2. For that a buffer begins with the last `kept_bytes` of the one before, of which the first byte is only seen
   (what `^` and `\b` ask of), and a match that begins in its last `overlap_bytes` is left to the next. A
   match that is longer than `overlap_bytes` may be missed, or be found shorter.
3. Matches are counted up to `MOST_MATCHES` for each needle; then it is looked for no more.
4. A buffer of nothing but zeros, of which large heaps hold many, is only asked for what can match in zeros:
   what begins in it, and is at most `overlap_bytes` long, lies in zeros, or begins where the next one looks.
5. What costs least comes first: texts that a match must hold (`agent.scan.literals`) are jumped to, and what
   has none is joined into one expression that tells whether anything is there at all.
"""

from typing import Callable, Dict, FrozenSet, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from agent.scan.literals import probe_of
from agent.scan.patterns import Pattern, compile_raw, join_bytes, join_raw

MOST_MATCHES = 1000
# So many byte strings are quicker one by one than joined.
_FEW_STRINGS = 6


class Sizes(NamedTuple):
    """Of buffers; `overlap_bytes` is how long a match may be that is found wherever it lies."""

    fresh_bytes: int = 2 << 20
    overlap_bytes: int = 64 << 10

    @property
    def kept_bytes(self) -> int:
        """How much of a buffer the next one begins with."""
        return self.overlap_bytes + 1

    @property
    def buffer_bytes(self) -> int:
        """How large a buffer is."""
        return self.fresh_bytes + self.kept_bytes


class Needle(NamedTuple):
    """What is looked for: a byte string, or else an expression; in `value` as the search has it."""

    value: str
    is_bytes: bool


class Matches(NamedTuple):
    """The matches of one needle: their number, at most `MOST_MATCHES`, and the addresses of the first."""

    number: int
    addresses: Tuple[int, ...]


class _Tool(NamedTuple):
    """How one needle is looked for: `string` by itself, or `pattern`, where one of the probes is found."""

    string: bytes
    pattern: Optional[Pattern]
    probes: Tuple[Pattern, ...]


class NeedleSet:
    """Needles made ready once for all processes."""

    def __init__(self, needles: Sequence[Needle]) -> None:
        self.needles = tuple(dict.fromkeys(needles))
        self._tools = [_make_tool(needle) for needle in self.needles]
        bare = [at for at, tool in enumerate(self._tools) if tool.pattern is not None and not tool.probes]
        strings = [at for at, needle in enumerate(self.needles) if needle.is_bytes]
        zeros = bytes(2 * Sizes().kept_bytes)
        self._in_zeros = frozenset(
            at for at, tool in enumerate(self._tools) if _find(tool, zeros, zeros, 0) is not None
        )
        self._gates: List[Tuple[FrozenSet[int], Pattern]] = []
        if len(bare) > 1:
            self._add_gate(bare, join_raw([self.needles[at].value for at in bare]))
        if len(strings) > _FEW_STRINGS:
            self._add_gate(strings, join_bytes([self._tools[at].string for at in strings]))

    def _add_gate(self, group: Sequence[int], gate: Optional[Pattern]) -> None:
        if gate is not None:
            self._gates.append((frozenset(group), gate))

    def tool(self, index: int) -> _Tool:
        """Return how one is looked for."""
        return self._tools[index]

    def candidates(self, open_: Set[int], view: memoryview, *, are_zeros: bool) -> List[int]:
        """Return those of the needles still looked for that may be in what was read."""
        if are_zeros:
            return sorted(open_ & self._in_zeros)
        out: Set[int] = set()
        for group, gate in self._gates:
            if len(group & open_) > 1 and gate.search(view) is None:
                out |= group
        return [at for at in sorted(open_ - out) if _is_likely(self._tools[at], view)]


def _find(
    tool: _Tool, buffer: Union[bytes, bytearray], view: Union[bytes, memoryview], at: int
) -> Optional[Tuple[int, int]]:
    """Return where the next match in `view`, the beginning of a buffer, begins and ends."""
    if tool.pattern is None:
        place = buffer.find(tool.string, at, len(view))
        return None if place < 0 else (place, place + len(tool.string))
    match = tool.pattern.search(view, at)
    return None if match is None else (match.start(), match.end())


def _is_likely(tool: _Tool, view: memoryview) -> bool:
    return not tool.probes or any(probe.search(view) is not None for probe in tool.probes)


def _make_tool(needle: Needle) -> _Tool:
    if needle.is_bytes:
        string = bytes.fromhex(needle.value)
        probe = join_bytes([probe_of(string)])
        return _Tool(string, None, (probe,) if probe is not None else ())
    raw = compile_raw(needle.value)
    return _Tool(b"", raw.pattern, raw.probes)


class NeedleScan:
    """The needles in the memory of one process."""

    def __init__(
        self, needles: NeedleSet, wanted: FrozenSet[int], *, most_addresses: int, sizes: Sizes
    ) -> None:
        self._overlap_bytes = sizes.overlap_bytes
        self._zeros = bytes(sizes.buffer_bytes)
        self._needles = needles
        self._open: Set[int] = set(wanted)
        self._most_addresses = most_addresses
        self._counts: Dict[int, int] = dict.fromkeys(wanted, 0)
        self._addresses: Dict[int, List[int]] = {index: [] for index in wanted}
        self._resume: Dict[int, int] = {}
        # Addresses told since `take_new` was last asked.
        self._new: List[int] = []

    def take_new(self) -> List[int]:
        """Return the addresses that were added since this was last asked."""
        new, self._new = self._new, []
        return new

    def is_over(self) -> bool:
        """Tell whether nothing is looked for any more."""
        return not self._open

    def matches(self, index: int) -> Matches:
        """Return what was found of a needle."""
        return Matches(self._counts[index], tuple(self._addresses[index]))

    def look(
        self,
        buffer: bytearray,
        filled: int,
        address: int,
        *,
        is_first: bool,
        is_last: bool,
        check: Callable[[], None],
    ) -> None:
        """Look into the next piece of a run.

        Args:
            buffer: with the piece at its beginning; of one that is not the first, `kept_bytes` were seen.
            filled: how much of it there is.
            address: of its beginning.
            is_first: whether the run begins here.
            is_last: whether it ends here.
            check: called for each match; may raise.

        """
        begin = 0 if is_first else 1
        end = filled if is_last else filled - self._overlap_bytes
        with memoryview(buffer) as whole, whole[:filled] as view:
            are_zeros = filled == len(buffer) and buffer == self._zeros
            for index in self._needles.candidates(self._open, view, are_zeros=are_zeros):
                at = max(begin, self._resume.get(index, 0) - address)
                while at < end:
                    found = _find(self._needles.tool(index), buffer, view, at)
                    if found is None or found[0] >= end:
                        break
                    check()
                    at = max(found[1], found[0] + 1)
                    self._resume[index] = address + at
                    if not self._take(index, address + found[0]):
                        break

    def _take(self, index: int, address: int) -> bool:
        """Count a match; tell whether to go on."""
        self._counts[index] += 1
        if len(self._addresses[index]) < self._most_addresses:
            self._addresses[index].append(address)
            self._new.append(address)
        if self._counts[index] >= MOST_MATCHES:
            self._open.discard(index)
            return False
        return True
