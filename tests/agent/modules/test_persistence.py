"""Tests of the persistence module: filters, digests, owners, what is never told."""

import hashlib
import os
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from agent.execute import run_operation
from agent.module import Context
from agent.modules import persistence
from agent.platform.autostart_sources import READERS
from agent.registry import load_module
from client.flags import flag_parameters
from protocol.acl import PathRules
from protocol.result import OperationResult
from tests.agent.scan.runs import grow

EVIL = b"#!/bin/sh\n"
SHA256 = hashlib.sha256(EVIL).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    grow(
        tmp_path,
        {
            "etc/crontab": b"0 0 * * * root /usr/bin/good\n* * * * * eve /tmp/evil --password secret-word\n",
            "usr/lib/systemd/system/good.service": b"[Service]\nExecStart=/usr/bin/good a b\n",
            "etc/ld.so.preload": b"/usr/lib/none.so\n",
            "usr/bin/good": b"good",
            "tmp/evil": EVIL,
            "var/lib/dpkg/info/good.list": b"/usr/bin/good\n/lib/systemd/system/good.service\n/etc/crontab\n",
        },
    )
    for path in tmp_path.rglob("*"):
        os.utime(path, (1, 1))
    os.utime(tmp_path / "tmp/evil")
    return tmp_path


def run(root: Path, context: Context | None = None, **parameters: Any) -> OperationResult:
    result = run_operation("persistence", {"root": str(root), **parameters}, context or Context())
    assert result.status == "ok", result
    return result


def told(root: Path, **parameters: Any) -> list[str]:
    return [f"{one['name']}:{one.get('line', '')}" for one in run(root, **parameters).records]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, ["good.service:", "crontab:1", "crontab:2", "none.so:1"]),
        ({"kinds": ["cron"]}, ["crontab:1", "crontab:2"]),
        ({"names": ["^good"]}, ["good.service:"]),
        ({"programs": ["^/tmp/"]}, ["crontab:2"]),
        ({"programs": ["!^/tmp/", "good$"]}, ["good.service:", "crontab:1"]),
        ({"programs": ["ld.so.preload$"]}, ["none.so:1"]),
        ({"sha256": [SHA256]}, ["crontab:2"]),
        ({"mtimes": ["<1d"]}, ["crontab:2"]),
        ({"mtimes": [">1d"], "kinds": ["preload"]}, ["none.so:1"]),
        ({"unpackaged": True}, ["crontab:2", "none.so:1"]),
        ({"enabled": True}, ["crontab:1", "crontab:2", "none.so:1"]),
    ],
)
def test_filters_must_all_hold(root: Path, filters: dict[str, Any], found: list[str]) -> None:
    assert told(root, **filters) == found


def test_a_record_has_digests_and_owners_of_the_file_and_of_its_programs(root: Path) -> None:
    (record,) = run(root, names=["^good"]).records
    unit = root / "usr/lib/systemd/system/good.service"
    assert record == {
        "kind": "systemd",
        "name": "good.service",
        "path": "/usr/lib/systemd/system/good.service",
        "enabled": False,
        "package": "good",
        "hashes": {"sha256": hashlib.sha256(unit.read_bytes()).hexdigest()},
        "mode": "-rw-r--r--",
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "size_bytes": unit.stat().st_size,
        "mtime": "1970-01-01T00:00:01Z",
        "programs": (
            {
                "path": "/usr/bin/good",
                "arguments": 2,
                "hashes": {"sha256": hashlib.sha256(b"good").hexdigest()},
                "package": "good",
                "mtime": "1970-01-01T00:00:01Z",
            },
        ),
    }
    (missing,) = run(root, kinds=["preload"]).records
    assert missing["programs"] == ({"path": "/usr/lib/none.so", "missing": True},)


def test_no_command_line_is_in_any_answer(root: Path) -> None:
    result = run(root)
    assert b"secret-word" not in msgspec.json.encode(result)
    assert b"--password" not in msgspec.json.encode(result)
    assert result.statistics["starts_seen"] == 4


def test_without_a_database_of_packages_that_is_said(root: Path) -> None:
    (root / "var/lib/dpkg/info/good.list").unlink()
    result = run(root, unpackaged=True)
    assert len(result.records) == 4
    assert result.notes == ("no database of dpkg, rpm or apk was found: nothing counts as packaged",)


def test_access_rules_hold_what_is_read(root: Path) -> None:
    context = Context(paths=PathRules(allow=(str(root),), deny=(str(root / "tmp"),)))
    result = run(root, context, programs=["^/tmp/"])
    (record,) = result.records
    assert record["programs"] == ({"path": "/tmp/evil", "arguments": 2, "missing": True},)
    assert result.statistics["skipped"] == {"not-allowed": 1}


def test_hostile_names_do_no_harm(tmp_path: Path) -> None:
    unit = os.fsencode(tmp_path / "etc/systemd/system") + b"/\x1b[2J\xff.service"
    Path(os.fsdecode(os.path.dirname(unit))).mkdir(parents=True)  # noqa: PTH120
    Path(os.fsdecode(unit)).write_bytes(b"[Service]\nExecStart=/x\xff\x07 a\nUser=\x1b\n")
    (record,) = run(tmp_path).records
    assert record["name"] == "\x1b[2J\\xff.service"
    assert record["programs"][0]["path"] == "/x\\xff\x07"
    assert record["path_b64"]


@pytest.mark.slow
def test_this_system_s_own_starts_are_told_and_most_belong_to_packages() -> None:
    result = run_operation("persistence", {"kinds": ["systemd"]}, Context())
    assert result.status == "ok"
    assert all(
        record["package"] for record in result.records if record["path"].startswith("/usr/lib/systemd/")
    )


@pytest.mark.parametrize(
    "parameters", [{"kinds": ["x"]}, {"names": ["("]}, {"sha256": ["x"]}, {"mtimes": ["7d"]}, {"x": 1}]
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any]) -> None:
    assert run_operation("persistence", parameters, Context()).status == "invalid-parameters"


def test_looser_spellings_and_flags_are_understood() -> None:
    assert persistence.upgrade({"sha256": SHA256.upper(), "kind": "cron"}) == {
        "sha256": [SHA256],
        "kinds": ["cron"],
    }
    made = flag_parameters(
        load_module("persistence"), {"kind": ("cron",), "mtime": ("<7d",), "unpackaged": True}
    )
    assert made == {"kinds": ["cron"], "mtimes": ["<7d"], "unpackaged": True}


def test_the_declared_kinds_are_those_that_are_read() -> None:
    assert set(get_args(persistence.Kind)) == set(READERS)


def test_a_file_that_is_too_large_has_no_digest_and_that_is_said(root: Path) -> None:
    with (root / "tmp/evil").open("r+b") as file:
        file.truncate(300 << 20)
    result = run(root, programs=["^/tmp/"])
    assert "hashes" not in result.records[0]["programs"][0]
    assert result.notes == ("/tmp/evil: no digest, it has more than 268435456 bytes",)
    assert result.statistics["skipped"] == {"too-large": 1}
