"""All content patterns of a scan, looked for together: many in one pass over the bytes.

Rules:

* Patterns are joined into one expression, which tells the next line where any of them matches; which ones is
  then asked of that line alone.
* A few patterns that require a literal are quicker one by one (`agent.scan.literals`), and where the literals
  of many have a few texts in common, what holds none of those is passed over.
* Joined patterns may need an automaton of very many states, and then are slower together than apart. That is
  measured while searching, and such a group is split in two for good. What is found never depends on it.
* A pattern that was found in a file is asked for no more; once the lines that only it matches cost more than
  to join the others anew, they are.
"""

import time
from collections import OrderedDict
from typing import Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from agent.scan.patterns import Joined, LinePattern, Pattern, TooLarge, compile_probes

# Groups that are kept joined (the last used ones), and choices of patterns whose groups, or lines, are known.
_KEPT_JOINED, _KEPT_CHOICES = 16, 256


class Costs(NamedTuple):
    """What searching costs here, as far as it decides how to search."""

    # What is searched in one go, in whole lines: between pieces a scan can end.
    piece_bytes: int = 128 << 10
    # A group of n patterns that reads fewer than this many bytes in a second, divided by n, is split.
    joined_bytes_per_s: int = 400_000_000
    # Smaller pieces, and such as hold more lines that match, say nothing about the automaton.
    measured_bytes: int = 32 << 10
    measured_lines: int = 4
    # Lines that a literal may point to in vain before the expression itself reads all that follows.
    pointed_lines: int = 8
    # Reading a block for a pattern with a literal, and for one without or for a whole group.
    literal: int = 1
    pattern: int = 6
    # Lines found in vain, for each pattern that is left, that cost as much as joining those.
    rejoin_lines: int = 3


class Block(NamedTuple):
    """Whole lines: what stands from `start` to `end` in a text; the last one's newline is not part of it."""

    text: bytes
    start: int
    end: int


class Group(NamedTuple):
    """Patterns that are looked for in one pass where `joined` is there, one by one otherwise.

    Where there are `probes`, what is joined matches nothing in which none of them is found.
    """

    members: Tuple[int, ...]
    joined: Optional[Joined]
    probes: Tuple[Pattern, ...] = ()


class Glance(NamedTuple):
    """What a text must hold to have a match: a literal or, where no line ends in two bytes, the pattern."""

    literals: Tuple[bytes, ...]
    pattern: Pattern


class Choice(NamedTuple):
    """How to look for a choice of patterns: by groups and, where all can, at a glance."""

    groups: Tuple[Group, ...]
    glances: Optional[Tuple[Glance, ...]]


