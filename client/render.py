"""Writes answers as a table, JSON, JSON lines or CSV.

What agents and servers send is hostile text: in tables and CSV every piece of it passes `client.screen`, in
JSON everything outside of printable ASCII is escaped. Answers are written as they come, so that ten thousand
of them are never held at once; only the JSON array and CSV, whose heads depend on all, are.
"""

import contextlib
import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TextIO

from client.answers import Answer
from client.coverage import ANSWERED, SKIPPED, Coverage
from client.screen import csv_cell, printable
from client.sending import campaign_text
from client.tally import Tally
from protocol.result import OperationResult, Result

Show = Literal["found", "not-found", "all"]
_MAX_NOTES = 20
_MAX_MISSING = 50
_FIXED_COLUMNS = ("agent", "agent_name", "operation", "module")


class Writer(Protocol):
    """Writes one action's answers, then what became of it."""

    def write_answer(self, answer: Answer, modules: tuple[str, ...]) -> None:
        """Write one verified answer."""

    def close(self, tally: Tally, modules: tuple[str, ...]) -> None:
        """Write what is left: coverage, who is missing, the summary."""


def make_writer(format_name: str, out: TextIO, show: Show | None = None) -> Writer:
    """Return the writer of a format: `table`, `json`, `jsonl` or `csv`.

    Args:
        format_name: one of the four.
        out: where to write.
        show: which answers; by default a table and CSV show what was found, JSON everything.

    """
    if format_name == "jsonl":
        return _JsonLines(out, show or "all")
    if format_name == "json":
        return _JsonDocument(out, show or "all")
    if format_name == "csv":
        return _Csv(out, show or "found")
    return _Table(out, show or "found")


def dump_json(value: Any) -> str:
    """Return compact JSON in printable ASCII: safe on any terminal."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)


def plain_value(value: Any) -> str:
    """Return one value of a record on one line, not yet made safe."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, (list, tuple)) and all(isinstance(item, (str, int, float)) for item in value):
        return ",".join(str(item) for item in value)
    if isinstance(value, dict) and all(isinstance(item, (str, int, float)) for item in value.values()):
        return ",".join(f"{name}:{item}" for name, item in value.items())
    return (
        json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else str(value)
    )


def record_line(record: dict[str, Any]) -> str:
    """Return a record on one safe line, its path first."""
    path = [printable(record["path"])] if isinstance(record.get("path"), str) else []
    rest = [
        f"{printable(name, 64)}={_quoted(printable(plain_value(value)))}"
        for name, value in record.items()
        if not (name == "path" and path)
    ]
    return "  ".join(path + ([" ".join(rest)] if rest else []))


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text or not text else text


def _is_shown(result: OperationResult, show: Show) -> bool:
    return show == "all" or result.found == (show == "found")


def _operations(
    result: Result, modules: tuple[str, ...], show: Show
) -> Iterator[tuple[int, str, OperationResult]]:
    for index, (module, operation) in enumerate(zip(modules, result.results, strict=False)):
        if _is_shown(operation, show):
            yield index, module, operation


class _Table:
    def __init__(self, out: TextIO, show: Show) -> None:
        self._out = out
        self._show = show
        self._notes = 0
        self._withheld = 0

    def write_answer(self, answer: Answer, modules: tuple[str, ...]) -> None:
        name = printable(answer.agent_name or answer.agent, 64)
        for _, module, operation in _operations(answer.result, modules, self._show):
            for record in operation.records:
                self._line(f"{name}  {record_line(record)}")
            if not operation.found and operation.status != SKIPPED:
                self._line(f"{name}  {module}: {_nothing(operation)}")
        # Notes tell of the coverage, so they are not left out where nothing was found.
        for module, operation in zip(modules, answer.result.results, strict=False):
            if operation.status == SKIPPED and self._show != "all":
                continue
            for note in operation.notes:
                self._note(f"{name}  {module} note: {printable(note)}")

    def _note(self, text: str) -> None:
        if self._notes < _MAX_NOTES:
            self._notes += 1
            self._line(text)
        else:
            self._withheld += 1

    def close(self, tally: Tally, modules: tuple[str, ...]) -> None:  # noqa: ARG002  (part of the interface)
        if self._withheld:
            self._line(f"{self._withheld:,} further notes: --json shows them all")
        for coverage in tally.coverage:
            self._line(printable(coverage.describe()))
        missing = tally.missing()
        for line in missing[:_MAX_MISSING]:
            reason = printable(line.reason, 500)
            name = printable(line.agent_name or line.agent, 64)
            self._line(f"no answer from {name}: {printable(line.state, 32)}: {reason}")
        if len(missing) > _MAX_MISSING:
            self._line(f"and {len(missing) - _MAX_MISSING:,} more: --json lists them all")
        for detail in tally.hostile:
            self._line(f"not believed: {printable(detail)}")
        if tally.hostile_count > len(tally.hostile):
            self._line(f"and {tally.hostile_count - len(tally.hostile):,} more that are not believed")
        if tally.campaign is not None:
            self._line(campaign_text(tally.campaign))
        took = f"; {tally.elapsed_s:.2f} s" if tally.elapsed_s is not None else ""
        action = f"; action {tally.action_id}" if tally.action_id else ""
        self._line(
            f"{len(tally.answered):,} of {len(tally.roster):,} agents answered, "
            f"found on {len(tally.found_on):,}{took}{action}"
        )

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")


