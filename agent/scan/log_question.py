"""What is asked of the lines of a log: expressions, a window of time, and values to collect.

Expressions are RE2 (`agent.scan.patterns`), and mean the same on a line of a file and on a message of a
journal, which may hold several lines: one of them must match. A leading `!` leaves out what matches.
"""

from collections import Counter
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from agent.scan.patterns import LinePattern, compile_lines, require_engine, split_inverse

VALUE_BYTES = 256
# Values of one field that are told apart while a log is read; what comes then is counted as others.
MAX_VALUES = 1000
# Where a value is none of those told apart.
OTHERS = None

Values = Tuple[Optional[str], ...]


class Window(NamedTuple):
    """A stretch of time, from `since` up to `until`, in nanoseconds since 1970; None is without an end."""

    since_ns: Optional[int] = None
    until_ns: Optional[int] = None

    @property
    def is_open(self) -> bool:
        """Whether any time lies within."""
        return self.since_ns is None and self.until_ns is None

    def holds(self, time_ns: int) -> bool:
        """Tell whether a time lies within."""
        return (self.since_ns is None or time_ns >= self.since_ns) and (
            self.until_ns is None or time_ns < self.until_ns
        )


class LineFilter:
    """Tells which lines are wanted."""

    def __init__(self, expressions: Sequence[str]) -> None:
        """Compile the expressions.

        Raises:
            InvalidInput: `unsupported`, where there is no engine for them.

        """
        if expressions:
            require_engine("a log's matches, names, units or identifiers")
        split = [split_inverse(expression) for expression in expressions]
        self._wanted = [compile_lines(expression) for expression, is_inverse in split if not is_inverse]
        self._unwanted = [compile_lines(expression) for expression, is_inverse in split if is_inverse]

    @property
    def is_open(self) -> bool:
        """Whether every line is wanted."""
        return not (self._wanted or self._unwanted)

    def admits(self, text: bytes) -> bool:
        """Tell whether a text of one or more lines is wanted."""
        if self._wanted and not any(_is_in(pattern, text) for pattern in self._wanted):
            return False
        return not any(_is_in(pattern, text) for pattern in self._unwanted)

    def lines(self, text: bytes) -> Iterator[Tuple[int, int]]:
        """Yield where the wanted lines of a text lie, in order; no line end may stand at its end."""
        if not self._wanted:
            found = _all_lines(text)
        elif len(self._wanted) == 1:
            found = _lines_of(self._wanted[0], text)
        else:
            places: Dict[int, int] = {}
            for pattern in self._wanted:
                places.update(_lines_of(pattern, text))
            found = iter(sorted(places.items()))
        for start, end in found:
            if not self._unwanted or not any(_is_in(one, text[start:end]) for one in self._unwanted):
                yield start, end


def _all_lines(text: bytes) -> Iterator[Tuple[int, int]]:
    start = 0
    while True:
        end = text.find(b"\n", start)
        if end < 0:
            yield start, len(text)
            return
        yield start, end
        start = end + 1


def _lines_of(pattern: LinePattern, text: bytes) -> Iterator[Tuple[int, int]]:
    if not pattern.by_block:
        search = pattern.pattern.search
        yield from ((start, end) for start, end in _all_lines(text) if search(text[start:end]) is not None)
        return
    if pattern.literals and not any(literal in text for literal in pattern.literals):
        return
    at = 0
    while at <= len(text):
        found = pattern.pattern.search(text, at)
        if found is None:
            return
        place = found.start()
        end = text.find(b"\n", place)
        end = len(text) if end < 0 else end
        yield text.rfind(b"\n", 0, place) + 1, end
        at = end + 1


def _is_in(pattern: LinePattern, text: bytes) -> bool:
    if pattern.literals and not any(literal in text for literal in pattern.literals):
        return False
    if pattern.by_block or b"\n" not in text:
        return pattern.pattern.search(text) is not None
    return any(pattern.pattern.search(line) is not None for line in text.split(b"\n"))


