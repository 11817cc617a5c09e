"""Traps of file systems, each in a namespace of mounts of its own: they need root."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.module import Context
from tests.agent.scan.runs import grow, paths, run, step
from tests.support.apart import bind, leave_mounts, mount, peak_kib, run_apart, unmount

pytestmark = pytest.mark.system
EVERYTHING = {"contents": ["!nothing"], "options": {"matchall": True}}


def among_mounts(act: Callable[[], Any]) -> Any:
    return run_apart(act, prepare=leave_mounts)


def answer(root: Path, **search: Any) -> dict[str, Any]:
    result = run(s1={"paths": [str(root)], **(search or EVERYTHING)})
    return {
        "found": paths(result, root),
        "notes": list(result.notes),
        "skipped": result.statistics["skipped"],
        "errors": result.statistics["errors"],
    }


def test_a_directory_that_is_mounted_inside_itself_ends(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"x", "in/b": b"y", "in/again/c": b"z"})

    def act() -> Any:
        # The kernel shows one level of it: a bind mount does not carry what is mounted below.
        bind(tmp_path, tmp_path / "in/again")
        return answer(tmp_path)

    told = among_mounts(act)
    assert told["found"] == ["a", "in/b", "in/again/a", "in/again/in/b", "in/again/in/again/c"]
    assert told["notes"] == []


def test_what_is_mounted_twice_is_found_under_both_names(tmp_path: Path) -> None:
    grow(tmp_path, {"one/a": b"x", "two/hidden": b"y"})

    def act() -> Any:
        bind(tmp_path / "one", tmp_path / "two")
        return answer(tmp_path)

    assert among_mounts(act)["found"] == ["one/a", "two/a"]


def test_a_file_system_that_the_kernel_makes_up_is_not_entered_wherever_it_is_mounted(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"x", "made/up": b"", "real/b": b"y"})

    def act() -> Any:
        mount("proc", tmp_path / "made")
        mount("tmpfs", tmp_path / "real")
        grow(tmp_path, {"real/c": b"z"})
        return answer(tmp_path)

    told = among_mounts(act)
    assert told["found"] == ["a", "real/c"]
    assert told["notes"] == [f"{tmp_path}/made: proc is not searched from above"]
    assert told["skipped"] == {"pseudo-filesystem": 1}


def test_a_file_of_the_kernel_that_is_mounted_over_a_plain_one_is_not_read_blindly(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"x", "innocent": b"", "z": b"y"})

    def act() -> Any:
        # Reading it would wait for the kernel's next message, and take it from who should get it.
        bind(Path("/proc/kmsg"), tmp_path / "innocent")
        return answer(tmp_path)

    told = among_mounts(act)
    assert told["found"] == ["a", "z"]
    assert told["skipped"] == {"pseudo-filesystem": 1}


def test_what_is_mounted_while_the_scan_runs_is_seen_for_what_it_is(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"x", "later/b": b"y", "z/c": b"z"})

    def act() -> Any:
        context = Context()
        found = step(context, tmp_path, **EVERYTHING)
        first = next(found)
        mount("proc", tmp_path / "later")
        return [first, *found], context.notes

    found, notes = among_mounts(act)
    assert found == ["a", "z/c"]
    assert notes == [f"{tmp_path}/later: proc is not searched from above"]


def test_what_is_unmounted_while_the_scan_is_below_it_costs_nothing_else(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"x", "disk/hidden": b"y", "z/c": b"z"})

    def act() -> Any:
        mount("tmpfs", tmp_path / "disk")
        grow(tmp_path, {"disk/b": b"1", "disk/d/e": b"2"})
        context = Context()
        found = step(context, tmp_path, **EVERYTHING)
        seen = [next(found), next(found)]
        # Lazily (umount2(2), MNT_DETACH): what the scan holds open stays; paths lead elsewhere from now on.
        unmount(tmp_path / "disk", "--lazy")
        return [*seen, *found], context.notes

    found, notes = among_mounts(act)
    assert found == ["a", "disk/b", "disk/d/e", "z/c"]
    assert notes == []


@pytest.mark.parametrize(
    ("kind", "major", "minor"),
    [("c", 1, 3), ("c", 5, 0), ("c", 10, 1), ("b", 7, 250), ("c", 240, 7)],
    ids=["null", "the terminal", "mouse", "a loop device without a file", "a device without a driver"],
)
def test_device_nodes_are_not_opened_wherever_they_stand(
    tmp_path: Path, kind: str, major: int, minor: int
) -> None:
    grow(tmp_path, {"a": b"x", "z": b"y"})
    mode = 0o600 | (0o020000 if kind == "c" else 0o060000)  # mknod(2)
    os.mknod(tmp_path / "device", mode, os.makedev(major, minor))
    (tmp_path / "link").symlink_to("device")
    result = run(s1={"paths": [str(tmp_path), str(tmp_path / "device")], **EVERYTHING})
    assert paths(result, tmp_path) == ["a", "z"]
    assert result.statistics["skipped"] == {"special-file": 3}
    assert result.notes == (f"{tmp_path}/device: is neither a file nor a directory",)


def test_a_directory_of_a_million_names_is_seen_whole_in_little_memory(tmp_path: Path) -> None:
    grow(tmp_path, {"crowd/none": b""})

    def act() -> Any:
        crowd = tmp_path / "crowd"
        mount("tmpfs", crowd, "-o", "nr_inodes=0,size=1m")
        directory = os.open(crowd, os.O_RDONLY)
        for number in range(999_999):
            os.mknod(b"%06d" % number, dir_fd=directory)
        (crowd / "found").write_bytes(b"x")
        before = peak_kib()
        told = answer(tmp_path, names=["^found$"])
        return told, peak_kib() - before

    told, grown_kib = among_mounts(act)
    assert told == {"found": ["crowd/found"], "notes": [], "skipped": {}, "errors": 0}
    assert grown_kib < 100 << 10
