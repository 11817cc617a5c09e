"""One line on a terminal that says how far a module is that runs here; silent where nobody sits.

It needs no thread, since who shows it forks.
"""

import shutil
from contextlib import contextmanager
from typing import Any, Iterator, Mapping, TextIO

from protocol.counters import counters_text

_CLEAR = "\r\x1b[K"


class ProgressLine:
    """The line on one stream; written only if that is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._is_shown = False

    def show(self, statistics: Mapping[str, Any]) -> None:
        """Show what a module has counted so far, instead of what was shown before."""
        text = counters_text([statistics])
        if self._is_terminal and text:
            columns = shutil.get_terminal_size().columns
            self._write(_CLEAR + text[: columns - 1])
            self._is_shown = True

    def put_away(self) -> None:
        """Clear the line, before anything else is written."""
        if self._is_shown:
            self._write(_CLEAR)
            self._is_shown = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@contextmanager
def progress_line(stream: TextIO) -> Iterator[ProgressLine]:
    """Yield a line that is gone when the block ends, however it does."""
    line = ProgressLine(stream)
    try:
        yield line
    finally:
        line.put_away()
