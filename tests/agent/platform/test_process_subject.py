"""Tests of one process with all that can be asked of it, on real ones and on recorded facts."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from agent.platform.process_memory import ProcessGone
from agent.platform.process_programs import NO_FILE, OUTSIDE, Programs
from agent.platform.process_subject import MOST_ANCESTORS, NotKnown, ProcessTable, Subject, hidden_by
from agent.platform.process_users import UserNames
from agent.scan.fence import Fence
from protocol.acl import PathRules
from tests.support.asking_process import in_fork
from tests.support.spawned import copied, spawned

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


NOBODY = 65534


def nobody_is_lost(pid: int, reason: str) -> None:
    raise AssertionError(f"{pid}: {reason}")


def record(
    proc: Path,
    pid: int,
    ppid: int,
    *,
    name: str = "x",
    start: int = 100,
    flags: int = 4194560,
    cgroup: str = "",
) -> None:
    """Write what the kernel would say of a process."""
    directory = proc / str(pid)
    directory.mkdir()
    fields = f"S {ppid} 1 1 0 -1 {flags} " + "0 " * 12 + f"{start} 0 0"
    (directory / "stat").write_text(f"{pid} ({name}) {fields}\n")
    (directory / "status").write_text("Uid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nCapEff:\t0\n")
    (directory / "cgroup").write_text(cgroup)
    (proc / "stat").write_text("btime 1700000000\n")


def subjects(proc: Path) -> dict[int, Subject]:
    return {one.pid: one for one in ProcessTable(str(proc)).subjects(nobody_is_lost)}


def test_the_chain_of_parents_ends_where_a_number_was_given_again(tmp_path: Path) -> None:
    record(tmp_path, 1, 0, start=1, name="init")
    record(tmp_path, 20, 1, start=50)
    record(tmp_path, 30, 20, start=60)
    record(tmp_path, 40, 1, start=900, name="younger")
    record(tmp_path, 50, 40, start=100)
    record(tmp_path, 60, 7777, start=100)
    found = subjects(tmp_path)
    assert [one.pid for one in found[30].ancestors] == [20, 1]
    assert found[30].ancestors[1].process == b"init"
    assert found[50].ancestors == ()
    assert found[60].ancestors == ()


def test_a_chain_that_goes_round_or_on_for_ever_is_bounded(tmp_path: Path) -> None:
    for pid in range(2, 60):
        record(tmp_path, pid, pid + 1 if pid < 59 else 2)
    assert len(subjects(tmp_path)[2].ancestors) == MOST_ANCESTORS


def test_the_container_is_read_of_the_control_groups(tmp_path: Path) -> None:
    digits = "0123456789abcdef" * 4
    record(tmp_path, 2, 0, cgroup=f"0::/system.slice/docker-{digits}.scope\n")
    record(tmp_path, 3, 0, cgroup="0::/init.scope\n")
    found = {one.pid: one.container for one in ProcessTable(str(tmp_path)).subjects(nobody_is_lost)}
    assert found == {2: digits, 3: None}


def test_what_is_not_there_is_told_apart_from_what_is_not_known(tmp_path: Path) -> None:
    record(tmp_path, 2, 0, flags=0x00200000)
    record(tmp_path, 3, 0)
    (tmp_path / "3/cmdline").mkdir()
    table = ProcessTable(str(tmp_path))
    for one in table.subjects(nobody_is_lost):
        if one.pid == 2:
            assert one.facts.is_kernel_thread
            assert one.executable == (None, False)
        else:
            with pytest.raises(NotKnown, match="^command line: Is a directory$"):
                _ = one.command


def test_who_is_missing_among_the_named_is_told() -> None:
    lost: list[tuple[int, str]] = []
    with spawned() as child:
        pass
    found = [
        one.pid
        for one in ProcessTable().subjects(lambda pid, why: lost.append((pid, why)), {child.pid, os.getpid()})
    ]
    assert found == [os.getpid()]
    assert lost == [(child.pid, "ended")]


def test_one_that_ends_while_it_is_asked_is_gone() -> None:
    gone = []
    with spawned() as child:
        for subject in ProcessTable().subjects(nobody_is_lost, {child.pid}):
            child.kill()
            child.wait()
            for fact in (
                "executable",
                "command",
                "variables",
                "open_files",
                "libraries",
                "ports",
                "container",
            ):
                with pytest.raises(ProcessGone, match="^$"):
                    getattr(subject, fact)
                gone.append(fact)
    assert len(gone) == 7


def digests(pid: int, programs: Programs) -> list[object]:
    return [dict(one.digests(programs)) for one in ProcessTable().subjects(nobody_is_lost, {pid})]


def test_each_program_is_read_once(tmp_path: Path) -> None:
    program = tmp_path / "cat"
    shutil.copy("/bin/cat", program)
    size = program.stat().st_size
    pieces: list[int] = []
    programs = Programs(["sha256", "md5"], Fence(PathRules()), lambda: pieces.append(1))
    expected = {
        "sha256": hashlib.sha256(program.read_bytes()).hexdigest(),
        "md5": hashlib.md5(program.read_bytes()).hexdigest(),  # noqa: S324
    }
    with copied(str(program)) as first, copied(str(program)) as second:
        assert digests(first.pid, programs) == digests(second.pid, programs) == [expected]
    assert (programs.files_hashed, programs.bytes_read) == (1, size)
    assert len(pieces) == -(-size // (1 << 20))


def test_a_program_outside_the_allowed_paths_is_not_read(tmp_path: Path) -> None:
    programs = Programs(["sha256"], Fence(PathRules(allow=(str(tmp_path),))), lambda: None)
    with spawned() as child, pytest.raises(NotKnown, match=f"^program: {OUTSIDE}$"):
        digests(child.pid, programs)
    assert programs.bytes_read == 0


def test_what_is_no_regular_file_is_not_read() -> None:
    programs = Programs(["sha256"], Fence(PathRules()), lambda: None)
    program = programs.digests(b"/dev/zero", lambda: os.open("/dev/zero", os.O_RDONLY))
    assert (program.digests, program.reason) == (None, NO_FILE)


def test_names_of_users_are_those_of_the_file(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_bytes(
        b"root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\nj\xff:x:5:5::/:/bin/sh\n+::::::\n"
    )
    names = UserNames(str(passwd))
    assert [names.name(uid) for uid in (0, 5, 6)] == ["root", "j\ufffd", None]
    assert UserNames(str(tmp_path / "none")).name(0) is None


@pytest.mark.parametrize(
    ("namespace", "options", "euid", "said"),
    [
        ("pid:[4026531836]", "rw", 1000, []),
        ("pid:[4026532999]", "rw", 0, ["the agent has process numbers of its own"]),
        ("pid:[4026531836]", "rw,hidepid=invisible", 1000, ["/proc is mounted with hidepid=invisible"]),
        ("pid:[4026531836]", "rw,hidepid=2", 1000, ["/proc is mounted with hidepid=2"]),
        ("pid:[4026531836]", "rw,hidepid=2", 0, []),
        ("pid:[4026531836]", "rw,hidepid=off", 1000, []),
    ],
)
def test_what_hides_processes_is_said(
    tmp_path: Path, namespace: str, options: str, euid: int, said: list[str]
) -> None:
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").symlink_to(namespace)
    (tmp_path / "self/mountinfo").write_text(
        f"20 1 0:5 / /proc rw,nosuid shared:5 - proc proc {options}\n21 1 0:6 / /sys rw - sysfs sysfs rw\n"
    )
    found = hidden_by(str(tmp_path), mounted="/proc", euid=euid)
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(("hidepid", "is_counted"), [("1", True), ("2", False)])
def test_who_may_not_see_the_processes_of_others_says_so(hidepid: str, *, is_counted: bool) -> None:
    # Not below what pytest makes, where nobody else may enter.
    with tempfile.TemporaryDirectory(prefix="proc-") as proc, spawned() as child:
        Path(proc).chmod(0o755)
        subprocess.run(["mount", "-t", "proc", "-o", f"hidepid={hidepid}", "proc", proc], check=True)
        try:
            told = in_fork(lambda: look_around(proc), NOBODY)
            assert child.pid not in told["pids"]
            assert (child.pid in told["hidden"]) is is_counted
            assert any(hole.startswith(f"{proc} is mounted with hidepid=") for hole in told["holes"])
        finally:
            subprocess.run(["umount", proc], check=True)


def look_around(proc: str) -> dict[str, list[Any]]:
    table = ProcessTable(proc)
    hidden: list[tuple[int, str]] = []
    pids = [one.pid for one in table.subjects(lambda pid, why: hidden.append((pid, why)))]
    return {
        "pids": pids,
        "hidden": [pid for pid, why in hidden if why == "hidden"],
        "holes": list(table.holes()),
    }
