r"""Regular expressions of a search: RE2 only, so that no pattern can hang an agent.

Rules:

* Python's own `re` never meets a pattern from an action: it backtracks.
* File names and modes are text: an expression matches characters. A name that is not UTF-8 is matched byte by
  byte instead.
* Contents are bytes: `.` is one byte and `\xff` is that byte, so that binaries are searched whole. An
  expression that itself holds a character beyond ASCII is matched as UTF-8, or a class such as `[éè]` would
  mean its bytes.
* Without google-re2 on the endpoint nothing is guessed: `require_engine` refuses.

Source: RE2's re2.h (`never_nl`: "never match \n, even if it is in regexp") and its syntax page.
"""

from functools import lru_cache
from typing import Any, List, NamedTuple, Optional, Protocol, Tuple

from protocol.errors import InvalidInput

# What can match across a line's end in spite of never_nl and (?m), or ask where the text begins or ends.
# Found in a pattern (also when merely quoted in it) they only cost speed: it goes line by line.
_NEEDS_LINES = ("\\A", "\\z", "\\C")


class Pattern(Protocol):
    """What is used of a compiled expression."""

    def search(self, text: bytes) -> Optional[object]:
        """Return a match, or None."""


def split_inverse(value: str) -> Tuple[str, bool]:
    """Split a leading `!` off an expression; a lone `!` is an expression itself, as in the ancestor."""
    if len(value) > 1 and value.startswith("!"):
        return value[1:], True
    return value, False


@lru_cache(maxsize=1)
def _engine() -> Optional[Any]:
    try:
        import re2  # noqa: PLC0415  (this file must import where no wheel of re2 exists)
    except ImportError:
        return None
    return re2


def require_engine(what: str) -> None:
    """Refuse a search that needs regular expressions where there is no engine for them.

    Raises:
        InvalidInput: `unsupported`.

    """
    if _engine() is None:
        raise InvalidInput(
            "unsupported", f"{what} needs google-re2, which has no build for this endpoint's Python"
        )


def _compile(expression: str, *, as_bytes: bool, never_newline: bool = False) -> Pattern:
    engine = _engine()
    if engine is None:
        raise InvalidInput("unsupported", "google-re2 is not there")
    options = engine.Options()
    options.log_errors = False
    options.never_nl = never_newline
    if as_bytes:
        options.encoding = engine.Options.Encoding.LATIN1
    compiled: Pattern = engine.compile(expression.encode("utf-8", "surrogatepass"), options)
    return compiled


def require_pattern(expression: str, where: str) -> None:
    """Refuse an expression that RE2 does not compile; where RE2 is missing nothing is said.

    Raises:
        ValueError: with the expression and what is wrong with it.

    """
    engine = _engine()
    if engine is None:
        return
    try:
        _compile(expression, as_bytes=expression.isascii())
    except engine.error as error:
        reason = error.args[0] if error.args else "not an expression"
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"{where}: {expression!r} is not a regular expression: {text}") from None


class TextPattern:
    """An expression on names: characters where the name is UTF-8, bytes where it is not."""

    def __init__(self, expression: str) -> None:
        self._text = _compile(expression, as_bytes=False)
        self._bytes = _compile(expression, as_bytes=True)

    def is_in(self, name: bytes) -> bool:
        """Tell whether the expression matches somewhere in the name."""
        if not name.isascii():
            try:
                name.decode("utf-8")
            except UnicodeDecodeError:
                return self._bytes.search(name) is not None
        return self._text.search(name) is not None


class LinePattern(NamedTuple):
    """An expression on lines. `block` searches many lines at once; None where that is not exact."""

    expression: str
    line: Pattern
    block: Optional[Pattern]


def compile_lines(expression: str) -> LinePattern:
    r"""Compile an expression that is matched line by line.

    Over a block of whole lines `(?m)` puts `^` and `$` at each line's ends, and RE2's `never_nl` keeps every
    class and literal from matching a newline, so that searching the block is the same as searching each line.
    """
    as_bytes = expression.isascii()
    line = _compile(expression, as_bytes=as_bytes)
    needs_lines = any(mark in expression for mark in _NEEDS_LINES) or _sets_multiline(expression)
    block = None if needs_lines else _compile("(?m)" + expression, as_bytes=as_bytes, never_newline=True)
    return LinePattern(expression, line, block)


def _sets_multiline(expression: str) -> bool:
    """Tell whether an inline flag group, such as `(?-m)` or `(?i-m:`, may touch the multi-line flag."""
    groups: List[str] = expression.split("(?")[1:]
    for group in groups:
        for character in group:
            if character in ":)":
                break
            if character == "m":
                return True
            if character not in "imsU-":
                break
    return False
