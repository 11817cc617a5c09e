"""Asks modules about processes, as tests do."""

import os
from collections.abc import Callable
from typing import Any

import msgspec

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


def forked(ask_there: Callable[[], OperationResult], uid: int) -> OperationResult:
    """Ask as another user."""
    return msgspec.convert(in_fork(ask_there, uid), OperationResult)


def in_fork(ask_there: Callable[[], Any], uid: int) -> Any:
    """Return what is answered as another user: in a fork, since Python may lie where that one cannot read."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            with os.fdopen(writer, "wb") as answer:
                answer.write(msgspec.json.encode(ask_there()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        found = msgspec.json.decode(told.read())
    os.waitpid(child, 0)
    return found
