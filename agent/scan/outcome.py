"""How it went with one file or process to which rules were applied: small enough to travel from a helper."""

from typing import Callable, Optional, Tuple

import msgspec

from agent.scan.rules import RuleHit

CHANGED, FAILED, GONE, LOST = "changed", "failed", "ended", "crashed"
TIMED_OUT, TOO_LARGE, UNREADABLE = "timed-out", "too-large", "unreadable"
APART = "in-pieces"
# Told of each piece that was read: keeps to the budget, and says that the work goes on.
Work = Callable[[int], None]


class Place(msgspec.Struct, array_like=True, frozen=True):
    """A mapping of a process."""

    start: int
    end: int
    permissions: str
    path: bytes


class Hit(msgspec.Struct, array_like=True, frozen=True):
    """A rule that matched, and in memory where."""

    rule: RuleHit
    place: Optional[Place] = None


class Outcome(msgspec.Struct, array_like=True, frozen=True):
    """How it went with one file or process.

    holes: why it, or a part of a process, was not scanned (reason, words); empty where all of it was.
    """

    size: int = 0
    hits: Tuple[Hit, ...] = ()
    is_cut: bool = False
    holes: Tuple[Tuple[str, str], ...] = ()


def encode(outcome: Outcome) -> bytes:
    """Return an outcome as bytes."""
    return msgspec.msgpack.encode(outcome)


def decode(data: bytes) -> Outcome:
    """Return an outcome of bytes that `encode` made."""
    return msgspec.msgpack.decode(data, type=Outcome)
