"""Tests of what is read of real processes, and of recorded facts of others."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.process_memory import ProcessGone
from agent.platform.processes import (
    ProcessDirectory,
    boot_time_s,
    executable_of,
    list_pids,
    parse_facts,
    read_process,
)

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")

STATUS = b"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nCapEff:\t0000000000002000\n"
AFTER = b" S 7 10 10 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 100 9 9\n"


@contextmanager
def running(*command: str | os.PathLike[str]) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_process_is_told_by_number_parent_name_user_and_start() -> None:
    before = time.time()
    with running("/bin/cat") as process:
        assert process.pid in list_pids()
        facts = read_process(process.pid)
        assert facts is not None
        assert (facts.pid, facts.ppid, facts.uid, facts.gid) == (
            process.pid,
            os.getpid(),
            os.geteuid(),
            os.getegid(),
        )
        assert not facts.is_kernel_thread
        # The kernel tells the boot in whole seconds.
        assert before - 2 < facts.started_s < time.time() + 2
        assert executable_of(process.pid) == (os.fsencode(Path("/bin/cat").resolve()), False)


def test_a_process_that_is_gone_is_none() -> None:
    with running("/bin/cat") as process:
        pass
    assert read_process(process.pid) is None
    assert executable_of(process.pid) == (None, False)
    with pytest.raises(ProcessGone, match="^$"):
        ProcessDirectory(process.pid)


def test_one_that_is_held_and_ends_is_gone_and_of_no_other() -> None:
    with running("/bin/cat") as process, ProcessDirectory(process.pid) as held:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for fails in (lambda: held.facts(0.0), held.executable, lambda: held.read("cmdline")):
            with pytest.raises(ProcessGone, match="^$"):
                fails()


def test_one_that_ended_and_was_not_asked_about_is_a_zombie_without_a_program() -> None:
    with running("/bin/cat") as process:
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        facts = read_process(process.pid)
        assert facts is not None
        assert facts.state == "Z"
        assert executable_of(process.pid) == (None, False)


def test_a_program_whose_file_was_deleted_or_replaced_says_so(tmp_path: Path) -> None:
    program = tmp_path / "gone"
    shutil.copy("/bin/cat", program)
    with running(program) as process:
        assert executable_of(process.pid) == (os.fsencode(program), False)
        program.unlink()
        assert executable_of(process.pid) == (os.fsencode(program), True)
        shutil.copy("/bin/cat", program)
        assert executable_of(process.pid) == (os.fsencode(program), True)


def test_a_program_that_is_called_deleted_is_there(tmp_path: Path) -> None:
    program = tmp_path / "here (deleted)"
    shutil.copy("/bin/cat", program)
    with running(program) as process:
        assert executable_of(process.pid) == (os.fsencode(program), False)
        (tmp_path / "link").hardlink_to(program)
        program.unlink()
        assert executable_of(process.pid) == (os.fsencode(program), True)


def test_threads_of_the_kernel_are_known() -> None:
    facts = read_process(2)
    # In a container number 2 is anybody's, or nobody's.
    assert facts is None or facts.is_kernel_thread == (facts.process == b"kthreadd")


@pytest.mark.parametrize(
    "name", [b"a b", b"x) S 1 1 1", b"((", b"))", b"line\nend", b"\xff\x1b[2J", b"", b"\\n"]
)
def test_a_name_never_shifts_what_follows_it(name: bytes) -> None:
    facts = parse_facts(42, b"42 (" + name + b")" + AFTER, STATUS, 1000.0)
    assert (facts.process, facts.ppid, facts.uid, facts.gid, facts.state) == (name, 7, 2, 6, "S")
    assert facts.capabilities == 0x2000
    assert facts.started_s == 1000.0 + 100 / os.sysconf("SC_CLK_TCK")


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_facts_or_a_process_that_is_gone(stat: bytes, status: bytes) -> None:
    with contextlib.suppress(ProcessGone):
        parse_facts(1, stat, status, 0.0)


def test_a_name_that_a_process_gives_itself_is_told_in_its_bytes() -> None:
    program = r"open('/proc/self/comm','wb').write(b') S 1\xff\n (x'); print(flush=True); input()"
    with running(sys.executable, "-I", "-S", "-c", program) as process:
        assert process.stdout is not None
        process.stdout.readline()
        facts = read_process(process.pid)
        assert facts is not None
        assert facts.process == b") S 1\xff\n (x"
        assert facts.ppid == os.getpid()


def test_a_directory_that_stands_for_proc_is_read(tmp_path: Path) -> None:
    (tmp_path / "stat").write_bytes(b"cpu 1 2 3\nbtime 1700000000\n")
    (tmp_path / "42").mkdir()
    (tmp_path / "42/stat").write_bytes(b"42 (init)" + AFTER)
    (tmp_path / "42/status").write_bytes(STATUS)
    (tmp_path / "42/exe").symlink_to("/sbin/init")
    (tmp_path / "self").mkdir()
    proc = str(tmp_path)
    assert list_pids(proc) == [42]
    assert boot_time_s(proc) == 1_700_000_000
    facts = read_process(42, proc)
    assert facts is not None
    assert facts.started_s == 1_700_000_001
    assert executable_of(42, proc) == (b"/sbin/init", False)
    assert read_process(43, proc) is None
