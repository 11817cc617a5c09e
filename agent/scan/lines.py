r"""Which patterns match the lines of a file, told while its bytes go by.

A line ends at `\n`; one `\r` before that, or at the end of the file, is not part of it. A file that ends in a
newline has no further, empty line. Lines may have any length, and a pattern sees a line whole as long as it
is at most `MAX_LINE_BYTES`; a longer one is matched in pieces that overlap by `OVERLAP_BYTES`, which is said
(`is_cut`): memory stays bounded whatever the file.

Bytes are searched where they are: what is copied is the line that goes across two readings, and what holds
`\r\n`.
"""

from typing import AbstractSet, Callable, Dict, FrozenSet, List, NamedTuple, Set, Tuple

from agent.scan.literals import probe_of
from agent.scan.pattern_set import Block, PatternSet, SomeLines, lines_of
from agent.scan.patterns import LinePattern

MAX_LINE_BYTES = 16 << 20
OVERLAP_BYTES = 64 << 10
# What is not large is looked through for a literal by Python itself: no pattern of RE2's begins as quickly.
_GLANCED_BYTES = 16 << 10


class LineAnswers(NamedTuple):
    """What is known of each pattern: whether some line matches, and whether every line does."""

    some: Dict[int, bool]
    every: Dict[int, bool]


class LineQuestion:
    """What is asked of the lines of every file, for one choice of patterns, by their index in the plan.

    Of a pattern in `some` it is asked whether any line matches; of one in `every`, whether all lines do.
    """

    def __init__(
        self,
        patterns: PatternSet,
        *,
        some: FrozenSet[int],
        every: FrozenSet[int],
        check: Callable[[], None],
        max_line_bytes: int = MAX_LINE_BYTES,
        overlap_bytes: int = OVERLAP_BYTES,
    ) -> None:
        self.patterns = patterns
        self.some = some
        self.every = every
        self.check = check
        self.max_line_bytes = max_line_bytes
        self.overlap_bytes = overlap_bytes
        self.nothing = LineAnswers(dict.fromkeys(some, False), {})
        # Most searches ask for one expression that requires a literal: its rarest byte, and it.
        self._literals: Tuple[Tuple[bytes, bytes], ...] = ()
        if len(some) == 1 and not every:
            literals = patterns.patterns[next(iter(some))].literals
            self._literals = tuple((probe_of(literal)[:1], literal) for literal in literals)

    def begin(self) -> "LineScan":
        """Begin with a file that comes in pieces."""
        return LineScan(self)

    def answer(self, data: bytes) -> LineAnswers:
        """Answer for a file whose bytes are all at hand; the answers are shared, and only to be read."""
        if self.is_nowhere(data):
            return self.nothing
        scan = LineScan(self)
        scan.take_whole(data)
        return scan.answers

    def is_nowhere(self, data: bytes) -> bool:
        r"""Tell of a file, where it costs least, that no line matches: most files are done with here.

        Literals hold no line end, so where one is in the bytes it is in a line. Expressions are asked of the
        bytes as they are, with an empty line too many at the end, unless a `\r` may be part of a line's end.
        """
        if self._literals and len(data) <= _GLANCED_BYTES:
            for rarest, literal in self._literals:  # noqa: SIM110  (twice as quick, for every file)
                if rarest in data and literal in data:
                    return False
            return True
        glances = self.patterns.choose(self.some).glances
        if self.every or glances is None or len(data) > _GLANCED_BYTES:
            return False
        has_cr = None
        for literals, pattern in glances:
            if literals:
                if any(literal in data for literal in literals):
                    return False
                continue
            has_cr = b"\r" in data if has_cr is None else has_cr
            if has_cr or pattern.search(data) is not None:
                return False
        return True


class LineScan:
    """One file's lines; an answer that is still open is missing in `answers` until `finish`."""

    def __init__(self, question: LineQuestion) -> None:
        self.answers = LineAnswers({}, {})
        self.is_cut = False
        self._question = question
        self._some = SomeLines(question.patterns, question.some, question.check)
        self._open_every: Set[int] = set(question.every)
        self._pending: List[bytes] = []
        self._pending_bytes = 0
        self._has_lines = False

    def is_open(self) -> bool:
        """Tell whether further bytes can change an answer."""
        return bool(self._some.open or self._open_every)

    def keep_only(self, *, some: AbstractSet[int], every: AbstractSet[int]) -> None:
        """Stop asking for patterns that nobody needs any more."""
        self._some.open &= some
        self._open_every &= every

    def take_whole(self, data: bytes) -> None:
        """Take a file in one piece, and its end."""
        if data:
            self._match_lines(data, 0, len(data) - data.endswith(b"\n"))
        self.finish()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if not self.is_open():
            return
        end = data.rfind(b"\n")
        if end < 0:
            self._hold(data)
            return
        start = 0
        if self._pending:
            start = data.find(b"\n") + 1
            self._pending.append(data[: start - 1])
            line = b"".join(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            self._match_lines(line, 0, len(line))
        if start <= end:
            self._match_lines(data, start, end)
        self._hold(data[end + 1 :])

    def finish(self) -> None:
        """Take the end of the file: what is still open is decided now."""
        if self._pending and self.is_open():
            rest = b"".join(self._pending)
            self._match_lines(rest, 0, len(rest))
        self._pending.clear()
        self.answers.some.update(dict.fromkeys(self._some.open, False))
        self.answers.every.update(dict.fromkeys(self._open_every, self._has_lines))
        self._some.open.clear()
        self._open_every.clear()

    def _hold(self, data: bytes) -> None:
        """Keep the beginning of a line until its end comes; one beyond the limit is matched as it stands."""
        if not data:
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes > self._question.max_line_bytes:
            piece = b"".join(self._pending)
            self.is_cut = True
            self._match_lines(piece, 0, len(piece))
            kept = piece[-self._question.overlap_bytes :]
            self._pending = [kept]
            self._pending_bytes = len(kept)

    def _match_lines(self, text: bytes, start: int, end: int) -> None:
        """Match whole lines, the last of which ends at `end`, without its newline."""
        self._has_lines = True
        if text.find(b"\r", start, end) >= 0:
            text = text[start:end].replace(b"\r\n", b"\n")
            # Cut off rather than left out of the range: `$` looks at what follows.
            text = text[:-1] if text.endswith(b"\r") else text
            start, end = 0, len(text)
        block = Block(text, start, end)
        if self._some.open:
            self.answers.some.update(dict.fromkeys(self._some.search(block), True))
        for index in sorted(self._open_every):
            if not self._is_each(self._question.patterns.patterns[index], block):
                self.answers.every[index] = False
                self._open_every.discard(index)

    def _is_each(self, pattern: LinePattern, block: Block) -> bool:
        search, by_block = pattern.pattern.search, pattern.by_block
        for text, start, end in lines_of(block):
            self._question.check()
            match = search(text, start, end) if by_block else search(text[start:end])
            if match is None:
                return False
        return True
