"""Runs one module on this machine, for whoever is sitting at it: no gate, no journal, no network.

The module runs in a forked child with limits of its own, in a session of its own, which ends with this
process. It gives way as an agent's command does: at the lowest priority, and a long scan also to all other
sessions, which it could not without lowering the shell that it was started from. No key of the terminal
reaches it: the caller's first Ctrl-C is passed on and asks the module to end, and what it found so far
stands; the second kills. Call it while the process has one thread, since it forks.

What the child writes are lines of JSON: how far it is, at most one a second, and at the end its result.
"""

import contextlib
import json
import os
import select
import signal
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, NoReturn, Optional, Sequence, Tuple

import msgspec

from agent.answer import encode_result
from agent.conditions import not_run
from agent.execute import run_operation
from agent.facts import collect_facts
from agent.module import Context, Limits
from agent.platform.limits import ProcessLimits, apply_limits, die_with_parent, yield_to_others
from agent.progress import Reporter, decode_progress
from agent.registry import canonical_name, load_module, module_names
from protocol.action import Operation, require_order
from protocol.envelope import ACTION, MAX_ENVELOPE_BYTES, decode_envelope
from protocol.errors import InvalidInput
from protocol.result import MAX_RESULT_BYTES, OperationResult, OperationStatus
from protocol.strictjson import decode_json

DEFAULT_WALL_S = 3600.0
_LIMITS = ProcessLimits(cpu_s=24 * 3600, memory_bytes=2 << 30, open_files=4096)
_GRACE_S = 2.0
_READ_BYTES = 65536
_CRASHED = 70  # EX_SOFTWARE of sysexits(3)

OnProgress = Callable[[Mapping[str, Any]], None]


def _keep_to_oneself(_statistics: Mapping[str, Any]) -> None:
    """Tell nobody."""


def run_local(
    name: str,
    parameters: Any,
    *,
    wall_s: float = DEFAULT_WALL_S,
    facts: Optional[Dict[str, Any]] = None,
    on_progress: OnProgress = _keep_to_oneself,
) -> Dict[str, Any]:
    """Run a module in a limited child and return its `OperationResult` as JSON members.

    Args:
        name: the module's name or an alias of it.
        parameters: as in an action; the ancestor's spellings are rewritten first.
        wall_s: after which the module is asked to end, and a little later killed.
        facts: the endpoint's facts; collected here when None.
        on_progress: told what the module has counted so far, once a second.

    Raises:
        InvalidInput: `unknown-module`.

    """
    canonical = canonical_name(name)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _serve(writer, canonical, parameters, wall_s, facts)
    os.close(writer)
    try:
        data, is_over_time = _collect(reader, pid, wall_s + _GRACE_S, on_progress)
    finally:
        os.close(reader)
        status = _end_group(pid)
    if data:
        result: Dict[str, Any] = json.loads(data)
        return result
    return _failed(status, wall_s, is_over_time=is_over_time)


def run_operations(
    operations: Sequence[Operation], on_progress: OnProgress = _keep_to_oneself
) -> Iterator[Dict[str, Any]]:
    """Run operations one after the other, and yield the result of each as JSON members.

    What depends on an earlier one is held to that, as on an endpoint.

    Raises:
        InvalidInput: `unknown-module`.

    """
    results: List[OperationResult] = []
    for index, operation in enumerate(operations):
        skipped = not_run(operation, index, results)
        members = (
            run_local(operation.module, operation.parameters, on_progress=on_progress)
            if skipped is None
            else msgspec.json.decode(msgspec.json.encode(skipped))
        )
        results.append(msgspec.convert(members, OperationResult))
        yield members


