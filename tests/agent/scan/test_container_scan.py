"""Tests of searching within containers, with the file module and real processes in roots of their own."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from agent.execute import run_operation
from agent.module import Cancelled, Context, decode_params
from agent.modules import file
from agent.modules.file import Record
from agent.platform.container_facts import ContainerFacts
from agent.registry import load_module
from agent.scan.container_scan import add, look_within
from client.flags import flag_parameters
from protocol.acl import PathRules
from protocol.result import OperationResult
from tests.support.containers import jailed, unshared

WITHIN = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="entering takes root")]


def marked(function: Any) -> Any:
    for mark in WITHIN:
        function = mark(function)
    return function


def find(container: str, context: Context | None = None, **search: Any) -> OperationResult:
    searches = {"s": {"options": {"matchall": True, "returnsha256": True}, **search}}
    return run_operation("file", {"searches": searches, "containers": [container]}, context or Context())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("etc/secret/key", "etc/passwd", "srv/many"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text("within")
    (root / "etc/secret/key").write_text("needle")
    (root / "proc").mkdir()
    (root / "leak").symlink_to("/etc/passwd")
    (tmp_path / "outside").write_text("needle")
    (root / "out").symlink_to(tmp_path / "outside")
    return root


@marked
def test_files_within_a_container_are_found_by_its_paths(root: Path) -> None:
    with jailed(root, "--pid") as pid:
        space = str(Path(f"/proc/{pid}/ns/pid").readlink())
        result = find(space, paths=["/"], names=["^(passwd|leak|out)$"])
        digest = hashlib.sha256(b"within").hexdigest()
        assert [(one["path"], one["hashes"]["sha256"], one["container"]) for one in result.records] == [
            ("/leak", digest, space),
            ("/etc/passwd", digest, space),
        ]
        assert result.status == "ok"
        assert result.statistics["containers_seen"] == 1
        # A link whose target is not within dangles.
        assert result.statistics["skipped"]["dangling-link"] == 1
        assert find(space, paths=["/etc/**/key"], contents=["needle"]).found
        assert not find(space, paths=[str(root)], names=["."]).found


@marked
def test_many_files_within_are_judged_by_workers_too(root: Path) -> None:
    (root / "srv").mkdir(exist_ok=True)
    for number in range(600):
        (root / f"srv/{number:04}").write_text(f"content {number}")
    with jailed(root, "--pid") as pid:
        result = find(str(Path(f"/proc/{pid}/ns/pid").readlink()), paths=["/srv"], contents=["content"])
    assert [one["path"] for one in result.records] == [f"/srv/{number:04}" for number in range(600)]
    assert result.records[7]["hashes"]["sha256"] == hashlib.sha256(b"content 7").hexdigest()


@marked
def test_what_leads_out_of_a_container_is_not_looked_at_and_said(root: Path) -> None:
    (root / "escape").symlink_to(f"/proc/{os.getpid()}/root{root.parent}/outside")
    context = Context()
    with jailed(root) as pid:
        facts = ContainerFacts("c1", "unknown", "cgroup", name="web\x1b[2J", pid=pid)
        searches = {"s": {"paths": ["/"], "contents": ["needle"]}}
        decoded = decode_params(file.Params, {"searches": searches, "containers": ["c1"]})
        totals: dict[str, Any] = {}
        found = list(
            look_within(
                facts, lambda inner, place: file._find(decoded, inner, place), Record, context, totals
            )
        )
    assert [one.path for one in found] == ["/etc/secret/key"]
    assert totals["skipped"]["not-allowed"] == 1
    assert any("leads out of the container" in note for note in context.notes)


@marked
def test_a_container_that_ends_meanwhile_is_said(root: Path) -> None:
    with jailed(root, "--pid") as pid:
        facts = ContainerFacts("c1", "unknown", "cgroup", pid=pid)
    context = Context()
    totals: dict[str, Any] = {"errors": 0}
    assert list(look_within(facts, lambda _inner, _place: iter(()), Record, context, totals)) == []
    assert totals["errors"] == 1
    assert "cannot be entered" in context.notes[0]


@marked
def test_a_process_that_dies_within_costs_the_run_nothing_but_its_own_container(root: Path) -> None:
    context = Context()
    totals: dict[str, Any] = {"errors": 0}
    with jailed(root, "--pid") as pid:
        facts = ContainerFacts("c1", "unknown", "cgroup", pid=pid)

        def die(_context: Context, _place: object) -> Any:
            os._exit(7)

        assert list(look_within(facts, die, Record, context, totals)) == []
    assert totals["errors"] == 1
    assert "its process ended with status 7" in context.notes[0]


@marked
def test_a_search_within_can_be_cancelled(root: Path) -> None:
    with jailed(root, "--pid") as pid:
        space = str(Path(f"/proc/{pid}/ns/pid").readlink())
        result = find(space, Context(is_cancelled=lambda: True), paths=["/"], names=["."])
    assert result.status == "cancelled"
    with pytest.raises(Cancelled):
        Context(is_cancelled=lambda: True).check()


@marked
def test_a_container_that_is_not_there_is_a_note() -> None:
    with unshared():
        result = find("nosuchcontainer", paths=["/"], names=["."])
    assert (result.found, result.notes) == (False, ("there is no container that is asked for",))


def test_access_rules_that_limit_paths_say_nothing_of_those_within() -> None:
    result = find("*", Context(paths=PathRules(allow=("/etc",))), paths=["/etc"], names=["."])
    assert result.status == "failed"
    assert "acl-refused" in result.notes[0]


def test_counts_of_containers_are_added() -> None:
    totals: dict[str, Any] = {"errors": 1, "skipped": {"a": 1}}
    add(totals, {"errors": 2, "skipped": {"a": 1, "b": 2}, "files_seen": 3, "word": "x"})
    assert totals == {"errors": 3, "skipped": {"a": 2, "b": 2}, "files_seen": 3}


def test_the_flag_names_containers() -> None:
    given = {"container": ("web1",), "path": ("/etc",), "name": ("x",)}
    assert flag_parameters(load_module("file"), given)["containers"] == ["web1"]