class Captures:
    """Gives what the named groups of expressions hold, of a line that one of them matches."""

    def __init__(self, expressions: Sequence[str]) -> None:
        self._patterns: List[Any] = []
        wanted = [expression for expression, is_inverse in map(split_inverse, expressions) if not is_inverse]
        if any("(?P<" in expression or "(?<" in expression for expression in wanted):
            require_engine("fields of a log's matches")
            self._patterns = [_compile_with_groups(expression) for expression in wanted]
        self.names = frozenset(_text(name) for pattern in self._patterns for name in pattern.groupindex)

    def of(self, text: bytes) -> Dict[str, bytes]:
        """Return the values by the names of their groups; of the first expression that matches."""
        for pattern in self._patterns:
            for line in text.split(b"\n"):
                found = pattern.search(line)
                if found is not None:
                    named: Mapping[Union[bytes, str], Optional[bytes]] = found.groupdict()
                    return {_text(name): value for name, value in named.items() if value is not None}
        return {}


def _text(name: Union[bytes, str]) -> str:
    """Return a group's name; RE2 gives it as bytes where the expression is."""
    return name if isinstance(name, str) else name.decode("utf-8", "replace")


def _compile_with_groups(expression: str) -> Any:
    import re2  # noqa: PLC0415  (this file must import where no wheel of re2 exists; `require_engine` came first)

    options = re2.Options()
    options.log_errors = False
    options.never_nl = True
    if expression.isascii():
        options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(expression.encode("utf-8", "surrogatepass"), options)


class Question(NamedTuple):
    """All that is asked of the entries of logs."""

    messages: LineFilter
    window: Window = Window()
    units: LineFilter = LineFilter(())
    identifiers: LineFilter = LineFilter(())
    max_priority: Optional[int] = None
    fields: Tuple[str, ...] = ()
    captures: Captures = Captures(())

    @property
    def is_about_journals(self) -> bool:
        """Whether it asks for what only a journal's entries have."""
        return not (self.units.is_open and self.identifiers.is_open) or self.max_priority is not None


class Tally:
    """What is known of the wanted entries of one source: how many, when, and the values of fields."""

    def __init__(self, fields: Sequence[str] = ()) -> None:
        self.count = 0
        self.undated = 0
        self.first_ns: Optional[int] = None
        self.last_ns: Optional[int] = None
        self.values: Tuple[Counter[Optional[str]], ...] = tuple(Counter() for _ in fields)

    def add(self, time_ns: Optional[int], values: Values = (), times: int = 1) -> None:
        """Add entries of one time; None where it is not known."""
        if time_ns is None:
            self.undated += times
        else:
            self.count += times
            self.first_ns = time_ns if self.first_ns is None else min(self.first_ns, time_ns)
            self.last_ns = time_ns if self.last_ns is None else max(self.last_ns, time_ns)
        for counter, value in zip(self.values, values):
            if value is not None:
                counter[value if value in counter or len(counter) < MAX_VALUES else OTHERS] += times

    def take_values(self, values: Sequence[Sequence[Tuple[Optional[str], int]]]) -> None:
        """Have these values of the fields, in their order."""
        self.values = tuple(Counter(dict(pairs)) for pairs in values)

    def merge(self, other: "Tally") -> None:
        """Add what is known of another part of the same source."""
        self.count += other.count
        self.undated += other.undated
        for time_ns in (other.first_ns, other.last_ns):
            if time_ns is not None:
                self.first_ns = time_ns if self.first_ns is None else min(self.first_ns, time_ns)
                self.last_ns = time_ns if self.last_ns is None else max(self.last_ns, time_ns)
        for mine, others in zip(self.values, other.values):
            for value, times in others.items():
                mine[value if value in mine or len(mine) < MAX_VALUES else OTHERS] += times

    def is_empty(self) -> bool:
        """Tell whether there was nothing."""
        return not (self.count or self.undated)


def value_text(value: bytes) -> str:
    """Return a value as text, cut where it is long; what is no UTF-8 is replaced."""
    return value[:VALUE_BYTES].decode("utf-8", "replace")
