"""Runs the operations of an action, one after the other, and gives each its result.

A module's failure is its own operation's answer and costs no other operation its answer. `found` is computed
here: an operation found something when it has a record. What is cut by a limit says so.
"""

import os
import time
from typing import Any, Callable, Dict, Iterator, List, Tuple

import msgspec

from agent.module import Cancelled, Context, DeadlineReached, decode_params
from agent.registry import Module, load_module
from protocol.errors import InvalidInput, MigError
from protocol.result import OperationResult, OperationStatus

_STATUS_BY_CODE: Dict[str, OperationStatus] = {
    "bad-parameters": "invalid-parameters",
    "unsupported": "unsupported",
}


def _collect(records: Iterator[Any], context: Context) -> Tuple[Dict[str, Any], ...]:
    """Turn records into plain JSON members until a limit ends them; the limit is noted."""
    collected: List[Dict[str, Any]] = []
    size = 0
    limits = context.limits
    for record in records:
        size += len(msgspec.json.encode(record)) + 1
        if size > limits.output_bytes:
            context.truncate(f"the answer was cut at {limits.output_bytes} bytes")
            break
        collected.append(msgspec.to_builtins(record))
        if len(collected) >= limits.max_records:
            context.truncate(f"the answer was cut at {limits.max_records} records")
            break
    return tuple(collected)


class _Kept:
    """Remembers what was yielded before a run was ended from outside."""

    def __init__(self, start: Callable[[], Iterator[Any]], context: Context) -> None:
        self._start = start
        self._context = context
        self.status: OperationStatus = "ok"

    def __iter__(self) -> Iterator[Any]:
        try:
            # Called only here: a module need not be a generator, and may fail before its first record.
            yield from self._start()
        except DeadlineReached:
            self.status = "timed-out"
            self._context.truncate(f"stopped after {self._context.limits.wall_s:g} s")
        except Cancelled:
            self.status = "cancelled"
            self._context.truncate("cancelled")
        except MigError as error:
            self.status = _STATUS_BY_CODE.get(error.code, "failed")
            self._context.truncate(str(error))
        # A module meets whatever is on the disk: its failure must be an answer, never the loss of others'.
        except Exception as error:  # noqa: BLE001
            self.status = "failed"
            self._context.truncate(f"the module failed: {type(error).__name__}: {error}")


def run_module(module: Module, parameters: Any, context: Context) -> OperationResult:
    """Run one module on decoded parameters and return its result, whatever happens in it."""
    began, cpu = time.monotonic(), _cpu_s()
    kept = _Kept(lambda: module.run(parameters, context), context)
    records = _collect(iter(kept), context)
    context.statistics.setdefault("duration_s", round(time.monotonic() - began, 6))
    context.statistics.setdefault("cpu_s", round(_cpu_s() - cpu, 6))
    status = kept.status
    if status == "ok" and context.truncated:
        status = "limit"
    return OperationResult(
        found=bool(records),
        status=status,
        records=records,
        notes=context.all_notes(),
        statistics=dict(context.statistics),
        truncated=context.truncated,
    )


def _cpu_s() -> float:
    """Return the processor time of this process and of its workers that have ended, in seconds."""
    told = os.times()
    return time.process_time() + told.children_user + told.children_system


def _load_supported(name: str) -> Module:
    module = load_module(name)
    if not module.is_supported():
        raise InvalidInput("unsupported", f"module {name} does not work on this platform")
    return module


def run_operation(name: str, parameters: Any, context: Context) -> OperationResult:
    """Run one operation by canonical module name and undecoded parameters."""
    try:
        module = _load_supported(name)
        decoded = decode_params(module.params, parameters)
    except InvalidInput as error:
        status = _STATUS_BY_CODE.get(error.code, "unsupported")
        return OperationResult(found=False, status=status, notes=(str(error),), truncated=True)
    return run_module(module, decoded, context)
