"""Traps that kill who reads, or take what it needs: the scan goes on, and names what it lost."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.scan.runs import grow, run
from tests.agent.scan.test_pool import Asked, name_of
from tests.support.apart import become_nobody, leave_memory, remove_memory_group, run_apart

MIB = 1 << 20
FILES = 500


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    grow(tmp_path, {f"d{n % 9}/file{n:03}": b"content %d\n" % n for n in range(FILES)})
    return grow(tmp_path, {"d4/bomb": b"content\n"})


def at_bomb(act: Callable[[], Any]) -> Callable[[int, os.stat_result, bytes], bytes]:
    """Return an examination that acts at one file."""

    def examine(_descriptor: int, _status: os.stat_result, path: bytes) -> bytes:
        if path.endswith(b"/bomb"):
            act()
        return b"examined"

    return examine


def scan_with(tree: Path, act: Callable[[], Any]) -> Any:
    """Scan by workers; return what was found, what is counted and what is said."""
    search = {"paths": [str(tree)], "contents": ["^content"], "options": {"matchall": True}}
    matches, statistics, notes = Asked({"s1": search}, examine=at_bomb(act)).all()
    return sorted(map(name_of, matches)), statistics["errors"], notes


ALL_BUT_BOMB = [f"file{n:03}" for n in range(FILES)]


@pytest.mark.system
def test_a_worker_that_the_kernel_kills_for_its_memory_costs_the_file_that_it_was_at(tree: Path) -> None:
    def starve() -> None:
        # Where no group for memory can be had (a container without rights), as the kernel would.
        bytearray(400 * MIB) if is_bound else os.kill(os.getpid(), signal.SIGKILL)

    is_bound = False

    def act() -> Any:
        nonlocal is_bound
        is_bound = leave_memory(128 * MIB)
        return scan_with(tree, starve)

    try:
        found, errors, notes = run_apart(act)
    finally:
        remove_memory_group()
    assert found == ALL_BUT_BOMB
    assert errors == 1
    assert notes == [f"{tree}/d4/bomb: not judged: the process that read it was killed by SIGKILL"]


def test_where_memory_is_limited_and_a_file_wants_more_that_file_is_named(tree: Path) -> None:
    def act() -> Any:
        limit = held_bytes() + 64 * MIB
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        return scan_with(tree, lambda: bytearray(512 * MIB))

    found, errors, notes = run_apart(act)
    assert found == ALL_BUT_BOMB
    assert errors == 1
    assert notes == [f"{tree}/d4/bomb: not judged: MemoryError: "]


def held_bytes() -> int:
    """Return the private writable memory of this process (proc(5), VmData)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))


def test_where_processes_are_limited_a_scan_is_slower_and_finds_the_same(tree: Path) -> None:
    search = {"paths": [str(tree)], "contents": ["^content"], "options": {"matchall": True}}

    def without_processes() -> None:
        become_nobody()  # the limit does not hold root (setrlimit(2))
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))

    open_to_all(tree)
    found = run_apart(lambda: len(run(s1=search).records), prepare=without_processes)
    assert found == FILES + 1


def test_where_few_files_may_be_open_a_scan_finds_the_same(tree: Path) -> None:
    search = {"paths": [str(tree)], "contents": ["^content"], "options": {"matchall": True}}

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    def act() -> Any:
        result = run(s1=search)
        return len(result.records), result.notes

    assert run_apart(act, prepare=few_files) == [FILES + 1, []]


def test_what_may_not_be_read_by_workers_either_is_named_each(tree: Path) -> None:
    closed = sorted(tree.glob("d1/*"))
    for path in closed:
        path.chmod(0)
    (tree / "d2").chmod(0o711)
    open_to_all(tree)

    def act() -> Any:
        result = run(s1={"paths": [str(tree)], "contents": ["!nothing"], "options": {"matchall": True}})
        return len(result.records), sorted(result.notes), result.statistics["errors"]

    found, notes, errors = run_apart(act, prepare=become_nobody)
    assert errors == len(closed) + 1
    assert notes == sorted(f"{path}: Permission denied" for path in [*closed, tree / "d2"])
    assert found == FILES + 1 - len(closed) - len(list(tree.glob("d2/*")))


def open_to_all(tree: Path) -> None:
    """Let everybody reach what pytest has made for us alone."""
    for directory in [tree, *tree.parents]:
        if directory.stat().st_uid == os.geteuid() and not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o055)
