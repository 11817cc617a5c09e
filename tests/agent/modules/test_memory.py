"""Tests of the module memory on real processes that the tests make."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.execute import run_operation
from agent.module import Budget, Context, decode_params
from agent.modules import memory
from agent.registry import load_module
from client.flags import flag_parameters
from protocol.acl import PathRules
from protocol.errors import InvalidInput
from protocol.result import OperationResult
from tests.support.asking_process import forked
from tests.support.layout import PAGE_BYTES, layout
from tests.support.planted import plant
from tests.support.spawned import spawned

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read on Linux")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

WORD = b"planted-here-by-a-memory-test"
# As an expression that does not stand as such in our own memory or in that of whoever runs us.
ODD = "planted-here-by-a-memory-tes[t]"
ALL = {"matchall": True}


def ask(context: Context | None = None, **search: Any) -> OperationResult:
    """Run one search; it must have answered."""
    result = run_operation("memory", {"searches": {"s": search}}, context or Context())
    assert result.status in ("ok", "limit"), result
    return result


def found(**search: Any) -> set[int]:
    return {record["pid"] for record in ask(**search).records}


def test_what_is_in_memory_is_told_by_process_mapping_and_count_and_never_itself() -> None:
    with plant(b"." + WORD + b"." + WORD, at=70_000) as planted:
        result = ask(pids=[planted.pid], contents=["planted-[a-z]+-by-a-memory-test"])
        [record] = result.records
        assert (record["search"], record["pid"], record["process"]) == ("s", planted.pid, planted.name)
        assert record["executable"] == str(Path(sys.executable).resolve())
        assert record["checks"] == ("content=planted-[a-z]+-by-a-memory-test",)
        [match] = record["matches"]
        places = {place["address"]: place["region"] for place in match["places"]}
        assert match["count"] == len(places)
        region = places[f"{planted.address + 1:#x}"]
        assert places[f"{planted.address + 2 + len(WORD):#x}"] == region
        assert region["address"] == f"{planted.start:#x}"
        assert (region["size_bytes"], region["permissions"]) == (planted.size, "rw-p")
        assert WORD not in msgspec.json.encode(result.records)
        assert result.statistics["processes_seen"] == result.statistics["processes_read"] == 1
        assert int(str(result.statistics["bytes_read"])) > 1 << 20
        assert result.statistics["skipped"] == {}
        assert result.notes == ()


def test_without_numbers_the_memory_of_every_process_is_looked_into_but_our_own() -> None:
    with plant(WORD) as planted:
        # Whatever runs beside the tests may hold gigabytes.
        result = ask(bytes=[WORD.hex()], options={"maxlength": 32 << 20})
        by_pid = {record["pid"]: record for record in result.records}
        assert planted.pid in by_pid
        assert os.getpid() not in by_pid
        skipped = result.statistics["skipped"]
        assert isinstance(skipped, dict)
        assert skipped["own-process"] >= 1
        assert f"{skipped['own-process']} processes of the agent itself were left out" in result.notes


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ({"bytes": [WORD.hex(), WORD[3:].hex()]}, True),
        ({"bytes": [WORD.hex(), "9ad1c0ffee77e1d203b5"]}, False),
        ({"bytes": [WORD.hex(), "!9ad1c0ffee77e1d203b5"]}, True),
        ({"bytes": ["!" + WORD.hex()]}, False),
        ({"contents": [ODD, "!no-such-[t]hing"]}, True),
        ({"contents": [ODD, "no-such-[t]hing"]}, False),
        ({"names": ["^planted"], "contents": [ODD]}, True),
        ({"names": ["!^planted"], "contents": [ODD]}, False),
        ({"names": ["/python[^/]*$"], "libraries": ["/libc\\.so"]}, True),
        ({"libraries": ["!/libc\\.so"]}, False),
        ({"libraries": ["/python3\\.[0-9]+$"]}, False),
    ],
)
def test_with_matchall_every_check_holds(checks: dict[str, Any], *, expected: bool) -> None:
    with plant(WORD) as planted:
        result = ask(pids=[planted.pid], options=ALL, **checks)
        assert result.found is expected
        assert not any("checks" in record for record in result.records)


def test_with_matchall_memory_is_read_only_where_names_and_libraries_hold() -> None:
    with plant(WORD) as planted:
        missing: list[dict[str, Any]] = [{"names": ["^no$"]}, {"libraries": ["^/no$"]}]
        for checks in missing:
            result = ask(pids=[planted.pid], contents=[ODD], options=ALL, **checks)
            assert (result.statistics["processes_read"], result.statistics["bytes_read"]) == (0, 0)
        result = ask(pids=[planted.pid], names=[f"^{planted.name}$"], contents=[ODD], options=ALL)
        assert result.statistics["processes_read"] == 1


def test_any_check_is_enough_otherwise_and_those_that_hold_are_named() -> None:
    with plant(WORD) as planted:
        result = ask(
            pids=[planted.pid],
            names=["^no$", "^planted"],
            libraries=["!^/no$"],
            bytes=["9ad1c0ffee77e1d203b5"],
            contents=[ODD],
        )
        [record] = result.records
        assert record["checks"] == ("name=^planted", "library=!^/no$", f"content={ODD}")
        assert [match["check"] for match in record["matches"]] == [f"content={ODD}"]


def test_several_searches_are_independent() -> None:
    with plant(WORD) as planted, plant(b"other") as other:
        searches = {
            "word": {"pids": [planted.pid, other.pid], "contents": [ODD]},
            "both": {"pids": [planted.pid, other.pid], "names": ["^planted"]},
            "far": {"pids": [planted.pid], "contents": [ODD], "options": {"offset": (1 << 62)}},
            "none": {"pids": [other.pid], "contents": [ODD], "options": ALL},
        }
        result = run_operation("memory", {"searches": searches}, Context())
        told = {(record["search"], record["pid"]) for record in result.records}
        assert told == {("word", planted.pid), ("both", planted.pid), ("both", other.pid)}
        assert result.statistics["processes_matched"] == 3


def test_what_is_not_in_memory_holds_only_where_all_was_read() -> None:
    with layout() as process:
        search: dict[str, Any] = {"pids": [process.pid], "contents": ["!no-such-[t]hing"], "options": ALL}
        process.lay("rrr", bytes(3 * PAGE_BYTES))
        assert ask(**search).found
        process.lay("rtr", bytes(3 * PAGE_BYTES))
        result = ask(**search)
        assert not result.found
        assert result.statistics["skipped"] == {"unreadable": 1}
        assert result.statistics["bytes_skipped"] == {"unreadable": PAGE_BYTES}
        assert result.statistics["errors"] == 1
        [note] = result.notes
        assert note.endswith(f"{PAGE_BYTES} bytes of its memory could not be read")


def test_a_span_of_memory_is_read_and_no_more() -> None:
    with plant(WORD, at=3 * PAGE_BYTES) as planted:
        for offset, maxlength, expected in (
            (planted.start, 4 * PAGE_BYTES, True),
            (planted.start, PAGE_BYTES, False),
            (planted.address, len(WORD), True),
            (planted.address + 1, len(WORD), False),
        ):
            options = {"offset": offset, "maxlength": maxlength}
            result = ask(pids=[planted.pid], bytes=[WORD.hex()], options=options)
            assert result.found is expected
            assert result.statistics["bytes_read"] == maxlength


def test_the_mappings_of_a_process_are_listed_where_asked_for() -> None:
    with plant(WORD) as planted:
        [record] = ask(pids=[planted.pid], options={"returnregions": True}).records
        lines = Path(f"/proc/{planted.pid}/maps").read_text().splitlines()
        assert record["regions_count"] == len(record["regions"]) == len(lines)
        assert {
            "address": f"{planted.start:#x}", "size_bytes": planted.size, "permissions": "rw-p"
        } in record["regions"]  # fmt: skip
        assert any(region.get("path") == "[heap]" for region in record["regions"])
        [plain] = ask(pids=[planted.pid]).records
        assert "regions" not in plain


def test_a_matchlimit_cuts_and_says_so() -> None:
    with plant(WORD) as one, plant(WORD) as other:
        result = ask(pids=[one.pid, other.pid], contents=[ODD], options={"matchlimit": 1})
        assert len(result.records) == 1
        assert result.truncated
        assert result.notes == ("search s: stopped at its matchlimit of 1; there are more matches",)


def test_a_process_that_is_not_there_is_named() -> None:
    with plant(b"") as planted:
        pass
    result = ask(pids=[planted.pid], contents=[ODD])
    assert result.notes == (f"process {planted.pid}: there is none",)
    assert result.statistics["skipped"] == {"ended": 1}


@as_root
def test_memory_that_may_not_be_read_is_denied_and_said() -> None:
    with plant(WORD) as planted:
        result = forked(lambda: ask(pids=[planted.pid], contents=[ODD, "!no-such-[t]hing"]), 65534)
        assert not result.found
        assert result.statistics["skipped"] == {"denied": 1}
        assert result.notes == (f"process {planted.pid} ({planted.name}): its memory may not be looked at",)


def test_threads_of_the_kernel_have_no_memory_and_satisfy_no_positive_check() -> None:
    result = ask(libraries=["."], names=["^no-such-process-at-all$"], options=ALL)
    assert not result.found
    assert int(str(result.statistics["processes_seen"])) > 1


def test_a_hostile_name_does_no_harm() -> None:
    program = (
        r"open('/proc/self/comm','wb').write(b'\x1b]0;\xff\n\"x'); held = b'planted-' + b'in-hostile-memory'"
    )
    with spawned(program) as child:
        result = ask(pids=[child.pid], contents=["planted-in-[h]ostile-memory"])
        text = msgspec.json.encode(result)
        assert b"\x1b" not in text
        [record] = json.loads(text)["records"]
        assert record["process"] == '\x1b]0;\\xff\n"x'


def test_path_rules_that_memory_could_get_round_refuse_it() -> None:
    parameters = {"searches": {"s": {"pids": [os.getpid()], "contents": ["x"]}}}
    for rules in (PathRules(deny=("/etc/shadow",)), PathRules(allow=("/usr",))):
        result = run_operation("memory", parameters, Context(paths=rules))
        assert result.status == "failed"
        assert "acl-refused" in result.notes[0]
    assert run_operation("memory", parameters, Context(paths=PathRules(allow=("/proc",)))).status == "ok"


def test_a_run_that_is_cancelled_keeps_what_it_found_and_what_it_counted() -> None:
    asked: list[int] = []

    def is_cancelled() -> bool:
        asked.append(1)
        return len(asked) > 4

    with plant(WORD, at=8 << 20, size=16 << 20) as planted:
        result = run_operation(
            "memory",
            {"searches": {"s": {"pids": [planted.pid], "contents": [ODD]}}},
            Context(is_cancelled=is_cancelled),
        )
    assert result.status == "cancelled"
    assert int(str(result.statistics["bytes_read"])) > 0


def test_a_budget_is_kept_between_pieces() -> None:
    with plant(WORD) as planted:
        context = Context(budget=Budget(cpu_percent=10_000, read_bytes_per_s=1 << 40))
        assert ask(context, pids=[planted.pid], contents=[ODD]).found


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({}, "the search has no check"),
        ({"contents": ["("]}, "is not a regular expression"),
        ({"contents": ["a*"]}, "matches nothing at all"),
        ({"contents": ["^"]}, "matches nothing at all"),
        ({"contents": ["\\Ax"]}, "mean nothing here"),
        ({"contents": ["(?-m)^x"]}, "mean nothing here"),
        ({"names": ["("]}, "is not a regular expression"),
        ({"bytes": ["0"]}, "bytes"),
        ({"bytes": ["00" * 2000]}, "bytes"),
        ({"pids": [0]}, "pids"),
        ({"contents": ["x"], "options": {"maxlength": -1}}, "maxlength"),
        ({"contents": ["x"], "options": {"nonsense": 1}}, "nonsense"),
    ],
)
def test_what_makes_no_sense_is_refused_while_decoding(search: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        decode_params(memory.Params, {"searches": {"s": search}})


def test_the_ancestor_s_spellings_are_rewritten() -> None:
    ancestor = {
        "searches": {
            "x y": {
                "description": "d",
                "name": ["^a"],
                "library": "b",
                "Bytes": ["AB01"],
                "content": ["c"],
                "options": {"offset": 0.0, "maxlength": 10000.0, "logfailures": True, "matchall": True},
            }
        }
    }
    upgraded = memory.upgrade(ancestor)
    assert upgraded == {
        "searches": {
            "x_y": {
                "description": "d",
                "names": ["^a"],
                "libraries": ["b"],
                "bytes": ["ab01"],
                "contents": ["c"],
                "options": {"offset": 0, "maxlength": 10000, "matchall": True},
            }
        }
    }
    decode_params(memory.Params, upgraded)
    assert memory.upgrade({"searches": {"s": {"content": "c", "options": {"logfailures": True}}}}) == {
        "searches": {"s": {"contents": ["c"]}}
    }
    assert memory.upgrade("nonsense") == "nonsense"


def test_flags_make_one_search_in_which_every_check_must_hold() -> None:
    module = load_module("memory")
    parameters = flag_parameters(
        module,
        {
            "name": ("^a",),
            "lib": ("b",),
            "library": ("c",),
            "bytes": ("AB",),
            "pid": (1,),
            "offset": 7,
            "maxlength": 9,
            "workers": 1,
        },
    )
    assert parameters == {
        "searches": {
            "s1": {
                "names": ["^a"],
                "libraries": ["c", "b"],
                "bytes": ["ab"],
                "pids": [1],
                "options": {"matchall": True, "matchlimit": 1000, "offset": 7, "maxlength": 9},
            }
        },
        "workers": 1,
    }
    decode_params(memory.Params, parameters)
    assert flag_parameters(module, {"content": ("x",), "matchany": True})["searches"]["s1"]["options"] == {
        "matchall": False,
        "matchlimit": 1000,
    }
    for given, said in (
        ({}, "name what to look for"),
        ({"content": ("x",), "matchall": True, "matchany": True}, "exclude each other"),
    ):
        with pytest.raises(InvalidInput, match=said):
            flag_parameters(module, given)
