"""Tells everybody in this process who waits for alerts that there are new ones: readers, webhooks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.events import Wake


class Bell:
    """Wakes all who listen; `also` is called with each `ring`: it tells other servers."""

    def __init__(self) -> None:
        self._listening: set[Wake] = set()
        self.also: Callable[[], None] = _tell_nobody
        self.is_closed = False

    @contextmanager
    def listen(self) -> Iterator[Wake]:
        """Give something to wait on, from now on until the block ends."""
        wake = Wake()
        if self.is_closed:
            wake.set_here()
        self._listening.add(wake)
        try:
            yield wake
        finally:
            self._listening.discard(wake)

    def ring(self) -> None:
        """Wake all here, and those of other servers."""
        self.ring_here()
        self.also()

    def ring_here(self) -> None:
        """Wake all of this server."""
        for wake in self._listening:
            wake.set_here()

    def close(self) -> None:
        """Wake all for the last time, so that the server can stop."""
        self.is_closed = True
        self.ring_here()


def _tell_nobody() -> None:
    """One server alone has nobody to tell."""
