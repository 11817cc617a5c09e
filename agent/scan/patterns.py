r"""Regular expressions of a search: RE2 only, so that no pattern can hang an agent.

Rules:

* Python's own `re` never meets a pattern from an action: it backtracks.
* File names and modes are text: an expression matches characters. A name that is not UTF-8 is matched byte by
  byte instead.
* Contents are bytes: `.` is one byte and `\xff` is that byte, so that binaries are searched whole. An
  expression that itself holds a character beyond ASCII is matched as UTF-8, or a class such as `[éè]` would
  mean its bytes.
* Without google-re2 on the endpoint nothing is guessed: `require_engine` refuses.
* RE2's time is linear in the text, but may be so in the size of the program too, where its automaton needs
  more memory than it has: a program has a limit, and so has that memory.

Source: RE2's re2.h (`never_nl`: "never match \n, even if it is in regexp") and its syntax page.
"""

import contextlib
from functools import lru_cache, partial
from typing import Any, Callable, List, NamedTuple, Optional, Protocol, Sequence, Set, Tuple, Union

from agent.scan.literals import common_texts, probe_of, required_literals
from protocol.errors import InvalidInput

# What can match across a line's end in spite of never_nl and (?m), or ask where the text begins or ends.
# Found in a pattern (also when merely quoted in it) they only cost speed: it goes line by line.
_NEEDS_LINES = ("\\A", "\\z", "\\C")
# Instructions of an expression on lines. 16 KiB of alternatives take as many, `\pL{1000}` takes 7,000.
# Hostile text may cost RE2 some nanoseconds for each of them and byte.
MAX_PROGRAM = 20_000
# So many texts are quicker to look for, one after the other, than any expression.
_MOST_PROBES = 3
# What the automaton of one expression, or of many in one, may take before RE2 begins it anew.
_PATTERN_BYTES = 8 << 20
_JOINED_BYTES = 8 << 20


class TooLarge(Exception):
    """Several expressions do not fit into one program."""


class Found(Protocol):
    """Where an expression was found."""

    def start(self) -> int:
        """Return the place of its first byte."""

    def end(self) -> int:
        """Return the place behind its last byte."""

    def span(self) -> Tuple[int, int]:
        """Return both."""


class Pattern(Protocol):
    """What is used of a compiled expression."""

    def search(
        self,
        text: Union[bytes, bytearray, memoryview],
        pos: Optional[int] = None,
        endpos: Optional[int] = None,
    ) -> Optional[Found]:
        """Return the first match, or None; what stands before `pos` and behind `endpos` is still seen."""


# Both ends, first of all, of what is found in these bytes from one place to another; negative if nothing is.
Finder = Callable[[bytes, int, int], Sequence[Tuple[int, int]]]


def _finder(pattern: Any) -> Finder:
    """Return what finds matches by the RE2 within google-re2's object.

    The layer of Python around it makes a generator and an object for each match, and so takes twice as long;
    it is used where a version has another inside.
    """
    try:
        find, anywhere = pattern._regexp.Match, _require_engine()._re2.RE2.Anchor.UNANCHORED  # noqa: SLF001
    except AttributeError:
        return _plain_finder(pattern)
    return partial(find, anywhere)


def _plain_finder(pattern: Pattern) -> Finder:
    def find(text: bytes, start: int, end: int) -> Sequence[Tuple[int, int]]:
        found = pattern.search(text, start, end)
        return ((-1, -1),) if found is None else (found.span(),)

    return find


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
            "unsupported",
            f"{what} needs google-re2, which has no build for this endpoint's Python;"
            " globs in paths and byte strings (bytes) do not",
        )


def _require_engine() -> Any:
    engine = _engine()
    if engine is None:
        raise InvalidInput("unsupported", "google-re2 is not there")
    return engine


def _options(*, as_bytes: bool, never_newline: bool, memory_bytes: int) -> Any:
    engine = _require_engine()
    options = engine.Options()
    options.log_errors = False
    options.never_nl = never_newline
    # Nobody asks what a group held; without groups a match needs no second pass.
    options.never_capture = True
    options.max_mem = memory_bytes
    if as_bytes:
        options.encoding = engine.Options.Encoding.LATIN1
    return options


def _compile(
    expression: str, *, as_bytes: bool, never_newline: bool = False, memory_bytes: int = _PATTERN_BYTES
) -> Any:
    options = _options(as_bytes=as_bytes, never_newline=never_newline, memory_bytes=memory_bytes)
    return _require_engine().compile(expression.encode("utf-8", "surrogatepass"), options)


