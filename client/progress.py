"""Shows on a terminal that something is being waited for; silent elsewhere, and for the first half second."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_QUIET_S = 0.5


class Waiting:
    """A line on standard error: how many of how many agents have answered, and for how long.

    It is put away while answers are written, since both may share one terminal. rich is loaded only when
    the line is first shown.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        if sys.stderr.isatty():
            self._timer = threading.Timer(_QUIET_S, self._begin)
            self._timer.daemon = True
            self._timer.start()

    def _begin(self) -> None:
        from rich.console import Console  # noqa: PLC0415  (60 ms that a quick answer does not need)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        columns = (TextColumn("answers"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        progress = Progress(*columns, console=Console(stderr=True), transient=True)
        progress.add_task("answers", total=self._total, completed=self._done)
        with self._lock:
            if self._timer is not None:
                self._progress = progress
                progress.start()

    def advance(self, done: int) -> None:
        """Say how many have answered."""
        self._done = done
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=done)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Put the line away while something else is written."""
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
            try:
                yield
            finally:
                if self._progress is not None:
                    self._progress.start()

    def close(self) -> None:
        """Put the line away for good."""
        with self._lock:
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            if self._progress is not None:
                self._progress.stop()
                self._progress = None
