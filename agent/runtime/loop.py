"""The event loop that the agent's parts are given: descriptors that are ready, and timers; nothing else.

The relay link adapts pika's loop to `Loop`; `SelectorLoop` serves where there is no relay: an action run from
a file, and tests. Standard library only: the resident agent imports this module.
"""

import heapq
import itertools
import selectors
import time
from typing import Callable, List, Protocol, Tuple


class Loop(Protocol):
    """Calls back when a descriptor can be read or a delay (seconds) is over; all in one thread."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever `fd` can be read or is at its end."""

    def remove_reader(self, fd: int) -> None:
        """Stop watching `fd`; to be called before it is closed."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> object:
        """Call back once after `delay_s` and return a handle for `cancel`."""

    def cancel(self, handle: object) -> None:
        """Forget a timer; one that was called already is no error."""


class SelectorLoop:
    """A `Loop` over `selectors`."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._selector = selectors.DefaultSelector()
        self._monotonic = monotonic
        self._timers: List[Tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever `fd` can be read or is at its end."""
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def remove_reader(self, fd: int) -> None:
        """Stop watching `fd`."""
        self._selector.unregister(fd)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> int:
        """Call back once after `delay_s` and return a handle for `cancel`."""
        number = next(self._numbers)
        heapq.heappush(self._timers, (self._monotonic() + delay_s, number, callback))
        return number

    def cancel(self, handle: object) -> None:
        """Forget a timer; one that was called already is no error."""
        self._timers = [timer for timer in self._timers if timer[1] != handle]
        heapq.heapify(self._timers)

    def run_until(self, is_done: Callable[[], bool]) -> None:
        """Serve descriptors and timers until `is_done()` or nothing is left that could change it."""
        while not is_done() and (self._timers or self._selector.get_map()):
            self._run_once()

    def _run_once(self) -> None:
        delay_s = max(0.0, self._timers[0][0] - self._monotonic()) if self._timers else None
        for key, _ in self._selector.select(delay_s):
            # A callback earlier in this round may have removed the reader.
            if key.fd in self._selector.get_map():
                key.data()
        now = self._monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def close(self) -> None:
        """Give up the selector's descriptor."""
        self._selector.close()