def require_pattern(expression: str, where: str, *, on_lines: bool = False) -> None:
    """Refuse an expression that RE2 does not compile; without RE2 nothing is said.

    One that is matched on lines must not be too large either; what else there is to match is short.

    Raises:
        ValueError: with the expression and what is wrong with it.

    """
    engine = _engine()
    if engine is None:
        return
    try:
        programs = [
            _compile(expression, as_bytes=as_bytes).programsize
            for as_bytes in ((expression.isascii(),) if on_lines else (True, False))
        ]
    except engine.error as error:
        reason = error.args[0] if error.args else "not an expression"
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"{where}: {expression!r} is not a regular expression: {text}") from None
    if on_lines and max(programs) > MAX_PROGRAM:
        # The expression comes last: it is the part that may be cut where this is shown.
        limit = f"{max(programs)} instructions, at most {MAX_PROGRAM}"
        raise ValueError(f"{where}: an expression is too large ({limit}): {expression!r}")


class TextPattern:
    """An expression on names: characters where the name is UTF-8, bytes where it is not."""

    def __init__(self, expression: str) -> None:
        self._text: Pattern = _compile(expression, as_bytes=False)
        self._bytes: Pattern = _compile(expression, as_bytes=True)
        self._lines: Optional[Finder] = None
        if _is_block_safe(expression) and "\\Q" not in expression:
            # With all of its line each match is the only one in it, and all come in one go.
            whole = f"(?m)^.*(?:{expression}).*$"
            with contextlib.suppress(_require_engine().error):  # where that makes it too large
                self._lines = _finder(_compile(whole, as_bytes=False, never_newline=True))
        self._literals = required_literals(expression) if self._lines is not None else ()

    def is_in(self, name: bytes) -> bool:
        """Tell whether the expression matches somewhere in the name."""
        if not name.isascii():
            try:
                name.decode("utf-8")
            except UnicodeDecodeError:
                return self._bytes.search(name) is not None
        return self._text.search(name) is not None

    def among(self, names: Sequence[bytes], block: bytes) -> Set[bytes]:
        """Return those of the names that match; `block` is the names, with a line end between them.

        All are searched at once, as lines are (`compile_lines`), where no name holds a line end and all are
        UTF-8; else each by itself.
        """
        if self._literals and not any(literal in block for literal in self._literals):
            return set()
        if self._lines is None or block.count(b"\n") >= len(names) or not _is_text(block):
            return {name for name in names if self.is_in(name)}
        found = set()
        find, at, size = self._lines, 0, len(block)
        while at <= size:
            start, end = find(block, at, size)[0]
            if start < 0:
                break
            found.add(block[start:end])
            at = end if end > start else end + 1
        return found


class LinePattern(NamedTuple):
    """An expression on lines.

    With `by_block` it is searched in many lines at once, and the rest is as if in each of them; otherwise it
    must be given one line, cut out of its surroundings. A matching line holds one of the `literals`, if there
    are any, and one of the `probes` is found in it, if there are any.
    """

    expression: str
    pattern: Pattern
    by_block: bool
    literals: Tuple[bytes, ...] = ()
    probes: Tuple[Pattern, ...] = ()

    def can_be_joined(self) -> bool:
        r"""Tell whether the expression means the same within a group; an open `\Q` would quote its end."""
        return self.by_block and "\\Q" not in self.expression


def compile_lines(expression: str) -> LinePattern:
    r"""Compile an expression that is matched line by line.

    Over a block of whole lines `(?m)` puts `^` and `$` at each line's ends, and RE2's `never_nl` keeps every
    class and literal from matching a newline, so that searching the block is the same as searching each line.
    """
    as_bytes = expression.isascii()
    if not _is_block_safe(expression):
        return LinePattern(expression, _compile(expression, as_bytes=as_bytes), by_block=False)
    pattern = _compile("(?m)" + expression, as_bytes=as_bytes, never_newline=True)
    literals = required_literals(expression)
    probes = compile_probes(literals)
    return LinePattern(expression, pattern, by_block=True, literals=literals, probes=probes)


def compile_probes(literals: Sequence[bytes]) -> Tuple[Pattern, ...]:
    """Compile what is found, one of it, wherever one of the literals is; nothing where that takes too many.

    RE2 jumps from one first byte of a literal to the next: the rarer that is, the better.
    """
    texts = tuple(literals) if len(literals) <= _MOST_PROBES else common_texts(literals, _MOST_PROBES)
    return tuple(_compile(_quote(probe_of(text)), as_bytes=True) for text in texts)


