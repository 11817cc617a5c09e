"""Tests of telling containers by their processes: recorded ones, and real ones in namespaces of their own."""

import os
from pathlib import Path

import pytest

from agent.platform.container_facts import ContainerFacts
from agent.platform.container_processes import (
    Processes,
    facts_of_process,
    find_processes,
    namespace_of,
    unclaimed,
    with_processes,
)
from tests.support.containers import DB, WEB, unshared


def plant(proc: Path, pid: int, *, cgroup: str = "/", space: int = 1, status: str = "") -> None:
    """Record a process in a directory that stands for /proc."""
    directory = proc / str(pid)
    (directory / "ns").mkdir(parents=True)
    (directory / "cgroup").write_text(f"0::{cgroup}\n")
    (directory / "status").write_text(status or "Name:\tx\n")
    for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts"):
        number = space if kind in ("pid", "mnt", "net") else 1
        (directory / "ns" / kind).symlink_to(f"{kind}:[{number}]")


def test_processes_are_found_by_control_group_and_by_namespace(tmp_path: Path) -> None:
    plant(tmp_path, 1)
    plant(tmp_path, 20, cgroup=f"/docker/{WEB}", space=7, status="NSpid:\t20\t9\n")
    plant(tmp_path, 21, cgroup=f"/docker/{WEB}", space=7, status="NSpid:\t21\t1\n")
    # Somebody who entered it from outside has its namespace only.
    plant(tmp_path, 30, space=7)
    plant(tmp_path, 40, space=8)
    proc = str(tmp_path)
    processes = find_processes(proc)
    assert processes == Processes({WEB: [20, 21]}, {"pid:[7]": [20, 21, 30], "pid:[8]": [40]})
    engine = ContainerFacts(WEB, "docker", "engine", state="running", pid=21)
    found = with_processes(engine, processes, proc)
    assert (found.pids, found.pid, found.namespace) == ((20, 21, 30), 21, "net:[7]")
    assert found.shared == ("cgroup", "ipc", "user", "uts")
    assert unclaimed(processes, frozenset(found.pids), proc) == [("pid:[8]", "namespaces", 40)]
    assert unclaimed(processes, frozenset(), proc) == [(WEB, "cgroup", 21), ("pid:[8]", "namespaces", 40)]


def test_a_number_that_another_process_has_by_now_is_not_believed(tmp_path: Path) -> None:
    plant(tmp_path, 1)
    plant(tmp_path, 20)
    processes = find_processes(str(tmp_path))
    stored = with_processes(ContainerFacts(WEB, "podman", "store", pid=20), processes, str(tmp_path))
    assert (stored.pid, stored.pids, stored.state) == (0, (), "stopped")
    asked = with_processes(ContainerFacts(DB, "docker", "engine", state="exited"), processes, str(tmp_path))
    assert asked.state == "exited"


def test_what_the_first_process_shows_is_told(tmp_path: Path) -> None:
    status = "Uid:\t1000\t1000\nGid:\t33\t33\nCapBnd:\t00000000a80c25fb\nSeccomp:\t2\n"
    plant(tmp_path, 1)
    plant(tmp_path, 20, space=7, status=status)
    (tmp_path / "20" / "mountinfo").write_bytes(
        b"1 0 0:9 / / rw - overlay overlay rw\n"
        b"2 1 8:1 /srv/a\\040b /data ro,nosuid - ext4 /dev/sda1 rw\n"
        b"3 1 0:5 / /proc rw - proc proc rw\nbroken\n"
    )
    found = facts_of_process("x", "cgroup", 20, str(tmp_path))
    assert (found.user, found.is_privileged, found.network) == ("1000:33", False, "own")
    assert found.capabilities_added == ("cap_sys_ptrace",)
    assert [(one.target, one.source, one.is_read_only) for one in found.mounts] == [
        ("/data", "/srv/a b", True)
    ]


def test_a_process_that_is_gone_or_writes_nonsense_shows_nothing(tmp_path: Path) -> None:
    plant(tmp_path, 20, status="CapBnd:\tnonsense\n\xff\nUid:\n")
    for pid in (20, 99):
        found = facts_of_process("x", "cgroup", pid, str(tmp_path))
        assert (found.user, found.capabilities_added, found.mounts) == (None, (), ())
    assert namespace_of(99, "net", str(tmp_path)) is None


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces take root")
def test_a_real_process_in_namespaces_of_its_own_is_a_container() -> None:
    with unshared() as pid:
        processes = find_processes()
        space = namespace_of(pid, "pid")
        assert (space, "namespaces", pid) in unclaimed(processes, frozenset())
        found = with_processes(facts_of_process(space or "", "namespaces", pid), processes)
        assert found.pids == (pid,)
        assert found.network == "own"
        assert found.namespace == str(Path(f"/proc/{pid}/ns/net").readlink())
        assert "user" in found.shared
        assert "net" not in found.shared
        # Another container's first process, as its runtime has written it down.
        told = with_processes(ContainerFacts(WEB, "podman", "store", pid=pid), processes)
        assert (told.pids, told.state) == ((pid,), "running")
