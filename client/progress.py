"""Shows on a terminal that something is being waited for; silent elsewhere, and for the first half second."""

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from protocol.counters import counters_text
from protocol.documents import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_QUIET_S = 0.5


def progress_text(said: Iterable[Progress]) -> str:
    """Return what all of these have counted together, in words; empty where that is nothing."""
    return counters_text(progress.statistics for progress in said)


class Waiting:
    """A line on standard error: how many of how many agents have answered, and how far those are that run.

    It is put away while answers are written, since both may share one terminal. rich is loaded only when
    the line is first shown.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._running: dict[str, Progress] = {}
        self._stage = ""
        self._bars: Bars | None = None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        if sys.stderr.isatty():
            self._timer = threading.Timer(_QUIET_S, self._begin)
            self._timer.daemon = True
            self._timer.start()

    def _begin(self) -> None:
        from rich.console import Console  # noqa: PLC0415  (60 ms that a quick answer does not need)
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
        from rich.progress import Progress as Bars  # noqa: PLC0415

        columns = (
            TextColumn("answers"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        bars = Bars(*columns, console=Console(stderr=True), transient=True)
        bars.add_task(self.text, total=self._total, completed=self._done)
        with self._lock:
            if self._timer is not None:
                self._bars = bars
                bars.start()

    @property
    def text(self) -> str:
        """How far a paced action is, and what those do that run, as far as they say."""
        told = progress_text(self._running.values())
        running = f"{len(self._running):,} running: {told}" if told else ""
        return "; ".join(filter(None, (self._stage, running)))

    def hear(self, agent: str, progress: Progress) -> None:
        """Say how far an agent is that has not answered."""
        self._running[agent] = progress
        self._show()

    def stage(self, text: str) -> None:
        """Say how far a paced action is."""
        self._stage = text
        self._show()

    def advance(self, agent: str, done: int) -> None:
        """Say who has answered, and that so many have."""
        self._running.pop(agent, None)
        self._done = done
        self._show()

    def _show(self) -> None:
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=self._done, description=self.text)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Put the line away while something else is written."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
            try:
                yield
            finally:
                if self._bars is not None:
                    self._bars.start()

    def close(self) -> None:
        """Put the line away for good."""
        with self._lock:
            timer, self._timer = self._timer, None
            if timer is not None:
                timer.cancel()
            if self._bars is not None:
                self._bars.stop()
                self._bars = None
