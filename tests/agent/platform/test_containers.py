"""Tests of telling a process's container by its control groups, as the runtimes name them."""

import os
from pathlib import Path
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.containers import container_in_cgroup, container_of

ID = "3f5a" * 16
OTHER = "77c0" * 16


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param(f"/system.slice/docker-{ID}.scope", ID, id="docker with systemd"),
        pytest.param(f"/docker/{ID}", ID, id="docker by itself"),
        pytest.param(f"/docker/{ID}/init.scope", ID, id="systemd within docker"),
        pytest.param(f"/docker/{OTHER}/docker/{ID}", ID, id="docker in docker: the innermost"),
        pytest.param(f"/../../docker/{ID}", ID, id="seen from another group's namespace"),
        pytest.param(f"/machine.slice/libpod-{ID}.scope/container", ID, id="podman"),
        pytest.param(f"/machine.slice/libpod-{ID}.scope", ID, id="podman with runc"),
        pytest.param(f"/libpod_parent/libpod-{ID}", ID, id="podman without systemd"),
        pytest.param(f"/system.slice/web.service/libpod-payload-{ID}", ID, id="podman within a unit"),
        pytest.param(
            f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
            ID,
            id="podman of a user",
        ),
        pytest.param(f"/kubepods/burstable/pod6d1c3e2a-9/{ID}", ID, id="kubernetes"),
        pytest.param(
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6d1c.slice/cri-containerd-{ID}.scope",
            ID,
            id="kubernetes with containerd and systemd",
        ),
        pytest.param(
            f"/system.slice/containerd.service/kubepods-besteffort-pod6d1c.slice:cri-containerd:{ID}",
            ID,
            id="containerd that was not told of systemd",
        ),
        pytest.param(f"/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope", ID, id="cri-o"),
        pytest.param(f"/system.slice/nerdctl-{ID}.scope", ID, id="nerdctl"),
        pytest.param(f"/ecs/0f9b5c/{ID}", ID, id="ecs"),
        pytest.param("/lxc/web1", "web1", id="lxc"),
        pytest.param("/lxc.payload.web-1/system.slice/cron.service", "web-1", id="lxc with its own systemd"),
        pytest.param("/lxc.payload/web1", "web1", id="lxc of cgroup v2's first days"),
        pytest.param("/machine.slice/machine-web1.scope", "web1", id="nspawn by hand"),
        pytest.param("/machine.slice/machine-web\\x2d1.scope", "web-1", id="nspawn with an escaped name"),
        pytest.param("/machine.slice/systemd-nspawn@web1.service/payload", "web1", id="nspawn as a unit"),
        pytest.param(f"/machine.slice/libpod-conmon-{ID}.scope", None, id="podman's watcher"),
        pytest.param(f"/kubepods.slice/crio-conmon-{ID}.scope", None, id="cri-o's watcher"),
        pytest.param("/lxc.monitor.web1", None, id="lxc's watcher"),
        pytest.param(f"/system.slice/{ID}.service", None, id="podman's look at a container's health"),
        pytest.param("/machine.slice/machine-qemu\\x2d1\\x2dvm.scope", None, id="a virtual machine"),
        pytest.param("/", None, id="the root"),
        pytest.param("/system.slice/ssh.service", None, id="a service"),
        pytest.param(f"/system.slice/docker-{ID[:40]}.scope", None, id="too short for an id"),
        pytest.param(f"/system.slice/docker-{ID}ff.scope", None, id="too long for an id"),
        pytest.param("/lxc/" + "a" * 500, None, id="too long for a name"),
        pytest.param("/lxc/\x1b[2J", None, id="not a name at all"),
        pytest.param("/machine.slice/machine-\\x1b\\x5b.scope", None, id="not a name behind its escapes"),
    ],
)
def test_the_container_is_told_by_the_name_of_its_control_group(path: str, expected: Optional[str]) -> None:
    assert container_in_cgroup(f"0::{path}\n") == expected


def test_of_many_hierarchies_any_may_tell() -> None:
    assert container_in_cgroup(f"12:pids:/\n1:name=systemd:/docker/{ID}\n0::/\n") == ID
    assert container_in_cgroup("12:pids:/user.slice\n0::/\n") is None


@given(st.text(max_size=300))
def test_any_text_gives_a_plain_name_or_none(text: str) -> None:
    found = container_in_cgroup(f"0::/{text}\n")
    assert found is None or (found.isascii() and found.isprintable() and len(found) <= 128)


def test_a_process_is_looked_up_in_the_directory_that_stands_for_proc(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_bytes(b"3:cpu:/\xff\xfe\n0::/docker/" + ID.encode() + b"\n")
    assert container_of(7, str(tmp_path)) == ID
    assert container_of(8, str(tmp_path)) is None


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="/proc is Linux's")
def test_a_process_that_runs_in_no_container_has_none(tmp_path: Path) -> None:
    (tmp_path / str(os.getpid())).symlink_to("/proc/self")
    expected = container_in_cgroup(Path("/proc/self/cgroup").read_text())
    assert container_of(os.getpid()) == container_of(os.getpid(), str(tmp_path)) == expected
