"""Asks the module process, as tests do."""

from typing import Any

from agent.execute import run_operation
from agent.module import Context
from protocol.result import OperationResult


def ask(context: Context | None = None, **parameters: Any) -> OperationResult:
    """Run the module; it must have answered."""
    result = run_operation("process", parameters, context or Context())
    assert result.status in ("ok", "limit"), result
    return result


def pids(**parameters: Any) -> set[int]:
    """Return the numbers of the processes that satisfy the filters."""
    return {record["pid"] for record in ask(**parameters).records}


def only(pid: int, **parameters: Any) -> dict[str, Any]:
    """Return the record of one process, which must satisfy the filters."""
    [record] = ask(pids=[pid], **parameters).records
    return dict(record)


def is_found(pid: int, **parameters: Any) -> bool:
    """Tell whether a process satisfies the filters."""
    return pids(pids=[pid], **parameters) == {pid}
