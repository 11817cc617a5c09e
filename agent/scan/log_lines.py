r"""Which lines of a text log are wanted, and when the first and the last of them were written.

A line ends at `\n`, one `\r` before that is not part of it. One of more than 16 MiB is matched in its
beginning only, which is counted (`cut_lines`). A line that begins with a blank and has no time of its own
continues the one before it, and has that one's. Where the year is not said (RFC 3164), lines are kept by
their time until it is known what year the file ends in.
"""

from collections import Counter
from typing import Callable, List, Optional, Tuple

from agent.scan.log_question import Question, Tally, Values, value_text
from agent.scan.log_times import LineDater, Stamp, Yearless

MAX_LINE_BYTES = 16 << 20
# As many lines of a block are tried for a time at either of its ends, and behind a continuing line.
_TRIED_LINES = 32
# Different times of lines, and their values, that wait for their year; what more there are is dated at once.
_MAX_WAITING = 100_000


class TextLook:
    """Looks at one file, whose bytes come in pieces."""

    def __init__(
        self,
        question: Question,
        *,
        mtime_ns: int,
        check: Callable[[], None] = lambda: None,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self.tally = Tally(question.fields)
        self.lines_seen = 0
        self.cut_lines = 0
        self.dater = LineDater(mtime_ns)
        self._question = question
        self._check = check
        self._max_line_bytes = max_line_bytes
        self._pending: List[bytes] = []
        self._pending_bytes = 0
        self._waiting: Counter[Tuple[Yearless, Values]] = Counter()
        self._before: Optional[Stamp] = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file."""
        self._check()
        end = data.rfind(b"\n")
        if end < 0:
            self._hold(data)
            return
        start = 0
        if self._pending_bytes:
            start = data.find(b"\n") + 1
            self._hold(data[: start - 1])
            self._match(self._held())
        if start <= end:
            self._match(data[start:end])
        self._hold(data[end + 1 :])

    def finish(self) -> None:
        """Take the end of the file."""
        if self._pending_bytes:
            self._match(self._held())
        self._settle()

    def _hold(self, data: bytes) -> None:
        room = self._max_line_bytes - sum(map(len, self._pending))
        if data and room > 0:
            self._pending.append(data[:room])
        self._pending_bytes += len(data)

    def _held(self) -> bytes:
        self.cut_lines += self._pending_bytes > self._max_line_bytes
        line = b"".join(self._pending)
        self._pending, self._pending_bytes = [], 0
        return line

    def _match(self, text: bytes) -> None:
        """Look at whole lines, without the last one's end."""
        self.lines_seen += text.count(b"\n") + 1
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n")
            text = text[:-1] if text.endswith(b"\r") else text
        self._date_one(text.split(b"\n", _TRIED_LINES)[:_TRIED_LINES])
        for start, end in self._question.messages.lines(text):
            self._check()
            line = text[start:end]
            self._add(self._date(line, text, start), self._values(line))
        self._date_one(text.rsplit(b"\n", _TRIED_LINES)[-_TRIED_LINES:][::-1])

    def _date_one(self, lines: List[bytes]) -> None:
        """Date the first of some lines that says its time, so that no year is missed."""
        for line in lines:
            stamp = self.dater.date(line)
            if stamp is not None:
                self._before = stamp
                return

    def _date(self, line: bytes, text: bytes, start: int) -> Optional[Stamp]:
        stamp = self.dater.date(line)
        if stamp is not None or not line.startswith((b" ", b"\t")):
            return stamp
        for _ in range(_TRIED_LINES):
            if not start:
                return self._before
            end = start - 1
            start = text.rfind(b"\n", 0, end) + 1
            stamp = self.dater.date(text[start:end])
            if stamp is not None:
                return stamp
        return None

    def _values(self, line: bytes) -> Values:
        if not self._question.fields:
            return ()
        held = self._question.captures.of(line)
        return tuple(value_text(held[name]) if name in held else None for name in self._question.fields)

    def _add(self, stamp: Optional[Stamp], values: Values) -> None:
        if isinstance(stamp, Yearless):
            self._waiting[stamp, values] += 1
            if len(self._waiting) > _MAX_WAITING:
                self._settle()
        elif stamp is None or self._question.window.holds(stamp):
            self.tally.add(stamp, values)

    def _settle(self) -> None:
        for (stamp, values), times in self._waiting.items():
            time_ns = self.dater.resolve(stamp)
            if time_ns is None or self._question.window.holds(time_ns):
                self.tally.add(time_ns, values, times)
        self._waiting.clear()
