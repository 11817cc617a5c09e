"""Tests of running operations: limits, failures and what an answer says of them."""

import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from agent.execute import run_module, run_operation
from agent.module import MAX_NOTES, Context, Limits, ModuleParams, ModuleRecord
from agent.registry import Module, canonical_name, load_module, module_names
from protocol.errors import InvalidInput


class Number(ModuleRecord, frozen=True):
    value: int


def module(run: Any) -> Module:
    loaded = load_module("agentinfo")
    return loaded._replace(params=ModuleParams, record=Number, run=run)


def count(limit: int) -> Any:
    def run(_params: Any, context: Context) -> Iterator[Number]:
        for value in range(limit):
            context.check()
            yield Number(value=value)

    return run


def test_records_are_kept_in_order_and_found_is_computed() -> None:
    result = run_module(module(count(3)), ModuleParams(), Context())
    assert (result.found, result.status, result.truncated) == (True, "ok", False)
    assert [record["value"] for record in result.records] == [0, 1, 2]
    assert run_module(module(count(0)), ModuleParams(), Context()).found is False


def test_a_limit_on_records_cuts_the_answer_and_says_so() -> None:
    result = run_module(module(count(10)), ModuleParams(), Context(limits=Limits(max_records=4)))
    assert (len(result.records), result.status, result.truncated) == (4, "limit", True)
    assert result.notes == ("the answer was cut at 4 records",)


def test_a_limit_on_bytes_cuts_the_answer_and_says_so() -> None:
    result = run_module(module(count(1000)), ModuleParams(), Context(limits=Limits(output_bytes=100)))
    assert 0 < len(msgspec.json.encode(result.records)) <= 101
    assert (result.status, result.truncated) == ("limit", True)


def test_a_deadline_keeps_what_was_found_until_then() -> None:
    ticks = iter(range(100))
    context = Context(limits=Limits(wall_s=3), monotonic=lambda: float(next(ticks)))
    result = run_module(module(count(50)), ModuleParams(), context)
    assert (result.status, result.truncated, len(result.records)) == ("timed-out", True, 3)


def test_a_cancelled_run_keeps_what_was_found_until_then() -> None:
    answers = iter([False, False, True])
    result = run_module(module(count(50)), ModuleParams(), Context(is_cancelled=lambda: next(answers)))
    assert (result.status, len(result.records)) == ("cancelled", 2)


def test_a_module_that_breaks_is_a_failed_answer_with_its_records() -> None:
    def run(_params: Any, _context: Context) -> Iterator[Number]:
        yield Number(value=1)
        raise KeyError("missing")

    result = run_module(module(run), ModuleParams(), Context())
    assert (result.status, result.found, result.truncated) == ("failed", True, True)
    assert "KeyError" in result.notes[0]


def test_notes_are_bounded_and_the_rest_is_counted() -> None:
    context = Context()
    for number in range(MAX_NOTES + 7):
        context.note(str(number))
    assert context.all_notes()[-1] == "7 further notes withheld"
    assert len(context.all_notes()) == MAX_NOTES + 1


@pytest.mark.parametrize(
    ("name", "parameters", "status"),
    [
        ("no_such_module", {}, "unsupported"),
        ("agentinfo", {"nonsense": 1}, "invalid-parameters"),
        ("agentinfo", [], "invalid-parameters"),
    ],
)
def test_what_cannot_run_is_answered_with_its_reason(name: str, parameters: Any, status: str) -> None:
    result = run_operation(name, parameters, Context())
    assert (result.found, result.status) == (False, status)
    assert result.notes


def test_a_module_is_known_by_its_alias_only_to_the_client() -> None:
    assert canonical_name("agentinfo") == "agentinfo"
    with pytest.raises(InvalidInput, match="unknown-module"):
        canonical_name("../agentinfo")
    with pytest.raises(InvalidInput, match="unknown-module"):
        load_module("agentinfo.Params")


@pytest.mark.parametrize("name", module_names())
def test_every_module_declares_help_and_describes_every_field(name: str) -> None:
    loaded = load_module(name)
    assert len(loaded.help.splitlines()[0]) > 20
    for struct in (loaded.params, loaded.record):
        for field in msgspec.inspect.type_info(struct).fields:  # type: ignore[attr-defined]
            described = (
                field.type.extra_json_schema if isinstance(field.type, msgspec.inspect.Metadata) else None
            )
            assert described, f"{name}: {struct.__name__}.{field.name} has no description"
            assert "description" in described


@pytest.mark.slow
def test_the_processor_time_of_workers_counts_too() -> None:
    def run(_params: Any, _context: Context) -> Iterator[Number]:
        worker = os.fork()
        if not worker:
            while sum(os.times()[:2]) < 0.2:
                pass
            os._exit(0)
        os.waitpid(worker, 0)
        yield Number(value=1)

    result = run_module(module(run), ModuleParams(), Context())
    assert result.statistics["cpu_s"] >= 0.2
