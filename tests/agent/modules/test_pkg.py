"""Tests of the pkg module: filters, versions, verification, other roots, what was not looked at."""

import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest

from agent.execute import run_operation
from agent.module import Context
from agent.modules import pkg
from agent.platform.package_sources import TYPES
from agent.registry import load_module
from client.flags import flag_parameters
from protocol.acl import PathRules
from protocol.result import OperationResult
from tests.agent.platform.rpm_samples import install_rpm
from tests.agent.platform.test_packages_dpkg import system
from tests.agent.scan.runs import grow


def run(root: Path, context: Context | None = None, **parameters: Any) -> OperationResult:
    result = run_operation("pkg", {"root": str(root), **parameters}, context or Context())
    assert result.status == "ok", result
    return result


def names(root: Path, **parameters: Any) -> list[str]:
    return [record["name"] for record in run(root, **parameters).records]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    system(tmp_path)
    node = {"name": "left-pad", "version": "1.3.0"}
    return grow(
        tmp_path,
        {
            "usr/lib/node_modules/left-pad/package.json": json.dumps(node).encode(),
            "usr/lib/python3/dist-packages/odd.egg-info": b"Name: odd\nVersion: today\n",
        },
    )


def test_without_a_filter_every_package_is_told_but_those_removed(root: Path) -> None:
    result = run(root)
    assert [record["name"] for record in result.records] == ["tool", "broken", "odd", "left-pad"]
    assert result.records[0] == {
        "type": "dpkg",
        "name": "tool",
        "version": "1:1.0-2",
        "arch": "amd64",
        "source": "tools",
        "installed": result.records[0]["installed"],
        "size_bytes": 12288,
    }
    assert result.records[1]["state"] == "half-configured"
    assert result.records[3]["path"] == "/usr/lib/node_modules/left-pad/package.json"
    assert result.statistics["packages_seen"] == 4
    assert result.statistics["skipped"] == {"removed": 1}


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"names": ["^t", "^br"]}, ["tool", "broken"]),
        ({"names": ["!o"]}, ["left-pad"]),
        ({"names": ["o", "!^b"]}, ["tool", "odd"]),
        ({"sources": ["^tools$"]}, ["tool"]),
        ({"sources": ["^broken$"]}, ["broken"]),
        ({"types": ["npm", "pip"]}, ["odd", "left-pad"]),
        ({"versions": ["<1:1.0-3"]}, ["tool", "broken"]),
        ({"versions": ["<1:1.0-3"], "names": ["tool"]}, ["tool"]),
        ({"versions": [">=3", "=1.3.0"]}, ["tool", "broken", "left-pad"]),
        ({"versions": [">1.2,<1.3.1"]}, ["left-pad"]),
        ({"version_patterns": [r"\.0$"]}, ["broken", "left-pad"]),
        ({"version_patterns": ["!^1"]}, ["broken", "odd"]),
        ({"names": ["^nothing$"]}, []),
    ],
)
def test_filters_must_all_hold_and_their_values_are_alternatives(
    root: Path, filters: dict[str, Any], found: list[str]
) -> None:
    assert names(root, **filters) == found


def test_what_cannot_be_compared_is_no_match_and_is_said(root: Path) -> None:
    result = run(root, versions=["<99"], types=["pip"])
    assert not result.found
    assert result.statistics["not_compared"] == 1
    assert result.notes == ("odd today (pip): not compared, since it or the expression is no version there",)


def test_an_epoch_that_the_expression_lacks_is_said(root: Path) -> None:
    result = run(root, versions=["<1.1"], names=["^tool$"])
    assert not result.found
    assert result.notes == (
        "tool 1:1.0-2: has an epoch, the expression has none and was compared as epoch 0",
    )


def test_verification_tells_of_files_that_are_not_what_was_installed(root: Path) -> None:
    assert not run(root, names=["^tool$"], verify=True).found
    (root / "usr/bin/tool").write_bytes(b"changed")
    (root / "usr/bin/t").unlink()
    (root / "etc/tool.conf").write_bytes(b"edited")
    result = run(root, names=["^tool$"], verify=True)
    assert [(record["path"], record["differs"]) for record in result.records] == [
        ("/usr/bin/tool", ("digest",)),
        ("/usr/bin/t", ("missing",)),
    ]
    assert result.statistics["files_seen"] == 5
    with_config = run(root, names=["^tool$"], verify=True, config=True)
    assert with_config.records[0]["path"] == "/etc/tool.conf"
    assert with_config.records[0]["is_config"]


