"""How far a running command is: said by its child now and then, told on by the resident as a few numbers.

A module that runs locally says it to whoever sits there, by the same rules (`agent.local`).

Rules:
1. The child speaks at most once a second, of the operation that runs and its statistics; only numbers leave
   it, and nothing at all of an action whose answer is sealed.
2. To the resident it is hostile bytes: bounded by its frame, and read only when it is told on. What has not
   this shape is no progress; it costs the command nothing.
3. Nothing depends on it: progress that is lost, late or invented changes no answer.

Standard library only: the resident agent imports this module.
"""

import re
import time
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Union

from protocol.errors import InvalidInput
from protocol.strictjson import decode_json, encode_json

EVERY_S = 1.0
MAX_PROGRESS_BYTES = 4096
_MAX_STATISTICS = 16
_MAX_OPERATIONS = 64  # of protocol.action, which loads msgspec
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")

Number = Union[int, float]


class Progress(NamedTuple):
    """The number of the operation that runs, from 0, and what it has counted so far."""

    operation: int
    statistics: Dict[str, Number]


class RunningCommand(NamedTuple):
    """A command that runs: its id, for how long, and how far it is where its child has said so."""

    command_id: str
    elapsed_s: float
    progress: Optional[Progress]


def _is_counter(name: Any, value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(name, str) and bool(_NAME.match(name)) and is_number and 0 <= value < 1 << 63


class Reporter:
    """The child's side: turns what modules count into frames' bodies, at most one a second.

    Args:
        write: sends one.
        monotonic: the clock.

    """

    def __init__(
        self, write: Callable[[bytes], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._monotonic = monotonic
        self._due = monotonic() + EVERY_S

    def report(self, operation: int, statistics: Mapping[str, Any]) -> None:
        """Say how far an operation is, unless that was said a moment ago: called often, it costs little."""
        now = self._monotonic()
        if now < self._due:
            return
        self._due = now + EVERY_S
        counters = [(name, value) for name, value in statistics.items() if _is_counter(name, value)]
        told = {"operation": operation, "statistics": dict(counters[:_MAX_STATISTICS])}
        self._write(encode_json(told))


def decode_progress(body: bytes) -> Optional[Progress]:
    """Return what a child says of its progress; None where it makes no sense."""
    try:
        told = decode_json(body, max_bytes=MAX_PROGRESS_BYTES)
    except InvalidInput:
        return None
    if not isinstance(told, dict) or set(told) != {"operation", "statistics"}:
        return None
    operation, statistics = told["operation"], told["statistics"]
    if type(operation) is not int or not 0 <= operation < _MAX_OPERATIONS:
        return None
    if not isinstance(statistics, dict) or len(statistics) > _MAX_STATISTICS:
        return None
    if not all(_is_counter(name, value) for name, value in statistics.items()):
        return None
    return Progress(operation, statistics)
