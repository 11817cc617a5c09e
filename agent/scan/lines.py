r"""Which patterns match the lines of a file, told while its bytes go by.

A line ends at `\n`; one `\r` before that, or at the end of the file, is not part of it. A file that ends in a
newline has no further, empty line. Lines may have any length, and a pattern sees a line whole as long as it
is at most `MAX_LINE_BYTES`; a longer one is matched in pieces that overlap by `OVERLAP_BYTES`, which is said
(`is_cut`): memory stays bounded whatever the file.
"""

from typing import Callable, Dict, Iterable, List, Optional, Set, Tuple

from agent.scan.patterns import LinePattern

MAX_LINE_BYTES = 16 << 20
OVERLAP_BYTES = 64 << 10


class LineScan:
    """One file's lines against patterns, given by their index in the plan.

    Of a pattern in `some` it is asked whether any line matches; of one in `every`, whether all lines do. An
    answer that is still open is missing in `found_some` or `found_every` until `finish`.
    """

    def __init__(
        self,
        patterns: Tuple[LinePattern, ...],
        *,
        some: Iterable[int],
        every: Iterable[int],
        check: Callable[[], None],
        max_line_bytes: int = MAX_LINE_BYTES,
        overlap_bytes: int = OVERLAP_BYTES,
    ) -> None:
        self.found_some: Dict[int, bool] = {}
        self.found_every: Dict[int, bool] = {}
        self.is_cut = False
        self._patterns = patterns
        self._open_some: Set[int] = set(some)
        self._open_every: Set[int] = set(every)
        self._check = check
        self._max_line_bytes = max_line_bytes
        self._overlap_bytes = overlap_bytes
        self._pending: List[bytes] = []
        self._pending_bytes = 0
        self._has_lines = False

    def is_open(self) -> bool:
        """Tell whether further bytes can change an answer."""
        return bool(self._open_some or self._open_every)

    def keep_only(self, *, some: Set[int], every: Set[int]) -> None:
        """Stop asking for patterns that nobody needs any more."""
        self._open_some &= some
        self._open_every &= every

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        if not self.is_open():
            return
        end = data.rfind(b"\n")
        if end < 0:
            self._hold(data)
            return
        block = data[:end]
        if self._pending:
            self._pending.append(block)
            block = b"".join(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
        self._match_lines(block)
        self._hold(data[end + 1 :])

    def finish(self) -> None:
        """Take the end of the file: what is still open is decided now."""
        if self._pending:
            self._match_lines(b"".join(self._pending))
            self._pending.clear()
        self.found_some.update(dict.fromkeys(self._open_some, False))
        self.found_every.update(dict.fromkeys(self._open_every, self._has_lines))
        self._open_some.clear()
        self._open_every.clear()

    def _hold(self, data: bytes) -> None:
        """Keep the beginning of a line until its end comes; one beyond the limit is matched as it stands."""
        if not data:
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes > self._max_line_bytes:
            piece = b"".join(self._pending)
            self.is_cut = True
            self._match_lines(piece)
            kept = piece[-self._overlap_bytes :]
            self._pending = [kept]
            self._pending_bytes = len(kept)

    def _match_lines(self, block: bytes) -> None:
        """Match a block of whole lines; its last line stands without its newline."""
        self._has_lines = True
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
            if block.endswith(b"\r"):
                block = block[:-1]
        lines: Optional[List[bytes]] = None
        for index in sorted(self._open_some):
            self._check()
            pattern = self._patterns[index]
            if pattern.block is not None:
                is_found = pattern.block.search(block) is not None
            else:
                lines = block.split(b"\n") if lines is None else lines
                is_found = self._is_any(pattern, lines)
            if is_found:
                self.found_some[index] = True
                self._open_some.discard(index)
        for index in sorted(self._open_every):
            lines = block.split(b"\n") if lines is None else lines
            if not self._is_each(self._patterns[index], lines):
                self.found_every[index] = False
                self._open_every.discard(index)

    def _is_any(self, pattern: LinePattern, lines: List[bytes]) -> bool:
        for line in lines:
            self._check()
            if pattern.line.search(line) is not None:
                return True
        return False

    def _is_each(self, pattern: LinePattern, lines: List[bytes]) -> bool:
        for line in lines:
            self._check()
            if pattern.line.search(line) is None:
                return False
        return True
