"""Whether an operation runs that depends on how an earlier one of the same action ended.

`found` is met by records, also where a limit cut them. `not-found` is met only by a whole answer: what could
not look everywhere has not found out that there is nothing. An operation that was not run meets neither, so
what depends on it is not run either.
"""

from typing import Optional, Sequence

from protocol.action import Operation
from protocol.result import OperationResult


def not_run(
    operation: Operation, index: int, results: Sequence[Optional[OperationResult]]
) -> Optional[OperationResult]:
    """Return the answer of an operation that is not to run; None for one that is.

    Args:
        operation: the `index`th of its action, from 0.
        index: its number.
        results: of the operations before it; the one that it depends on has ended.

    """
    needed = operation.depends_on(index)
    if needed is None:
        return None
    earlier = results[needed]
    if earlier is None:
        raise ValueError(f"operation {needed} has not ended")
    if _is_met(operation.when, earlier):
        return None
    note = f"not run: operation {needed} {_ending(earlier)}"
    return OperationResult(found=False, status="skipped", notes=(note,))


def _is_met(when: Optional[str], earlier: OperationResult) -> bool:
    if when == "found":
        return earlier.found
    return is_whole(earlier) and not earlier.found


def is_whole(result: OperationResult) -> bool:
    """Tell whether an answer has no hole: nothing cut, failed, unreadable or changed meanwhile."""
    return (
        result.status == "ok"
        and not result.truncated
        and not any(result.statistics.get(name) for name in ("errors", "changed"))
    )


def _ending(earlier: OperationResult) -> str:
    if earlier.status == "skipped":
        return "was not run"
    if earlier.found:
        return "found something"
    return "found nothing" if is_whole(earlier) else f"has no whole answer ({earlier.status})"