class PatternSet:
    """The patterns by their index, and how to look for any choice of them; `clock` counts seconds of CPU."""

    def __init__(
        self,
        patterns: Sequence[LinePattern],
        *,
        costs: Costs = Costs(),  # noqa: B008  (immutable)
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.patterns = tuple(patterns)
        self.costs = costs
        self.clock = clock
        joinable = [index for index, one in enumerate(self.patterns) if one.can_be_joined()]
        ascii_ones = [index for index in joinable if self.patterns[index].expression.isascii()]
        others = [index for index in joinable if not self.patterns[index].expression.isascii()]
        self._parts: List[List[int]] = [part for part in (ascii_ones, others) if len(part) > 1]
        self._choices: Dict[FrozenSet[int], Choice] = {}
        self._joined: OrderedDict[Tuple[int, ...], Optional[Joined]] = OrderedDict()
        self._in_vain: Dict[Tuple[int, ...], int] = {}

    def choose(self, wanted: FrozenSet[int]) -> Choice:
        """Return how to look for these patterns."""
        choice = self._choices.get(wanted)
        if choice is None:
            groups = tuple(self._make_groups(wanted))
            choice = Choice(groups, self._glances(groups))
            if len(self._choices) >= _KEPT_CHOICES:
                self._choices.clear()
            self._choices[wanted] = choice
        return choice

    def narrow(self, group: Group, members: Tuple[int, ...], *, in_vain: bool) -> Group:
        """Return how to look for some of a group's patterns, after a line matched only others (`in_vain`)."""
        if not self._is_worth_joining(members):
            return Group(members, None)
        if members not in self._joined:
            lines = self._in_vain.get(members, 0) + in_vain
            if lines <= self.costs.rejoin_lines * len(members):
                if len(self._in_vain) >= _KEPT_CHOICES:
                    self._in_vain.clear()
                self._in_vain[members] = lines
                return group
            self._in_vain.pop(members, None)
        joined = self._join(members)
        return group if joined is None else Group(members, joined, group.probes)

    def split(self, group: Group) -> None:
        """Take apart a group that is slower together."""
        for part in self._parts:
            if group.members[0] in part:
                self._parts.remove(part)
                half = len(part) // 2
                self._parts += [one for one in (part[:half], part[half:]) if len(one) > 1]
                break
        self._choices.clear()

    def _glances(self, groups: Tuple[Group, ...]) -> Optional[Tuple[Glance, ...]]:
        glances = []
        for members, joined, _ in groups:
            if joined is not None:
                glances.append(Glance((), joined.pattern))
                continue
            for one in (self.patterns[index] for index in members):
                if not one.by_block:
                    return None
                glances.append(Glance(one.literals, one.pattern))
        return tuple(glances)

    def _make_groups(self, wanted: FrozenSet[int]) -> Iterator[Group]:
        left = set(wanted)
        parts = [tuple(index for index in part if index in wanted) for part in self._parts]
        while parts:
            members = parts.pop()
            if self._is_worth_joining(members):
                joined = self._join(members)
                if joined is None:
                    half = len(members) // 2
                    parts += [members[:half], members[half:]]
                else:
                    left -= set(members)
                    yield Group(members, joined, self._common_probes(members))
        if left:
            yield Group(tuple(sorted(left)), None)

    def _common_probes(self, members: Tuple[int, ...]) -> Tuple[Pattern, ...]:
        literals = [self.patterns[index].literals for index in members]
        return compile_probes([one for each in literals for one in each]) if all(literals) else ()

    def _is_worth_joining(self, members: Tuple[int, ...]) -> bool:
        literal, pattern = self.costs.literal, self.costs.pattern
        apart = sum(literal if self.patterns[one].probes else pattern for one in members)
        return len(members) > 1 and apart > literal + pattern

    def _join(self, members: Tuple[int, ...]) -> Optional[Joined]:
        """Join patterns; None where they are too large for one."""
        if members in self._joined:
            self._joined.move_to_end(members)
            return self._joined[members]
        try:
            joined: Optional[Joined] = Joined([self.patterns[index] for index in members])
        except TooLarge:
            joined = None
        self._joined[members] = joined
        if len(self._joined) > _KEPT_JOINED:
            self._joined.popitem(last=False)
        return joined


class SomeLines:
    """Looks in one file's blocks for patterns that some line is to match; `open` are still looked for."""

    def __init__(self, patterns: PatternSet, wanted: FrozenSet[int], check: Callable[[], None]) -> None:
        self.open = set(wanted)
        self._set = patterns
        self._patterns = patterns.patterns
        self._costs = patterns.costs
        self._check = check
        self._groups = patterns.choose(wanted).groups

    def search(self, block: Block) -> Set[int]:
        """Return the patterns that match some line of a block; they are open no more."""
        found: Set[int] = set()
        groups = []
        for group in self._groups:
            members = tuple(index for index in group.members if index in self.open)
            if group.joined is None or len(members) < 2:  # noqa: PLR2004  (one is not looked for together)
                found.update(index for index in members if self._is_in(index, block))
                groups.append(group)
            else:
                groups.append(self._search_joined(group, members, block, found))
        self.open -= found
        self._groups = tuple(groups)
        return found

    def _search_joined(self, group: Group, members: Tuple[int, ...], block: Block, found: Set[int]) -> Group:
        """Add to `found` which members of a group match in a block; return how to look for the others."""
        if _holds_none(group.probes, block):
            return group
        for piece in pieces(block, self._costs.piece_bytes):
            self._check()
            if _holds_none(group.probes, piece):
                continue
            began = self._set.clock()
            group, members, lines = self._search_piece(group, members, piece, found)
            if not members:
                break
            if group.joined is not None and self._is_slow(group, piece, lines, self._set.clock() - began):
                self._set.split(group)
                group = Group(members, None)
            if group.joined is None:
                rest = Block(block.text, piece.start, block.end)
                found.update(index for index in members if self._is_in(index, rest))
                break
        return group

    def _search_piece(
        self, group: Group, members: Tuple[int, ...], piece: Block, found: Set[int]
    ) -> Tuple[Group, Tuple[int, ...], int]:
        """Search until few are left; return how to look for these, these, and how many lines matched."""
        start, lines = piece.start, 0
        while start <= piece.end and group.joined is not None and members:
            match = group.joined.pattern.search(piece.text, start, piece.end)
            if match is None:
                break
            line = line_around(piece, match.start())
            start, lines = line.end + 1, lines + 1
            which = group.joined.which(line.text[line.start : line.end])
            matching = {group.members[index] for index in which}
            left = tuple(index for index in members if index not in matching)
            found |= matching
            if left != group.members:
                group = self._set.narrow(group, left, in_vain=left == members)
            members = left
        return group, members, lines

    def _is_slow(self, group: Group, piece: Block, lines: int, spent_s: float) -> bool:
        costs, searched = self._costs, piece.end - piece.start
        if lines > costs.measured_lines or searched < costs.measured_bytes:
            return False
        return spent_s * costs.joined_bytes_per_s > searched * len(group.members)

    def _is_in(self, index: int, block: Block) -> bool:
        """Tell whether one pattern matches some line of a block."""
        one = self._patterns[index]
        if not one.by_block:
            return self._is_in_lines(one.pattern, block)
        text, start, end = block
        # To find which of several comes first, each would go over the whole block for every line.
        for _ in range(self._costs.pointed_lines if len(one.probes) == 1 else 0):
            match = one.probes[0].search(text, start, end)
            if match is None:
                return False
            line = line_around(block, match.start())
            if one.pattern.search(*line) is not None:
                return True
            start = line.end + 1
        for piece in pieces(Block(text, start, end), self._costs.piece_bytes):
            self._check()
            if not _holds_none(one.probes, piece) and one.pattern.search(*piece) is not None:
                return True
        return False

    def _is_in_lines(self, pattern: Pattern, block: Block) -> bool:
        for text, start, end in lines_of(block):
            self._check()
            if pattern.search(text[start:end]) is not None:
                return True
        return False


def _holds_none(probes: Tuple[Pattern, ...], block: Block) -> bool:
    """Tell whether there are probes, and none of them is found."""
    return bool(probes) and all(probe.search(*block) is None for probe in probes)


def pieces(block: Block, most_bytes: int) -> Iterator[Block]:
    """Yield a block as blocks none of which is much longer than `most_bytes`."""
    text, start, end = block
    while start <= end:
        stop = end
        if end - start > most_bytes:
            stop = text.rfind(b"\n", start, start + most_bytes)
            if stop < 0:
                stop = text.find(b"\n", start + most_bytes, end)
                stop = end if stop < 0 else stop
        yield Block(text, start, stop)
        start = stop + 1


def lines_of(block: Block) -> Iterator[Block]:
    """Yield each line of a block, without its end."""
    text, start, end = block
    while start <= end:
        stop = text.find(b"\n", start, end)
        stop = end if stop < 0 else stop
        yield Block(text, start, stop)
        start = stop + 1


def line_around(block: Block, place: int) -> Block:
    """Return the line of a block that holds a place; a newline belongs to the line it ends."""
    text, start, end = block
    stop = text.find(b"\n", place, end)
    return Block(text, max(text.rfind(b"\n", start, place) + 1, start), end if stop < 0 else stop)
