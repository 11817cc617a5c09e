"""What is done with rules in the process that may die: a file or a process is read and looked at.

Rules:

* A file is read once, as far as its size said, within the limit; then it is looked at whether it changed. One
  that did, and in which nothing matched, counts as not scanned: nobody can say what was in it.
* A process is looked at as `agent.scan.memory_look` says.
* What matched goes back without a byte of content.
"""

import os
from typing import Callable, List, NamedTuple, Optional, Tuple

from agent.module import Budget
from agent.platform.process_memory import Process
from agent.scan.memory_look import MemoryLook
from agent.scan.outcome import (
    CHANGED,
    FAILED,
    TIMED_OUT,
    TOO_LARGE,
    UNREADABLE,
    Hit,
    Outcome,
    Work,
    encode,
)
from agent.scan.rules import RuleScanner, RuleSet, ScanFailed, ScanTimedOut, bound_hits
from agent.scan.throttle import Throttle

FILE, PROCESS, PROCESS_TOGETHER = b"F", b"P", b"T"
# One piece is one object: a file of two pieces takes twice its size in memory when they are put together.
_PIECE_BYTES = 64 << 20


class Bounds(NamedTuple):
    """What one file or process may cost: whole seconds for a file or a window of memory, and bytes."""

    timeout_s: int
    max_file_bytes: int
    max_process_bytes: int


class RuleWork:
    """Answers what a helper is asked.

    Args:
        rules: compiled before the helper was forked.
        bounds: of one file or process.
        budget: of all processes of the scan.
        share: how many processes share the budget.

    """

    def __init__(self, rules: RuleSet, bounds: Bounds, *, budget: Budget, share: int) -> None:
        self._rules = rules
        self._bounds = bounds
        self._budget = budget
        self._share = share
        self._bytes_read = 0
        self._tools: Optional[Tuple[RuleScanner, Throttle]] = None

    def __call__(self, request: bytes, descriptor: Optional[int], say: Callable[[], None]) -> bytes:
        """Answer one request: what is open here is a file, or the directory of a process."""
        if descriptor is None:
            raise ValueError("nothing came to be looked at")
        if self._tools is None:
            # Only here: neither may be made before the helper is forked.
            throttle = Throttle(self._budget, self._share, bytes_read=lambda: self._bytes_read)
            self._tools = RuleScanner(self._rules, timeout_s=self._bounds.timeout_s), throttle
        scanner, throttle = self._tools

        def work(size: int) -> None:
            self._bytes_read += size
            throttle.keep(say)

        if request[:1] == FILE:
            return encode(self._file(scanner, descriptor, request[1:], work))
        with Process(int(request[1:]), os.dup(descriptor)) as process:
            look = MemoryLook(scanner, process, self._bounds.max_process_bytes, work)
            return encode(look.run(is_together=request[:1] == PROCESS_TOGETHER))

    def _file(self, scanner: RuleScanner, descriptor: int, path: bytes, work: Work) -> Outcome:
        bounds, data = self._bounds, b""
        try:
            before = os.fstat(descriptor)
            whole = _read(descriptor, before.st_size, bounds.max_file_bytes, work)
            if whole is None:
                return too_large(bounds)
            data = whole
            scanner.name_file(path)
            hits, is_cut = bound_hits(scanner.scan(data))
            after = os.fstat(descriptor)
        except OSError as error:
            return Outcome(holes=((UNREADABLE, os.strerror(error.errno or 0)),))
        except ScanTimedOut:
            return Outcome(
                len(data), holes=((TIMED_OUT, f"the rules took longer than {bounds.timeout_s} s"),)
            )
        except ScanFailed as error:
            return Outcome(holes=((FAILED, str(error)),))
        # What the kernel makes up says that it is empty, and is not (proc(5)).
        is_other = before.st_mtime_ns != after.st_mtime_ns or (after.st_size and len(data) != after.st_size)
        holes = ((CHANGED, "changed while it was read"),) if is_other else ()
        return Outcome(len(data), tuple(map(Hit, hits)), is_cut, holes)


def too_large(bounds: Bounds) -> Outcome:
    """Return what is said of a file that is not scanned for its size."""
    return Outcome(holes=((TOO_LARGE, f"larger than {bounds.max_file_bytes} bytes (max_file_bytes)"),))


def _read(descriptor: int, size: int, limit: int, work: Work) -> Optional[bytes]:
    """Return what a file holds: as much as it said, or where it says nothing, all; None beyond the limit."""
    pieces: List[bytes] = []
    left = size or limit + 1
    if left > limit + 1:
        return None
    while left:
        data = os.read(descriptor, min(left, _PIECE_BYTES))
        if not data:
            break
        pieces.append(data)
        left -= len(data)
        work(len(data))
    whole = b"".join(pieces)
    return whole if len(whole) <= limit else None
