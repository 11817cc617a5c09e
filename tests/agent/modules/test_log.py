"""Tests of the log module: records, what is said of what could not be looked at, and hostile lines."""

import gzip
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.execute import run_operation
from agent.module import Context, decode_params
from agent.modules import log
from agent.registry import load_module
from client.flags import flag_parameters, module_flags
from protocol.acl import PathRules
from protocol.errors import InvalidInput
from protocol.result import OperationResult
from tests.support.journals import make_journal

LINE = b"2026-01-02T03:04:%02dZ host sshd[7]: Invalid user %s from 203.0.113.7\n"


def run(context: Context | None = None, **parameters: Any) -> OperationResult:
    return run_operation("log", parameters, context or Context())


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "auth.log").write_bytes(b"".join(LINE % (at, b"eve") for at in range(10)))
    with gzip.open(tmp_path / "auth.log.1.gz", "wb") as packed:
        packed.write(LINE % (59, b"bob") + b"no time: Invalid user x\n")
    (tmp_path / "other.log").write_bytes(b"nothing\n")
    return tmp_path


def test_there_is_a_record_for_each_file_with_matching_lines(logs: Path) -> None:
    result = run(paths=[str(logs)], matches=["Invalid user"])
    assert result.records == (
        {
            "path": str(logs / "auth.log"),
            "count": 10,
            "first": "2026-01-02T03:04:00Z",
            "last": "2026-01-02T03:04:09Z",
            "form": "iso",
        },
        {
            "path": str(logs / "auth.log.1.gz"),
            "count": 2,
            "undated": 1,
            "first": "2026-01-02T03:04:59Z",
            "last": "2026-01-02T03:04:59Z",
            "form": "iso",
        },
    )
    assert (result.found, result.status) == (True, "ok")
    assert result.statistics["lines_seen"] == 13
    assert result.statistics["files_read"] == 3
    assert result.statistics["bytes_read"] == sum(one.stat().st_size for one in logs.iterdir())


def test_nothing_is_found_where_no_line_matches(logs: Path) -> None:
    result = run(paths=[str(logs)], matches=["nowhere"])
    assert (result.found, result.records) == (False, ())
    assert result.statistics["lines_seen"] == 13


def test_within_a_window_lines_without_a_time_are_told_apart(logs: Path) -> None:
    [record] = run(
        paths=[str(logs / "auth.log*")], names=["gz$"], matches=["Invalid"], since="2026-01-01T00:00:00Z"
    ).records
    assert (record["count"], record["undated"]) == (1, 1)
    assert not run(paths=[str(logs / "auth.log")], matches=["Invalid"], until="2026-01-02T03:04:00Z").found
    recent = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()).encode()
    (logs / "now.log").write_bytes(recent + b" Invalid\n")
    assert run(paths=[str(logs / "now.log")], matches=["Invalid"], since="<1h").found
    assert not run(paths=[str(logs / "now.log")], matches=["Invalid"], until=">1h").found


def test_values_come_with_their_counts_and_the_rest_is_counted(logs: Path) -> None:
    (logs / "auth.log").write_bytes(b"".join(LINE % (at, b"user%d" % (at // 3)) for at in range(10)))
    parameters: dict[str, Any] = {
        "matches": [r"user (?P<user>\S+)"],
        "fields": ["user", "_PID"],
        "maxvalues": 2,
    }
    [record] = run(paths=[str(logs / "auth.log")], **parameters).records
    assert record["fields"] == {"user": {"user0": 3, "user1": 3}, "_PID": {}}
    assert record["other_values"] == {"user": 4}


def test_a_hostile_line_or_name_breaks_nothing(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b'/\x1b[2J\xff"\n.log'
    with open(name, "wb") as file:  # noqa: PTH123  (a path of bytes)
        file.write(b'\x1b]0;x\x07 needle "}\xff\x00,\n\r\r\n' + b"(?P<" * 100 + b"\nneedle \xed\xa0\x80\n")
    result = run(paths=[str(tmp_path)], matches=[r"needle (?P<rest>.*)"], fields=["rest"])
    [record] = result.records
    assert record["count"] == 2
    assert record["path_b64"]
    assert record["path"].isprintable() is False
    assert b"\x1b" not in msgspec.json.encode(result)


@pytest.mark.system
def test_journals_are_put_together_by_unit_over_their_files(tmp_path: Path) -> None:
    for name, unit in (("a", b"a.service"), ("b", b"b.service"), ("c", b"a.service")):
        make_journal(
            tmp_path / f"{name}.journal", [{"MESSAGE": b"x", "_SYSTEMD_UNIT": unit, "_PID": b"7"}] * 3
        )
    result = run(paths=[str(tmp_path)], fields=["_PID"])
    assert [(one["unit"], one["count"], one["fields"]) for one in result.records] == [
        ("a.service", 6, {"_PID": {"7": 6}}),
        ("b.service", 3, {"_PID": {"7": 3}}),
    ]
    assert result.statistics["lines_seen"] == 9
    assert not run(paths=[str(tmp_path)], units=["^c"]).found


def test_a_damaged_journal_is_an_error_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.journal").write_bytes(b"LPKSHHRH" + b"\xff" * 500)
    result = run(paths=[str(tmp_path)], matches=["x"])
    assert result.statistics["errors"] == 1
    assert "is a journal of a kind that is not known" in result.notes[0]


def test_what_the_access_rules_do_not_allow_is_not_looked_at(logs: Path) -> None:
    context = Context(paths=PathRules(deny=(str(logs / "auth.log"),)))
    result = run(context, paths=[str(logs)], matches=["Invalid"])
    assert [record["path"] for record in result.records] == [str(logs / "auth.log.1.gz")]
    assert result.statistics["skipped"] == {"not-allowed": 1}


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({}, "name paths, or say journal"),
        ({"paths": ["/x"], "matches": ["("]}, "not a regular expression"),
        ({"paths": ["/x"], "since": ">1h"}, "an age here is written <1h"),
        ({"paths": ["/x"], "since": "yesterday"}, "since"),
        ({"paths": ["/x"], "priority": 8}, "priority"),
        ({"paths": ["/x"], "fields": ["a b"]}, "fields"),
        ({"paths": ["x"]}, "paths"),
    ],
)
def test_what_cannot_be_meant_is_refused(parameters: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        decode_params(log.Params, parameters)


def test_flags_follow_from_the_parameters() -> None:
    module = load_module("log")
    assert {"path", "match", "since", "priority", "journal"} <= {flag.name for flag in module_flags(module)}
    given = {"path": ("/var/log",), "match": ("x",), "priority": 3}
    assert flag_parameters(module, given) == {"paths": ("/var/log",), "matches": ("x",), "priority": 3}
