"""Keeps one process of a scan within its share of the budget, by pausing between files and between chunks.

The shares are equal: what one process does not use is not lent to another. What was not used for a while may
be made up for, but of no more than `_CREDIT_S` seconds.
"""

import time
from typing import Callable

from agent.module import Budget

_CREDIT_S = 1.0
_LEAST_S = 0.001  # shorter pauses cost more than they spare
_SLICE_S = 0.1  # so that a pause can be cancelled


class _Meter:
    """Tells how far use is ahead of an allowed rate, in seconds."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._start_s = 0.0
        self._start_use = 0.0

    def begin(self, now_s: float, use: float) -> None:
        self._start_s, self._start_use = now_s, use

    def ahead_s(self, now_s: float, use: float) -> float:
        ahead = (use - self._start_use) / self._per_s - (now_s - self._start_s)
        if ahead < -_CREDIT_S:
            self._start_s += -_CREDIT_S - ahead
        return ahead


class Throttle:
    """Pauses its process where it is ahead of its share; `share` is how many processes share the budget."""

    def __init__(
        self,
        budget: Budget,
        share: int,
        *,
        bytes_read: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
        process_time: Callable[[], float] = time.process_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._meters = []
        if budget.cpu_percent:
            self._meters.append((_Meter(budget.cpu_percent / 100 / share), process_time))
        if budget.read_bytes_per_s:
            self._meters.append((_Meter(budget.read_bytes_per_s / share), lambda: float(bytes_read())))
        self._monotonic = monotonic
        self._sleep = sleep
        for meter, use in self._meters:
            meter.begin(monotonic(), use())

    def is_needed(self) -> bool:
        """Tell whether there is any bound."""
        return bool(self._meters)

    def keep(self, check: Callable[[], None]) -> None:
        """Pause as long as needed; `check` is called meanwhile, and may raise."""
        check()
        while self._meters:
            now = self._monotonic()
            ahead = max((meter.ahead_s(now, use()) for meter, use in self._meters), default=0.0)
            if ahead < _LEAST_S:
                return
            self._sleep(min(ahead, _SLICE_S))
            check()
