"""Tests of what bounds the module process: hostile names, missing rights, path rules, its parameters."""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.execute import run_operation
from agent.module import Budget, Context, Limits, decode_params
from agent.modules import process
from agent.registry import load_module
from client.flags import flag_parameters
from protocol.acl import PathRules
from protocol.errors import InvalidInput
from protocol.result import OperationResult
from tests.support.asking_process import ask, forked, is_found
from tests.support.spawned import copied, spawned

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NOBODY = 65534
HOSTILE = b'\x1b]0;x\x07"\n\xff\\'


def test_a_hostile_name_does_no_harm(tmp_path: Path) -> None:
    program = os.fsencode(tmp_path) + b"/" + HOSTILE + b" (deleted)"
    shutil.copy("/bin/cat", os.fsdecode(program))
    with copied(program) as child:
        result = ask(pids=[child.pid], returnsha256=True)
        text = msgspec.json.encode(result)
        assert b"\x1b" not in text
        [record] = json.loads(text)["records"]
        assert record["process"] == '\x1b]0;x\x07"\n' + r"\xff\\ (del"
        assert record["executable"].endswith(r"\xff\\ (deleted)")
        assert "deleted" not in record
        assert record["executable_b64"]
        assert is_found(child.pid, names=['^\\x1b\\]0;x\\x07"\\n\\xff'])


@pytest.mark.slow
@as_root
def test_who_is_not_root_says_what_is_not_known_of_others() -> None:
    with spawned("open('/proc/self/comm', 'w').write('of-root')") as child:
        by_name = forked(lambda: ask(pids=[child.pid], names=["^of-root$"]), NOBODY)
        [record] = by_name.records
        assert "executable" not in record
        assert by_name.notes == ("of 1 processes told in part only: program: Permission denied",)
        for filters, what in (
            ({"names": ["^of-root$", "!^python"]}, "program"),
            ({"executables": ["!x"]}, "program"),
            ({"deleted": True}, "program"),
            ({"variables": ["!x"]}, "environment"),
            ({"open_files": ["!x"]}, "open files"),
            ({"ports": [22]}, "open files"),
            ({"sha256": ["0" * 64]}, "program"),
        ):
            result = forked(lambda filters=filters: ask(pids=[child.pid], **filters), NOBODY)  # type: ignore[misc]
            assert result.records == ()
            assert result.statistics["skipped"] == {what: 1}
            assert result.statistics["errors"] == 1
            assert result.notes == (f"1 processes could not be judged: {what}: Permission denied",)


def test_path_rules_hold_for_what_is_read_of_processes(tmp_path: Path) -> None:
    program = tmp_path / "cat"
    shutil.copy("/bin/cat", program)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    with copied(str(program)) as child:

        def ruled(rules: PathRules, **parameters: Any) -> OperationResult:
            return run_operation("process", {"pids": [child.pid], **parameters}, Context(paths=rules))

        for rules in (PathRules(deny=("/proc",)), PathRules(allow=("/usr",))):
            for filters in (
                {"commands": ["x"]},
                {"variables": ["x"]},
                {"open_files": ["x"]},
                {"libraries": ["x"]},
            ):
                result = ruled(rules, **filters)
                assert result.status == "failed"
                assert "acl-refused" in result.notes[0]
        allowed = ruled(PathRules(allow=(str(tmp_path),)), sha256=[digest])
        assert allowed.found
        outside = ruled(PathRules(deny=(str(tmp_path),)), sha256=[digest])
        assert not outside.found
        assert outside.notes == ("1 processes could not be judged: program: outside-allowed-paths",)
        named = ruled(PathRules(deny=(str(tmp_path),)), returnsha256=True)
        assert named.found
        assert "hashes" not in named.records[0]


def test_hashing_keeps_a_budget() -> None:
    context = Context(budget=Budget(cpu_percent=10_000, read_bytes_per_s=1 << 40))
    [record] = ask(context, pids=[os.getpid()], returnsha256=True).records
    assert set(record["hashes"]) == {"sha256"}


def test_a_run_that_is_over_keeps_what_it_found() -> None:
    result = run_operation("process", {}, Context(limits=Limits(wall_s=-1)))
    assert (result.status, result.records) == ("timed-out", ())
    assert result.statistics["processes_seen"] == 0


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"names": ["("]}, "is not a regular expression"),
        ({"commands": ["!("]}, "is not a regular expression"),
        ({"capabilities": ["cap_none"]}, "there is no capability"),
        ({"sha256": ["00"]}, "sha256"),
        ({"starts": ["1h"]}, "starts"),
        ({"ports": [0]}, "ports"),
        ({"containers": ["a b"]}, "containers"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_makes_no_sense_is_refused_while_decoding(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        decode_params(process.Params, parameters)


def test_looser_spellings_are_rewritten() -> None:
    assert process.upgrade(
        {
            "Name": "x",
            "parent": ["a"],
            "sha2": ["A" * 64, "b" * 96],
            "openfile": "y",
            "start": "<1h",
            "port": 22,
        }
    ) == {
        "names": ["x"],
        "ancestors": ["a"],
        "sha256": ["a" * 64],
        "sha384": ["b" * 96],
        "openfile": "y",
        "starts": ["<1h"],
        "ports": [22],
    }
    assert process.upgrade("nonsense") == "nonsense"


def test_flags_make_the_parameters() -> None:
    module = load_module("process")
    given = {
        "name": ("^x$",), "pid": (1, 2), "open-file": ("y",), "sha3-256": ("A" * 64,), "deleted": True,
        "returnhash": ("SHA3-256",), "matchlimit": 5,
    }  # fmt: skip
    parameters = flag_parameters(module, given)
    assert parameters == {
        "names": ["^x$"],
        "pids": [1, 2],
        "open_files": ["y"],
        "sha3_256": ["a" * 64],
        "deleted": True,
        "returnhashes": ["sha3_256"],
        "matchlimit": 5,
    }
    decode_params(process.Params, parameters)