def _nothing(operation: OperationResult) -> str:
    if operation.status not in ANSWERED:
        return f"no answer: {operation.status}"
    coverage = Coverage("")
    coverage.add(operation)
    return "nothing found in what could be looked at" if coverage.holes() else "nothing found"


def result_members(
    agent: str, agent_name: str, result: Result, modules: tuple[str, ...], index: int
) -> dict[str, Any]:
    """Return one agent's answer to one operation as JSON members."""
    common = {
        "agent": agent,
        "agent_name": agent_name,
        "action": result.action,
        **({"occurrence": result.occurrence} if result.occurrence else {}),
        "operation": index,
        "module": modules[index],
    }
    times = {"started": time_text(result.started), "finished": time_text(result.finished)}
    if not result.results:
        problem = result.problem
        notes = [f"{problem.code}: {problem.detail}"] if problem is not None else []
        return {
            **common,
            "status": result.status,
            "found": False,
            "records": [],
            "notes": notes,
            "statistics": {},
            "truncated": True,
            **times,
        }
    operation = result.results[index]
    return {
        **common,
        "status": operation.status,
        "found": operation.found,
        "records": list(operation.records),
        "notes": list(operation.notes),
        "statistics": operation.statistics,
        "truncated": operation.truncated,
        **times,
    }


def time_text(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC; one at the ends of the calendar, which has no UTC, as it came."""
    with contextlib.suppress(OverflowError, ValueError):
        moment = moment.astimezone(UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _problem_members(tally: Tally, modules: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for agent, result in tally.problems.items():
        name = tally.roster[agent].agent_name if agent in tally.roster else ""
        for index in range(len(modules)):
            yield result_members(agent, name, result, modules, index)
    for sealed in tally.unreadable.values():
        for index, module in enumerate(modules):
            yield {
                "agent": sealed.agent,
                "agent_name": sealed.agent_name,
                "action": tally.action_id,
                "operation": index,
                "module": module,
                "status": sealed.status,
                "sealed": True,
                "notes": [f"{sealed.code}: {sealed.detail}"],
            }


class _JsonLines:
    def __init__(self, out: TextIO, show: Show) -> None:
        self._out = out
        self._show = show

    def write_answer(self, answer: Answer, modules: tuple[str, ...]) -> None:
        for index, _, _ in _operations(answer.result, modules, self._show):
            self._line(result_members(answer.agent, answer.agent_name, answer.result, modules, index))

    def close(self, tally: Tally, modules: tuple[str, ...]) -> None:
        if self._show != "found":
            for members in _problem_members(tally, modules):
                self._line(members)
        self._line({"summary": tally.summary()})

    def _line(self, value: Any) -> None:
        self._out.write(dump_json(value) + "\n")


class _JsonDocument:
    def __init__(self, out: TextIO, show: Show) -> None:
        self._out = out
        self._show = show
        self._answers: list[dict[str, Any]] = []

    def write_answer(self, answer: Answer, modules: tuple[str, ...]) -> None:
        self._answers += [
            result_members(answer.agent, answer.agent_name, answer.result, modules, index)
            for index, _, _ in _operations(answer.result, modules, self._show)
        ]

    def close(self, tally: Tally, modules: tuple[str, ...]) -> None:
        if self._show != "found":
            self._answers += _problem_members(tally, modules)
        document = {"results": self._answers, "summary": tally.summary()}
        self._out.write(json.dumps(document, ensure_ascii=True, indent=2, default=str) + "\n")


class _Csv:
    """One row for each record; an answer without records is one row with its status."""

    def __init__(self, out: TextIO, show: Show) -> None:
        self._out = out
        self._show = show
        self._rows: list[dict[str, str]] = []
        self._columns: dict[str, None] = {}

    def write_answer(self, answer: Answer, modules: tuple[str, ...]) -> None:
        for index, module, operation in _operations(answer.result, modules, self._show):
            fixed = dict(
                zip(_FIXED_COLUMNS, (answer.agent, answer.agent_name, str(index), module), strict=True)
            )
            fixed["status"] = operation.status
            for record in operation.records or ({},):
                # A record's own field of the same name must not pass for one of ours.
                row = {f"record.{name}": plain_value(value) for name, value in record.items()}
                self._columns.update(dict.fromkeys(row))
                self._rows.append({**fixed, **row})

    def close(self, tally: Tally, modules: tuple[str, ...]) -> None:  # noqa: ARG002  (part of the interface)
        fixed = (*_FIXED_COLUMNS, "status")
        titles = (name.removeprefix("record.") for name in self._columns)
        writer = csv.writer(self._out, lineterminator="\n")
        writer.writerow(
            [*fixed, *(csv_cell(f"record.{title}" if title in fixed else title) for title in titles)]
        )
        for row in self._rows:
            writer.writerow([csv_cell(row.get(column, "")) for column in (*fixed, *self._columns)])
        if self._show == "found":
            return
        for line in tally.missing():
            cells = (line.agent, line.agent_name, "", "", f"{line.state}: {line.reason}")
            writer.writerow([csv_cell(cell) for cell in cells] + [""] * len(self._columns))
