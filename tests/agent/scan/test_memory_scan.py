"""Tests of rules applied to the memory of real processes."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.execute import run_operation
from agent.module import UNBOUNDED, Context
from agent.platform.process_memory import Process
from agent.scan.helper import Helper
from agent.scan.memory_look import BUNDLE_BYTES
from agent.scan.outcome import GONE, decode
from agent.scan.rule_work import Bounds, RuleWork
from agent.scan.rules import compile_rules
from protocol.acl import PathRules
from protocol.result import OperationResult
from tests.support.planted import plant

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read on Linux")

IMPLANT = """rule implant { strings: $key = "planted-here-by-a-test" condition: $key }"""


def ask(context: Context | None = None, *, rules: str, **parameters: Any) -> OperationResult:
    """Run the module; it must have answered."""
    result = run_operation("yara", {"rules": {"kit": rules}, **parameters}, context or Context())
    assert result.status in ("ok", "limit"), result
    return result


def look(pid: int, context: Context | None = None, *, rules: str = IMPLANT) -> OperationResult:
    return ask(context, rules=rules, processes={"p1": {"pids": [pid]}})


def test_memory_is_told_by_process_mapping_and_address() -> None:
    with plant(b"planted-here-by-a-test", at=70_000) as planted:
        result = look(planted.pid)
        hits = [one for one in result.records if one["region"]["address"] == f"{planted.start:#x}"]
        [record] = hits
        assert record["patterns"][0]["matches"] == ({"offset": planted.address, "length": 22},)
        assert (record["search"], record["pid"], record["rule"]) == ("p1", planted.pid, "implant")
        assert record["path"] == str(Path(sys.executable).resolve())
        assert record["process"] == planted.name
        assert record["region"]["permissions"] == "rw-p"
        assert result.statistics["processes_scanned"] == result.statistics["processes_matched"] == 1
        assert result.statistics["not_scanned"] == {}


def test_memory_in_which_nothing_matches_is_counted() -> None:
    with plant(b"something else") as planted:
        result = look(planted.pid)
        assert result.records == ()
        assert result.statistics["processes_scanned"] == 1
        assert result.statistics["bytes_scanned"] > 0


def test_a_match_where_two_windows_meet_is_told_once() -> None:
    content = bytearray(b"x" * (70 << 20))
    borders = [(32 << 20) - 11, (32 << 20) - (1 << 20) - 7, (63 << 20) + 5]
    for border in borders:
        content[border : border + 22] = b"planted-here-by-a-test"
    with plant(bytes(content), size=len(content)) as planted:
        [record] = [one for one in look(planted.pid).records if one["region"]["size_bytes"] >= len(content)]
        offsets = sorted(match["offset"] - planted.start for match in record["patterns"][0]["matches"])
        assert offsets == sorted(borders)
        assert record["patterns"][0]["count"] == 3


def test_processes_are_chosen_by_name_and_left_out_by_name() -> None:
    with plant(b"planted-here-by-a-test") as planted:
        program = Path(sys.executable).resolve().name
        chosen = [
            ([f"^{planted.name}$"], 1),
            ([f"^{planted.name}$", "!^planted"], 0),
            ([f"^{planted.name}$", f"!^{program}$"], 0),
            (["^no-such-name$"], 0),
        ]
        for names, scanned in chosen:
            result = ask(rules=IMPLANT, processes={"p1": {"names": names}})
            assert {record["pid"] for record in result.records} == ({planted.pid} if scanned else set())
            assert result.statistics["processes_scanned"] == scanned
            assert int(str(result.statistics["processes_seen"])) > 1


def test_a_process_that_is_not_there_is_named() -> None:
    with plant(b"") as planted:
        pass
    result = look(planted.pid)
    assert result.notes == (f"process {planted.pid}: not scanned: there is none",)
    assert result.statistics["not_scanned"] == {"ended": 1}


def test_a_process_that_ends_while_it_is_looked_at_is_a_note() -> None:
    with plant(b"planted-here-by-a-test") as planted:
        child = RuleWork(
            compile_rules({"kit": IMPLANT}, {}), Bounds(30, 1000, 1 << 30), budget=UNBOUNDED, share=1
        )

        def end(_request: bytes, descriptor: int | None, _say: Callable[[], None]) -> bytes:
            return child(b"P%d" % planted.pid, descriptor, lambda: os.kill(planted.pid, signal.SIGKILL))

        with Process(planted.pid) as process, closing(Helper(end, silence_s=60)) as helper:
            outcome = decode(helper.ask(b"look", process.descriptor))
        assert [reason for reason, _ in outcome.holes] == [GONE]


def test_a_process_with_more_memory_than_allowed_is_read_so_far() -> None:
    with plant(b"planted-here-by-a-test") as planted:
        result = ask(rules=IMPLANT, processes={"p1": {"pids": [planted.pid]}}, max_process_bytes=4096)
        assert result.statistics["not_scanned"] == {"too-large": 1}
        [note] = result.notes
        assert "has more memory than max_process_bytes allows to read" in note


def test_the_agents_own_processes_are_left_out() -> None:
    result = ask(rules=IMPLANT, processes={"p1": {"pids": [os.getpid(), os.getppid()]}})
    assert result.records == ()
    assert result.statistics["not_scanned"] == {"own-process": 2}


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (PathRules(deny=("/root",)), "memory can hold what stands in any file, and /root is denied"),
        (PathRules(allow=("/etc",)), "'/proc' is not below /etc"),
        (PathRules(allow=("/",), deny=("/proc",)), "'/proc' is denied by /proc"),
    ],
)
def test_memory_is_not_read_where_path_rules_could_be_got_round_by_it(rules: PathRules, said: str) -> None:
    with plant(b"planted-here-by-a-test") as planted:
        parameters = {"rules": {"kit": IMPLANT}, "processes": {"p1": {"pids": [planted.pid]}}}
        result = run_operation("yara", parameters, Context(paths=rules))
        assert (result.status, result.records) == ("failed", ())
        assert result.notes[0].startswith("acl-refused: ")
        assert said in result.notes[0]
        assert look(planted.pid, Context(paths=PathRules(allow=("/proc",)))).found


def test_patterns_that_lie_apart_count_together_where_that_is_asked_for() -> None:
    # One stands in the mapping that is planted, the other in the program's own file.
    rules = """rule both {
      strings: $key = "planted-here-by-a-test" $elf = { 7f 45 4c 46 }
      condition: all of them
    }"""
    with plant(b"planted-here-by-a-test", size=1 << 24) as planted:
        chosen = {"p1": {"pids": [planted.pid]}}
        apart = ask(rules=rules, processes=chosen).records
        assert f"{planted.start:#x}" not in {record["region"]["address"] for record in apart}
        [record] = ask(rules=rules, processes=chosen, together=True).records
        places = {one["identifier"]: one["matches"] for one in record["patterns"]}
        assert {"offset": planted.address, "length": 22} in places["$key"]
        with Process(planted.pid) as process:
            for match in places["$elf"]:
                assert process.read(match["offset"], 4) == b"\x7fELF"


def test_together_a_match_where_two_windows_meet_is_told_once() -> None:
    content = bytearray(b"x" * (40 << 20))
    borders = [(32 << 20) - 11, (32 << 20) - (1 << 20) - 7, (31 << 20) + 100]
    for border in borders:
        content[border : border + 22] = b"planted-here-by-a-test"
    with plant(bytes(content), size=len(content)) as planted:
        [record] = ask(rules=IMPLANT, processes={"p1": {"pids": [planted.pid]}}, together=True).records
        offsets = [match["offset"] for match in record["patterns"][0]["matches"]]
        assert len(offsets) == len(set(offsets)) == record["patterns"][0]["count"]
        assert set(offsets) >= {planted.start + border for border in borders}


def test_more_memory_than_is_judged_at_once_is_judged_in_pieces_and_that_is_said() -> None:
    content = b"planted-here-by-a-test".ljust(BUNDLE_BYTES)
    with plant(content, size=len(content)) as planted:
        result = ask(rules=IMPLANT, processes={"p1": {"pids": [planted.pid]}}, together=True)
        assert result.found
        assert result.statistics["not_scanned"] == {"in-pieces": 1}