class RawPattern(NamedTuple):
    """An expression on bytes that are no lines; one of the `probes` is found wherever it matches, if any."""

    pattern: Pattern
    probes: Tuple[Pattern, ...]


def require_raw_pattern(expression: str, where: str) -> None:
    r"""Refuse an expression that makes no sense on raw bytes that are looked at in pieces.

    Such ask where the text begins or ends (`\A`, `\z`, or `^` without lines), or match nothing at all, which
    is everywhere.

    Raises:
        ValueError: with the expression and what is wrong with it.

    """
    require_pattern(expression, where, on_lines=True)
    if not _is_block_safe(expression):
        raise ValueError(f"{where}: {expression!r}: \\A, \\z, \\C and the flag m mean nothing here")
    if _engine() is not None and compile_raw(expression).pattern.search(b"") is not None:
        raise ValueError(f"{where}: {expression!r} matches nothing at all, so it would match everywhere")


def compile_raw(expression: str) -> RawPattern:
    """Compile an expression on raw bytes: a match may span lines, `^` and `$` are the ends of one."""
    pattern = _compile("(?m)" + expression, as_bytes=expression.isascii())
    return RawPattern(pattern, compile_probes(required_literals(expression)))


def join_raw(expressions: Sequence[str]) -> Optional[Pattern]:
    """Compile expressions on raw bytes into one that is found where any is; None where there is no way to."""
    engine = _require_engine()
    if any("\\Q" in one for one in expressions) or len({one.isascii() for one in expressions}) != 1:
        return None
    joined = "(?m)" + "|".join(f"(?:{one})" for one in expressions)
    try:
        compiled: Pattern = _compile(joined, as_bytes=expressions[0].isascii(), memory_bytes=_JOINED_BYTES)
    except engine.error:
        return None
    engine.purge()
    return compiled


class Joined:
    """Several expressions as one, which is found where any of them is."""

    def __init__(self, patterns: Sequence[LinePattern]) -> None:
        """Compile them; all must be such as can be joined, and either all ASCII or none.

        Raises:
            TooLarge: where one program does not hold them all.

        """
        self._patterns = patterns
        self._as_bytes = patterns[0].expression.isascii()
        joined = "|".join(f"(?:{one.expression})" for one in patterns)
        engine = _require_engine()
        try:
            self.pattern: Pattern = _compile(
                f"(?m){joined}", as_bytes=self._as_bytes, never_newline=True, memory_bytes=_JOINED_BYTES
            )
        except engine.error as error:
            raise TooLarge from error
        # re2 keeps the last 128 that it compiled; these are kept, and given up, by whoever asked for them.
        engine.purge()
        self._set: Optional[Any] = None
        self._has_set = True

    def which(self, line: bytes) -> List[int]:
        """Return which of the expressions match a line that at least one of them matches, by their order."""
        if self._set is None and self._has_set:
            self._set = self._make_set()
            self._has_set = self._set is not None
        # An empty answer cannot be: it is what a set gives whose automaton ran out of memory.
        found: Sequence[int] = (self._set.Match(line) if self._set is not None else None) or ()
        return list(found) or [
            index for index, one in enumerate(self._patterns) if one.pattern.search(line) is not None
        ]

    def _make_set(self) -> Optional[Any]:
        """Return RE2's set of them; None where that would need more memory than the joined expression."""
        options = _options(as_bytes=self._as_bytes, never_newline=True, memory_bytes=_JOINED_BYTES)
        engine = _require_engine()
        made = engine.Set.SearchSet(options)
        for one in self._patterns:
            made.Add(f"(?m){one.expression}".encode("utf-8", "surrogatepass"))
        try:
            made.Compile()
        except engine.error:
            return None
        return made


def join_bytes(strings: Sequence[bytes]) -> Optional[Pattern]:
    """Compile byte strings into an expression that is found where any is; None where there is no way to."""
    engine = _engine()
    if engine is None:
        return None
    joined = "|".join(_quote(string) for string in strings)
    try:
        compiled: Pattern = _compile(joined, as_bytes=True, memory_bytes=_JOINED_BYTES)
    except engine.error:
        return None
    engine.purge()
    return compiled


def _quote(string: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in string)


def _is_text(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_block_safe(expression: str) -> bool:
    """Tell whether an expression can be searched in many lines at once."""
    return not (any(mark in expression for mark in _NEEDS_LINES) or _sets_multiline(expression))


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
