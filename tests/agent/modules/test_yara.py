"""Tests of the module yara on real files: what it finds, what it says it did not scan, what it refuses."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.execute import run_operation
from agent.module import UNBOUNDED, Cancelled, Context, decode_params
from agent.modules import yara
from agent.scan import rule_scan
from agent.scan.helper import Helper
from agent.scan.outcome import CHANGED, TOO_LARGE, Outcome, decode
from agent.scan.rule_work import Bounds, RuleWork
from agent.scan.rules import compile_rules
from protocol.acl import PathRules
from protocol.errors import InvalidInput
from protocol.result import OperationResult
from tests.agent.scan.runs import grow

NEEDLE = (
    'rule needle : found { meta: author = "ada" strings: $a = "needle" $b = "thread" condition: any of them }'
)
ENDLESS = """rule endless {
  condition: uint8(0) == 0x21 and for all i in (0..1000000000000) : ( i != 1000000000001 )
}"""

# Runs the module in a process with 100 MiB of memory more than it has at first.
NARROW = """
import json, resource, sys
import yara_x
from agent.execute import run_operation
from agent.module import Context
[held] = [int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData")]
resource.setrlimit(resource.RLIMIT_DATA, (held + (100 << 20),) * 2)
result = run_operation("yara", json.load(sys.stdin), Context())
print(json.dumps([result.statistics["not_scanned"], result.notes, [one["path"] for one in result.records]]))
"""

BOUNDS = Bounds(timeout_s=30, max_file_bytes=1000, max_process_bytes=1 << 30)
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read on Linux")


def ask(context: Context | None = None, *, rules: str = NEEDLE, **parameters: Any) -> OperationResult:
    """Run the module; it must have answered."""
    result = run_operation("yara", {"rules": {"kit": rules}, **parameters}, context or Context())
    assert result.status in ("ok", "limit"), result
    return result


def scan(
    tree: Path, *, rules: str = NEEDLE, options: dict[str, Any] | None = None, **filters: Any
) -> OperationResult:
    search = {"paths": [str(tree)], **filters, "options": options or {}}
    return ask(rules=rules, searches={"s1": search})


def paths(result: OperationResult, tree: Path) -> list[str]:
    return [record["path"].removeprefix(f"{tree}/") for record in result.records]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return grow(
        tmp_path,
        {"a.txt": b"xx needle\n", "b.txt": b"hay", "sub/c.bin": b"\x00thread needle", "sub/empty": b""},
    )


def test_a_rule_that_matches_is_told_with_its_places_and_nothing_of_the_content(tree: Path) -> None:
    [record] = scan(tree, names=["^c"]).records
    assert json.loads(json.dumps(record)) == {
        "search": "s1",
        "path": f"{tree}/sub/c.bin",
        "size_bytes": 14,
        "rule": "needle",
        "namespace": "kit",
        "tags": ["found"],
        "meta": {"author": "ada"},
        "patterns": [
            {"identifier": "$a", "count": 1, "matches": [{"offset": 8, "length": 6}]},
            {"identifier": "$b", "count": 1, "matches": [{"offset": 1, "length": 6}]},
        ],
    }


def test_without_a_filter_every_file_below_the_paths_is_scanned(tree: Path) -> None:
    result = scan(tree)
    assert paths(result, tree) == ["a.txt", "sub/c.bin"]
    assert result.statistics["files_scanned"] == 4
    assert result.statistics["files_matched"] == 2
    assert result.statistics["bytes_scanned"] == 10 + 3 + 14
    assert result.statistics["not_scanned"] == {}


@pytest.mark.slow
def test_files_are_chosen_as_in_module_file(tree: Path) -> None:
    (tree / "link").symlink_to("a.txt")
    assert paths(scan(tree, names=["txt$"]), tree) == ["a.txt"]
    assert paths(scan(tree, names=["^link$"]), tree) == ["link"]
    assert paths(scan(tree, contents=["thread"]), tree) == ["sub/c.bin"]
    assert paths(scan(tree, options={"maxdepth": 1}), tree) == ["a.txt", "link"]
    both = scan(tree, names=["a"], sizes=["<11"], options={"matchall": True, "returnhashes": ["md5"]})
    assert both.records[0]["hashes"] == {"md5": hashlib.md5((tree / "a.txt").read_bytes()).hexdigest()}  # noqa: S324


def test_a_file_that_two_searches_choose_is_told_by_both_and_counted_once(tree: Path) -> None:
    result = ask(searches={"s1": {"paths": [str(tree)]}, "s2": {"paths": [str(tree)], "names": ["^a"]}})
    assert [(record["search"], Path(record["path"]).name) for record in result.records] == [
        ("s1", "a.txt"), ("s2", "a.txt"), ("s1", "c.bin"),
    ]  # fmt: skip
    assert result.statistics["files_scanned"] == 4


@pytest.mark.slow
def test_many_files_are_scanned_by_workers_with_the_same_answer(tmp_path: Path) -> None:
    grow(tmp_path, {f"d{n % 7}/f{n}": b"needle" if n % 10 == 0 else b"hay" for n in range(600)})
    result = scan(tmp_path)
    assert sorted(paths(result, tmp_path)) == sorted(f"d{n % 7}/f{n}" for n in range(0, 600, 10))
    assert result.statistics["files_scanned"] == 600
    assert result.statistics["not_scanned"] == {}


@pytest.mark.slow
def test_within_a_budget_the_answer_is_the_same(tree: Path) -> None:
    chosen = {"s1": {"paths": [str(tree)]}}
    for name, value in (("workers", 1), ("cpu_percent", 400), ("read_bytes_per_s", 1 << 20)):
        parameters: dict[str, Any] = {"searches": chosen, name: value}
        assert paths(ask(**parameters), tree) == ["a.txt", "sub/c.bin"]


def test_a_matchlimit_counts_files_in_which_something_matched(tree: Path) -> None:
    result = scan(tree, options={"matchlimit": 1})
    assert paths(result, tree) == ["a.txt"]
    assert "search s1: stopped at its matchlimit of 1; there are more matches" in result.notes
    assert scan(tree, options={"matchlimit": 2}).status == "ok"


def test_a_file_that_is_too_large_is_named_and_not_scanned(tree: Path) -> None:
    result = ask(searches={"s1": {"paths": [str(tree)]}}, max_file_bytes=10)
    assert paths(result, tree) == ["a.txt"]
    assert result.statistics["not_scanned"] == {"too-large": 1}
    assert result.statistics["files_scanned"] == 3
    assert f"{tree}/sub/c.bin: not scanned: larger than 10 bytes (max_file_bytes)" in result.notes


@pytest.mark.system
def test_a_file_over_which_the_rules_take_too_long_is_named_and_the_others_are_scanned(tree: Path) -> None:
    grow(tree, {"a.slow": b"!"})
    result = ask(rules=NEEDLE + ENDLESS, searches={"s1": {"paths": [str(tree)]}}, timeout_s=1)
    assert paths(result, tree) == ["a.txt", "sub/c.bin"]
    assert result.statistics["not_scanned"] == {"timed-out": 1}
    assert f"{tree}/a.slow: not scanned: the rules took longer than 1 s" in result.notes
    assert result.statistics["files_scanned"] == 4


def test_a_scan_stops_when_as_much_was_scanned_as_may_be(tmp_path: Path) -> None:
    grow(tmp_path, {f"f{n:03}": b"needle" * 100 for n in range(300)})
    result = ask(searches={"s1": {"paths": [str(tmp_path)]}}, max_total_bytes=6000)
    assert result.status == "limit"
    assert "stopped: 6000 bytes were scanned (max_total_bytes)" in result.notes
    assert len(result.records) == 11


def work_on(path: Path, meanwhile: Callable[[], None] = lambda: None, *, rules: str = NEEDLE) -> Outcome:
    """Do with one file what a helper does; `meanwhile` happens whenever a piece of it was read."""
    script = RuleWork(compile_rules({"kit": rules}, {}), Bounds(30, 1000, 1000), budget=UNBOUNDED, share=1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with path.open("rb") as file:
            os.write(writer, script(b"F" + os.fsencode(path), file.fileno(), meanwhile))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        return decode(answer.read())


@pytest.mark.slow
def test_a_file_that_changes_while_it_is_read_counts_as_scanned_only_where_something_matched(
    tree: Path,
) -> None:
    def grow_it(path: Path) -> Callable[[], None]:
        def append() -> None:
            path.write_bytes(path.read_bytes() + b"more")

        return append

    quiet = work_on(tree / "b.txt", grow_it(tree / "b.txt"))
    assert (quiet.hits, [reason for reason, _ in quiet.holes]) == ((), [CHANGED])
    loud = work_on(tree / "a.txt", grow_it(tree / "a.txt"))
    assert ([hit.rule.rule for hit in loud.hits], [reason for reason, _ in loud.holes]) == (
        ["needle"],
        [CHANGED],
    )


def test_a_file_is_too_large_also_where_it_says_that_it_is_empty() -> None:
    assert [reason for reason, _ in work_on(Path("/proc/self/smaps")).holes] == [TOO_LARGE]
    assert work_on(Path("/proc/self/comm")).size > 0


def test_what_is_no_file_is_counted(tree: Path) -> None:
    result = scan(tree, types=["directory", "file"])
    assert result.statistics["not_scanned"] == {"no-file": 2}
    assert result.statistics["files_scanned"] == 4


def test_a_rule_that_matches_everywhere_gives_a_bounded_record_that_says_so(tmp_path: Path) -> None:
    grow(tmp_path, {"f": b"a" * 5000})
    patterns = " ".join(f"$p{n} = {{ 61 ({'?? ' * (n + 1)}) }}" for n in range(60))
    result = scan(tmp_path, rules=f"rule each {{ strings: {patterns} condition: all of them }}")
    [record] = result.records
    assert sum(len(pattern["matches"]) for pattern in record["patterns"]) == 1000
    assert record["patterns"][0]["count"] == 1000
    assert len(json.dumps(record)) < 60_000


@on_linux
@pytest.mark.system
def test_the_engines_end_over_one_file_costs_only_that_file(tree: Path) -> None:
    # Room for the engine and for small files, not for the large ones; the second is a worker's.
    large = b"needle" * (20 << 20)
    grow(tree, {"a.large": large, **{f"n/{n}": b"hay" for n in range(300)}, "z/b.large": large})
    parameters = {
        "rules": {"kit": NEEDLE},
        "searches": {"s1": {"paths": [str(tree)]}},
        "max_file_bytes": 1 << 30,
    }
    done = subprocess.run(
        [sys.executable, "-c", NARROW],
        input=json.dumps(parameters),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    not_scanned, notes, found = json.loads(done.stdout)
    assert not_scanned == {"crashed": 2}
    for name in ("a.large", "z/b.large"):
        assert any(note.startswith(f"{tree}/{name}: not scanned: its process ended ") for note in notes)
    assert [Path(path).name for path in found] == ["a.txt", "c.bin"]


@pytest.mark.slow
@settings(max_examples=20)
@given(st.binary(min_size=1))
def test_whatever_a_helper_answers_is_an_outcome(answer: bytes) -> None:
    with closing(Helper(lambda _request, _descriptor, _say: answer, silence_s=60)) as helper:
        outcome = decode(rule_scan.ask(helper, b"F", 0))
    assert outcome.holes or outcome == decode(answer)


def test_cancelling_ends_a_scan_that_hangs_in_a_rule_and_keeps_what_was_found(tree: Path) -> None:
    grow(tree, {"a.txt": b"needle", "b.slow": b"!"})
    found: list[yara.Record] = []
    params = decode_params(
        yara.Params,
        {"rules": {"kit": NEEDLE + ENDLESS}, "timeout_s": 600, "searches": {"s1": {"paths": [str(tree)]}}},
    )
    context = Context(is_cancelled=lambda: bool(found))

    def take() -> None:
        # One by one: the first is what has the scan cancelled.
        for record in yara.run(params, context):
            found.append(record)  # noqa: PERF402

    with pytest.raises(Cancelled, match="^$"):
        take()
    assert [record.rule for record in found] == ["needle"]
    assert context.statistics["files_matched"] == 1


def test_files_outside_the_paths_that_are_allowed_are_not_scanned(tree: Path) -> None:
    (tree / "sub" / "out").symlink_to(tree / "a.txt")
    context = Context(paths=PathRules(allow=(str(tree / "sub"),)))
    result = ask(context, searches={"s1": {"paths": [str(tree / "sub")]}})
    assert paths(result, tree) == ["sub/c.bin"]
    assert result.statistics["skipped"]["not-allowed"] == 1


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "nothing to scan: give searches or processes"),
        ({"searches": {"a": {"paths": ["/x"]}}, "processes": {"a": {"pids": [1]}}}, "the label 'a' names a"),
        ({"processes": {"a": {}}}, "the search names no process: give pids or names"),
        ({"processes": {"a": {"names": ["("]}}}, r"names: .* - at `\$.processes\[...\]`"),
        ({"processes": {"a": {"pids": [0]}}}, "Expected `int` >= 1"),
        ({"searches": {"a": {"paths": ["x"]}}}, "paths"),
        ({"searches": {"a": {"paths": ["/x"]}}, "timeout_s": 601}, "Expected `int` <= 600"),
        ({"searches": {"a": {"paths": ["/x"]}}, "variables": {"a-b": 1}}, "matching regex"),
        ({"searches": {"a": {"paths": ["/x"]}}, "rules": {}}, "length >= 1"),
        ({"searches": {"a": {"paths": ["/x"]}}, "rules": {"a": "x" * 400_000, "b": "x" * 400_000}}, "600000"),
    ],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        decode_params(yara.Params, {"rules": {"kit": NEEDLE}, **parameters})
    assert caught.value.code == "bad-parameters"


def test_rules_that_do_not_compile_are_the_answer() -> None:
    result = run_operation(
        "yara", {"rules": {"kit": "rule"}, "searches": {"s": {"paths": ["/x"]}}}, Context()
    )
    assert (result.status, result.records) == ("invalid-parameters", ())
    assert result.notes[0].startswith("bad-parameters: rules kit, line 1, column 5: syntax error")


def test_flags_make_parameters_and_read_the_rules(tmp_path: Path) -> None:
    grow(tmp_path, {"web shell.yar": NEEDLE.encode()})
    made = yara.from_flags(
        {
            "rules": (str(tmp_path / "web shell.yar"),),
            "path": ("/srv",),
            "name": ("php$",),
            "pid": (7,),
            "process": ("^sshd$",),
            "variable": ("a=7", "b=x=y", "c=true", "d=0.5"),
            "timeout": 5,
            "maxsize": 1000,
            "cpu-percent": 50,
        }
    )
    params = decode_params(yara.Params, made)
    assert params.rules == {"web_shell": NEEDLE}
    assert params.searches["s1"].names == ("php$",)
    assert params.processes["p1"] == yara.ProcessSearch(pids=(7,), names=("^sshd$",), matchlimit=1000)
    assert params.variables == {"a": 7, "b": "x=y", "c": True, "d": 0.5}
    assert (params.timeout_s, params.max_file_bytes, params.cpu_percent) == (5, 1000, 50)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"path": ("/x",)}, "name at least one file with --rules"),
        ({"rules": ("{tree}/none.yar",), "path": ("/x",)}, "none.yar: No such file or directory"),
        ({"rules": ("{tree}/sub/c.bin",)}, "name at least one --path, --pid or --process"),
        ({"rules": ("{tree}/a.txt", "{tree}/a.txt"), "path": ("/x",)}, "two files with rules are called a"),
        ({"rules": ("{tree}/latin",), "path": ("/x",)}, "latin: is not UTF-8 text"),
        ({"rules": ("{tree}/a.txt",), "path": ("/x",), "variable": ("a",)}, "'a' is not NAME=VALUE"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(tree: Path, flags: dict[str, Any], said: str) -> None:
    grow(tree, {"latin": b"\xff"})
    given = {**flags, "rules": tuple(name.replace("{tree}", str(tree)) for name in flags.get("rules", ()))}
    with pytest.raises(InvalidInput, match=said) as caught:
        yara.from_flags(given)
    assert caught.value.code == "usage"


def test_the_ancestors_parameters_are_understood() -> None:
    line = "-path /srv -name '^a b$' -size='<5k' -matchany -maxdepth 3"
    upgraded = yara.upgrade({"yara": NEEDLE, "filesearch": line})
    params = decode_params(yara.Params, upgraded)
    search = params.searches["s1"]
    assert params.rules == {"rules": NEEDLE}
    assert (search.paths, search.names, search.sizes) == (("/srv",), ("^a b$",), ("<5k",))
    assert (search.options.matchall, search.options.maxdepth) == (False, 3)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "name at least one --path"),
        ("-path", "-path has no value"),
        ("-pith /x", "'-pith' is no flag of a file search"),
        ("/x", "'/x' is no flag of a file search"),
        ("-path '/x", "No closing quotation"),
        ("-path /x -maxdepth deep", "-maxdepth: 'deep' is no number"),
    ],
)
def test_a_line_of_flags_that_makes_no_search_is_refused(line: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        yara.upgrade({"yara": NEEDLE, "filesearch": line})


def test_a_lone_text_of_rules_gets_a_label_and_searches_may_be_spelt_as_in_module_file() -> None:
    upgraded = yara.upgrade({"rules": NEEDLE, "searches": {"a b": {"path": "/x"}}})
    assert upgraded == {"rules": {"rules": NEEDLE}, "searches": {"a_b": {"paths": ["/x"]}}}


def test_rules_are_reviewed_before_they_are_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    def params(rules: str) -> yara.Params:
        decoded: yara.Params = decode_params(
            yara.Params, {"rules": {"kit": rules}, "searches": {"s": {"paths": ["/x"]}}}
        )
        return decoded

    assert list(yara.review(params(NEEDLE))) == []
    [slow] = yara.review(params("rule r { strings: $a = { 00 [1-10] 01 } condition: $a }"))
    assert "slow pattern" in slow
    with pytest.raises(InvalidInput, match="rules kit, line 1, column 5: syntax error"):
        list(yara.review(params("rule")))
    # A build without the engine.
    monkeypatch.setitem(sys.modules, "yara_x", None)
    [left] = yara.review(params("rule"))
    assert left.startswith("the rules were not compiled here")