def read_operations(body: bytes) -> Tuple[Operation, ...]:
    """Return an action's operations, signed or written by hand, unjudged but for their order.

    Raises:
        InvalidInput: `bad-json`, `too-large`, `bad-envelope` or `bad-action`.

    """
    document = decode_json(body, max_bytes=MAX_ENVELOPE_BYTES)
    if isinstance(document, dict) and "payloadType" in document:
        document = decode_json(decode_envelope(body, ACTION).payload)
    listed = document.get("operations") if isinstance(document, dict) else None
    try:
        operations: Tuple[Operation, ...] = msgspec.convert(listed, Tuple[Operation, ...])
        require_order(operations)
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidInput("bad-action", f"operations: {error}") from None
    if not operations:
        raise InvalidInput("bad-action", "no operations")
    return operations


def _serve(
    writer: int, name: str, parameters: Any, wall_s: float, facts: Optional[Dict[str, Any]]
) -> NoReturn:
    """Be the child: never return into the caller's code."""
    status = _CRASHED
    try:
        os.setsid()
        os.umask(0o077)
        die_with_parent()
        yield_to_others()
        # A worker that the module forks must not hold the pipe open.
        os.register_at_fork(after_in_child=lambda: _close_quietly(writer))
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        apply_limits(_LIMITS)
        reporter = Reporter(lambda said: _write_line(writer, said))
        result = _run(name, parameters, wall_s, facts, lambda statistics: reporter.report(0, statistics))
        _write_line(writer, encode_result(result, MAX_RESULT_BYTES))
        status = 0
    finally:
        os._exit(status)


def _close_quietly(fd: int) -> None:
    with contextlib.suppress(OSError):
        os.close(fd)


def _write_line(writer: int, line: bytes) -> None:
    data = line + b"\n"
    while data:
        data = data[os.write(writer, data) :]


def _run(
    name: str, parameters: Any, wall_s: float, facts: Optional[Dict[str, Any]], on_progress: OnProgress
) -> OperationResult:
    cancelled = []
    signal.signal(signal.SIGINT, lambda _number, _frame: cancelled.append(True))
    if facts is None:
        facts = collect_facts(agent_id="", version="", tags={}, modules=module_names())
    context = Context(
        limits=Limits(wall_s=wall_s),
        facts=facts,
        is_cancelled=lambda: bool(cancelled),
        on_progress=on_progress,
    )
    try:
        upgraded = load_module(name).upgrade(parameters)
    except InvalidInput as error:
        return OperationResult(found=False, status="invalid-parameters", notes=(str(error),), truncated=True)
    return run_operation(name, upgraded, context)


def _collect(reader: int, pid: int, wait_s: float, on_progress: OnProgress) -> Tuple[bytes, bool]:
    """Read what the child says until it is done, its time is over, or the caller has lost patience.

    Returns its result, where it said one whole, and whether its time was over.
    """
    end = time.monotonic() + wait_s
    result, unended = b"", b""
    is_asked_to_end = False
    while True:
        try:
            ready, _, _ = select.select([reader], [], [], max(0.0, end - time.monotonic()))
        except KeyboardInterrupt:
            if is_asked_to_end:
                raise
            is_asked_to_end = True
            end = min(end, time.monotonic() + _GRACE_S)
            os.kill(pid, signal.SIGINT)
            continue
        if not ready:
            return b"", True
        data = os.read(reader, _READ_BYTES)
        if not data:
            return result, False
        *lines, unended = (unended + data).split(b"\n")
        for line in lines:
            progress = decode_progress(line)
            if progress is None:
                result = line
            else:
                on_progress(progress.statistics)


def _end_group(pid: int) -> int:
    """Kill whatever is left of the child's group, and return the child's exit status."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    # Before the child has made its group it stands in ours.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _failed(status: int, wall_s: float, *, is_over_time: bool) -> Dict[str, Any]:
    outcome: OperationStatus = "timed-out" if is_over_time else "failed"
    said = f"killed after {wall_s:g} s" if is_over_time else f"the process that ran it ended with {status}"
    return {
        "found": False,
        "status": outcome,
        "records": [],
        "notes": [said],
        "statistics": {},
        "truncated": True,
    }
