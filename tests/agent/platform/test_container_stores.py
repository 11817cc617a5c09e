"""Tests of reading what runtimes keep on disk."""

import json
from pathlib import Path

import pytest

from agent.platform.container_facts import ContainerFacts
from agent.platform.container_stores import stored_containers
from tests.support.containers import DB, WEB, bundle, write

METADATA = {
    "image-name": "docker.io/library/alpine:3",
    "image-id": "ab" * 32,
    "name": "web1",
    "created-at": 1,
}
LISTED = [{"id": WEB, "names": ["web1"], "metadata": json.dumps(METADATA), "created": "2026-01-02T03:04:05Z"}]


def stored(root: Path, *homes: str) -> tuple[list[ContainerFacts], list[str]]:
    lost: list[str] = []
    return list(stored_containers(str(root), homes, lost.append)), lost


def test_a_bundle_that_containerd_runs_is_told_with_its_first_process(tmp_path: Path) -> None:
    tasks = tmp_path / "run/containerd/io.containerd.runtime.v2.task"
    write(tasks / "k8s.io" / WEB / "config.json", bundle(annotations={"nerdctl/name": "web1"}))
    write(tasks / "k8s.io" / WEB / "init.pid", "4711")
    write(tasks / "moby" / DB / "config.json", bundle(annotations=None))
    found, lost = stored(tmp_path)
    assert [(one.id, one.runtime, one.name, one.pid) for one in found] == [
        (WEB, "containerd", "web1", 4711),
        (DB, "docker", None, 0),
    ]
    assert lost == []


@pytest.mark.parametrize(
    ("store", "home"),
    [("var/lib/containers/storage", ""), ("home/eve/.local/share/containers/storage", "home/eve")],
)
def test_a_store_tells_of_what_podman_keeps(store: str, home: str, tmp_path: Path) -> None:
    kept = tmp_path / store / "overlay-containers"
    write(kept / "containers.json", LISTED)
    write(kept / WEB / "userdata/config.json", bundle())
    write(tmp_path / "run/containers/storage/overlay-containers" / WEB / "userdata/pidfile", "4711\n")
    [found], lost = stored(tmp_path, *([home] if home else []))
    assert lost == []
    assert (found.runtime, found.source, found.name, found.pid) == ("podman", "store", "web1", 4711)
    assert (found.image, found.digest) == ("docker.io/library/alpine:3", "sha256:" + "ab" * 32)
    assert found.capabilities_added == ("cap_sys_ptrace",)
    assert found.environment == ("HOSTNAME", "PATH", "SECRET")


def test_a_store_of_cri_o_is_told_by_its_pods(tmp_path: Path) -> None:
    listed = [
        {"id": WEB, "metadata": json.dumps({**METADATA, "pod-id": DB})},
        {"id": DB, "metadata": "nonsense"},
    ]
    write(tmp_path / "var/lib/containers/storage/overlay-containers/containers.json", listed)
    found, _ = stored(tmp_path)
    assert [(one.id, one.runtime, one.name) for one in found] == [
        (WEB, "cri-o", "web1"),
        (DB, "podman", None),
    ]


def test_what_is_broken_is_said_and_costs_no_other_its_answer(tmp_path: Path) -> None:
    tasks = tmp_path / "run/containerd/io.containerd.runtime.v2.task/default"
    write(tasks / "broken" / "config.json", "{")
    write(tasks / "whole" / "config.json", bundle())
    write(tasks / "whole" / "init.pid", "not a number")
    (tasks / "link").mkdir()
    (tasks / "link" / "config.json").symlink_to("/etc/passwd")
    (tasks / "empty").mkdir()
    with (tmp_path / "large").open("wb") as file:
        file.truncate(5 << 20)
    (tasks / "large").mkdir()
    (tmp_path / "large").rename(tasks / "large" / "config.json")
    write(tmp_path / "var/lib/containers/storage/vfs-containers/containers.json", "[7]")
    found, lost = stored(tmp_path)
    assert [one.id for one in found] == ["whole"]
    assert len(lost) == 4
    assert "symbolic links" in "".join(lost)
    assert "root:" not in "".join(lost)


def test_a_hostile_id_leads_to_no_other_directory(tmp_path: Path) -> None:
    kept = tmp_path / "var/lib/containers/storage/overlay-containers"
    write(kept / "containers.json", [{"id": "../../x"}, {"id": ""}, {"id": "/etc"}])
    assert stored(tmp_path) == ([], [])


def test_without_stores_there_is_nothing(tmp_path: Path) -> None:
    assert stored(tmp_path, "root") == ([], [])
