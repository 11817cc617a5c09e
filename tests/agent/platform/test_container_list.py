"""Tests of the whole list: engines before stores, stores before processes."""

import os
from pathlib import Path

from agent.platform.container_facts import ContainerFacts
from agent.platform.container_list import list_containers
from tests.agent.platform.test_container_processes import plant
from tests.support.containers import DB, WEB, bundle, engine, write

OTHER = "aa00" * 16


def listed(root: Path) -> tuple[dict[str, ContainerFacts], list[str]]:
    lost: list[str] = []
    found = list(list_containers(lost.append, root=str(root), proc=str(root / "proc")))
    assert [one.id for one in found] == sorted(one.id for one in found)
    return {one.id: one for one in found}, lost


def test_what_several_sources_know_of_a_container_is_one(tmp_path: Path) -> None:
    plant(tmp_path / "proc", 1)
    plant(tmp_path / "proc", 20, cgroup=f"/docker/{WEB}", space=7, status="NSpid:\t20\t1\n")
    plant(tmp_path / "proc", 30, cgroup=f"/docker/{OTHER}", space=8, status="NSpid:\t30\t1\n")
    write(tmp_path / "run/containerd/io.containerd.runtime.v2.task/moby" / WEB / "config.json", bundle())
    with engine(tmp_path / "run/docker.sock"):
        found, lost = listed(tmp_path)
    assert lost == []
    assert {key: (one.runtime, one.source, one.state) for key, one in found.items()} == {
        WEB: ("docker", "engine", "running"),
        DB: ("docker", "engine", "exited"),
        OTHER: ("unknown", "cgroup", "running"),
    }
    assert found[WEB].pids == (20,)
    # What the engine did not say was in the bundle.
    assert found[WEB].name == "web1"
    assert found[WEB].pid == 20


def test_an_engine_that_fails_is_said_and_the_rest_is_told(tmp_path: Path) -> None:
    plant(tmp_path / "proc", 1)
    plant(tmp_path / "proc", 30, cgroup=f"/docker/{OTHER}", space=8)
    with engine(tmp_path / "run/docker.sock", {}):
        found, lost = listed(tmp_path)
    assert list(found) == [OTHER]
    assert lost == [f"{tmp_path}/run/docker.sock: answers 404"]


def test_a_file_in_the_place_of_a_socket_is_not_asked(tmp_path: Path) -> None:
    plant(tmp_path / "proc", os.getpid())
    write(tmp_path / "run/docker.sock", "")
    found, lost = listed(tmp_path)
    assert found == {}
    assert lost == [f"{tmp_path}/run/docker.sock: is no socket of the endpoint's owner, and was not asked"]


def test_stores_of_users_are_looked_into(tmp_path: Path) -> None:
    plant(tmp_path / "proc", 1)
    for home, one in (("home/eve", WEB), ("root", DB)):
        store = tmp_path / home / ".local/share/containers/storage/overlay-containers"
        write(store / "containers.json", [{"id": one, "names": [home]}])
    found, _ = listed(tmp_path)
    assert {key: (one.name, one.state) for key, one in found.items()} == {
        WEB: ("home/eve", "stopped"),
        DB: ("root", "stopped"),
    }