def test_packages_that_cannot_be_verified_are_counted_and_said(root: Path) -> None:
    result = run(root, verify=True)
    assert result.statistics["skipped"] == {"no-manifest": 3, "removed": 1}
    assert "1 packages not verified: npm keeps no manifest" in result.notes
    assert "1 packages not verified: dpkg has no list of files" in result.notes


@pytest.mark.system
def test_packages_of_rpm_are_verified_by_all_that_rpm_keeps(tmp_path: Path) -> None:
    root = install_rpm(tmp_path)
    grow(root, {"etc/passwd": b"root:x:0:0::/:\n", "etc/group": b"root:x:0:\n"})
    assert run(root, verify=True).records == ()
    (root / "opt/sample/data").write_bytes(b"other")
    os.utime(root / "opt/sample/data", (7, 7))
    (root / "opt/sample/more").chmod(0o4755)
    (root / "opt/sample/link").unlink()
    (root / "opt/sample/link").symlink_to("more")
    found = {record["path"]: record["differs"] for record in run(root, verify=True).records}
    assert found == {
        "/opt/sample/data": ("digest", "mtime"),
        "/opt/sample/more": ("mode",),
        "/opt/sample/link": ("target",),
    }
    assert names(root, versions=["<2:1.4"], types=["rpm"]) == ["sample"]


def test_packages_below_further_paths_are_found(tmp_path: Path, root: Path) -> None:
    srv = grow(
        tmp_path / "srv",
        {
            "app/node_modules/deep/package.json": b'{"name": "deep", "version": "1.0.0"}',
            "app/venv/lib/python3/site-packages/x.dist-info/METADATA": b"Name: x\nVersion: 2\n",
            "app/METADATA": b"Name: not-a-package\nVersion: 2\n",
            "gems/specifications/y-3.gemspec": b"",
        },
    )
    assert names(root / "none", paths=[str(srv)]) == ["deep", "x", "y"]
    assert names(root / "none", paths=[str(srv)], types=["gem"]) == ["y"]


def test_access_rules_keep_the_databases_closed_and_that_is_said(root: Path) -> None:
    context = Context(paths=PathRules(allow=(str(root / "usr"),)))
    result = run(root, context)
    assert [record["name"] for record in result.records] == ["odd", "left-pad"]
    assert result.statistics["skipped"]["not-allowed"] >= 1
    assert any("access rules do not allow it" in note for note in result.notes)


def test_hostile_packages_do_no_harm(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "var/lib/dpkg/status": b'Package: \x1b[2J"\xff\nVersion: <script>\x00\nStatus: a b \x07\n',
            "var/lib/dpkg/info/list": b"",
        },
    )
    (record,) = run(tmp_path).records
    assert record["name"] == '\x1b[2J"\\xff'
    assert record["state"] == "\x07"


@pytest.mark.parametrize(
    "parameters",
    [
        {"versions": ["1.0"]},
        {"versions": ["<"]},
        {"names": ["("]},
        {"types": ["deb"]},
        {"root": "relative"},
        {"paths": ["x"]},
        {"unknown": 1},
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any]) -> None:
    result = run_operation("pkg", parameters, Context())
    assert result.status == "invalid-parameters"


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"pkgmatch": {"matches": ["^a"]}, "vermatch": ""}, {"names": ["^a"]}),
        ({"pkgmatch": {"matches": "^a"}, "vermatch": "!^1"}, {"names": ["^a"], "version_patterns": ["!^1"]}),
        ({"name": "a", "version": ["<1"]}, {"names": ["a"], "versions": ["<1"]}),
        ({"pkgmatch": 3}, {"pkgmatch": 3}),
        ([], []),
    ],
)
def test_the_ancestor_s_parameters_are_understood(given: Any, made: Any) -> None:
    assert pkg.upgrade(given) == made


def test_the_command_line_has_a_flag_for_each_parameter() -> None:
    module = load_module("pkg")
    made = flag_parameters(module, {"name": ("^a",), "version": ("<1",), "verify": True, "path": ("/srv",)})
    assert made == {"names": ["^a"], "versions": ["<1"], "verify": True, "paths": ["/srv"]}


def test_the_declared_types_are_those_that_are_read() -> None:
    assert get_args(pkg.Type) == TYPES


@pytest.mark.slow
def test_this_system_s_own_packages_are_told() -> None:
    result = run_operation("pkg", {"names": ["^dpkg$"], "versions": [">=1.0"], "verify": True}, Context())
    assert (result.status, result.records) == ("ok", ())
    assert run_operation("pkg", {"names": ["^dpkg$"], "versions": [">=1.0"]}, Context()).found
