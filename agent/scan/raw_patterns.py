r"""Byte strings and expressions looked for in raw bytes that go by, with the places where they are.

Rules:

* A match that goes across two pieces is found as one within a piece: the end of what was searched is
  searched again with what follows. Of an expression that holds for matches of at most `REACH_BYTES`; a longer
  one may be told shorter, or twice.
* Expressions are RE2 on bytes, as for contents of files (`agent.scan.patterns`), except that a line's end is
  a byte as any other for classes such as `[^x]`. `^` and `$` are a line's ends. One that can match nothing at
  all, or asks for the beginning of a text (`\A`), is refused: it means nothing here.
* After `most` matches of a pattern it is looked for no more.
"""

import contextlib
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

from agent.scan.literals import required_literals
from agent.scan.patterns import Pattern, join_bytes, require_engine, require_pattern
from protocol.errors import InvalidInput

REACH_BYTES = 64 << 10
# What `^` and `\b` look back at.
_BEFORE_BYTES = 16
_ENDS = ("\\A", "\\z")


class RawPattern(NamedTuple):
    """A byte string, or an expression where `compiled` is there; `text` is how it was written.

    Where there are `glances`, one of them is found wherever the pattern is: RE2 jumps from a first byte of a
    text to the next twice as quickly as Python finds one.
    """

    text: str
    string: bytes = b""
    compiled: Optional[Any] = None
    glances: Tuple[Pattern, ...] = ()

    def may_be_in(self, window: bytes, at: int) -> bool:
        """Tell, where it costs least, whether it can be found from a place on."""
        return not self.glances or any(one.search(window, at) is not None for one in self.glances)


def compile_string(text: str) -> RawPattern:
    """Make a pattern of a byte string in hexadecimal."""
    string = bytes.fromhex(text)
    return RawPattern(text, string=string, glances=_glances((string,)))


def _glances(literals: Sequence[bytes]) -> Tuple[Pattern, ...]:
    made = [join_bytes((literal,)) for literal in literals]
    return tuple(one for one in made if one is not None) if all(made) else ()


def compile_expression(expression: str) -> RawPattern:
    """Make a pattern of an expression.

    Raises:
        InvalidInput: `unsupported`, where there is no engine.
        ValueError: it means nothing on raw bytes.

    """
    require_engine("contents")
    import re2  # noqa: PLC0415  (this file must import where no wheel of re2 exists)

    if any(mark in expression for mark in _ENDS):
        raise ValueError(f"contents: {expression!r} asks for the beginning or end of a text")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 8 << 20
    if expression.isascii():
        options.encoding = re2.Options.Encoding.LATIN1
    compiled = re2.compile(("(?m)" + expression).encode("utf-8", "surrogatepass"), options)
    found = [compiled.search(text) for text in (b"", b"\n")]
    if any(one is not None and one.start() == one.end() for one in found):
        raise ValueError(f"contents: {expression!r} matches nothing at all, and so everywhere")
    return RawPattern(expression, compiled=compiled, glances=_glances(required_literals(expression)))


def require_expression(expression: str) -> None:
    """Refuse an expression that means nothing on raw bytes; without RE2 nothing is said.

    Raises:
        ValueError: with what is wrong.

    """
    require_pattern(expression, "contents", on_lines=True)
    with contextlib.suppress(InvalidInput):
        compile_expression(expression)


class Places(NamedTuple):
    """Where a pattern was found: offsets in bytes, in order; `is_cut` where it was looked for no further."""

    pattern: RawPattern
    offsets: List[int]
    is_cut: bool


class RawSearch:
    """Looks for patterns in bytes that come in pieces, from an offset on."""

    def __init__(
        self, patterns: Sequence[RawPattern], *, most: int, check: Callable[[], None] = lambda: None
    ) -> None:
        self._patterns = patterns
        self._most = most
        self._check = check
        self._offsets: List[List[int]] = [[] for _ in patterns]
        # From where on each pattern is to be looked for: behind its last match, or behind what was searched.
        self._from = [0] * len(patterns)
        self._open = list(range(len(patterns)))
        self._kept = b""
        self._base = 0
        self._reach = max(
            (REACH_BYTES if one.compiled is not None else len(one.string) - 1 for one in patterns), default=0
        )

    def begin(self, offset: int) -> None:
        """Begin at an offset, at first and behind bytes that could not be read."""
        self.finish()
        self._kept, self._base = b"", offset
        self._from = [max(place, offset) for place in self._from]

    def is_open(self) -> bool:
        """Tell whether there is anything left to look for."""
        return bool(self._open)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if not self._open:
            return
        window = self._kept + data
        self._search(window, max(0, len(window) - self._reach))
        keep = min(len(window), self._reach + _BEFORE_BYTES)
        self._base += len(window) - keep
        self._kept = window[len(window) - keep :]

    def finish(self) -> None:
        """Take the end: what was held back for what might follow is searched too."""
        if self._kept:
            self._search(self._kept, len(self._kept))
            self._base += len(self._kept)
            self._kept = b""

    def places(self) -> List[Places]:
        """Return where each pattern was found."""
        return [
            Places(pattern, offsets, number not in self._open and len(offsets) >= self._most)
            for number, (pattern, offsets) in enumerate(zip(self._patterns, self._offsets))
        ]

    def _search(self, window: bytes, end: int) -> None:
        """Look for matches that begin before `end`."""
        for number in list(self._open):
            pattern = self._patterns[number]
            at = max(0, self._from[number] - self._base)
            if pattern.may_be_in(window, at):
                if pattern.compiled is None:
                    at = self._find_string(number, window, at)
                else:
                    at = self._find_expression(number, window, at, end)
            # What was searched in vain is not searched again, but its end.
            self._from[number] = self._base + max(at, min(end, len(window)))
            if len(self._offsets[number]) >= self._most:
                self._open.remove(number)

    def _find_string(self, number: int, window: bytes, at: int) -> int:
        string, offsets = self._patterns[number].string, self._offsets[number]
        while len(offsets) < self._most:
            found = window.find(string, at)
            if found < 0:
                break
            self._check()
            offsets.append(self._base + found)
            at = found + 1
        return max(at, len(window) - len(string) + 1)

    def _find_expression(self, number: int, window: bytes, at: int, end: int) -> int:
        search, offsets = self._patterns[number].compiled.search, self._offsets[number]  # type: ignore[union-attr]
        while len(offsets) < self._most:
            found = search(window, at)
            if found is None or found.start() >= end:
                break
            self._check()
            offsets.append(self._base + found.start())
            at = max(found.end(), found.start() + 1)
        return at
