"""Runs a part of a test in a process of its own: as another user, or among mounts of its own."""

import ctypes
import json
import os
import subprocess
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

NOBODY = 65534
_CLONE_NEWNS = 0x00020000  # clone(2)
_CGROUPS = Path("/sys/fs/cgroup")


def run_apart(act: Callable[[], Any], prepare: Callable[[], None] = lambda: None) -> Any:
    """Return what `act` returns in a forked child, as JSON has it; what fails there fails here.

    Call it while the process has one thread. `prepare` runs in the child first.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            prepare()
            said = {"returned": act()}
        except BaseException:  # noqa: BLE001  (told to the test, which raises it again)
            said = {"failed": traceback.format_exc()}
        try:
            with os.fdopen(writer, "wb") as stream:
                stream.write(json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    _, status = os.waitpid(child, 0)
    assert data, f"the child ended with {os.waitstatus_to_exitcode(status)} and said nothing"
    told = json.loads(data)
    assert "failed" not in told, told["failed"]
    return told["returned"]


def become_nobody() -> None:
    """Give up all rights, where there are any; for `prepare`."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def leave_mounts() -> None:
    """Take a namespace of mounts of one's own, from which nothing gets out; for `prepare`, needs root."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def mount(kind: str, point: Path, *options: str) -> None:
    """Mount a made-up file system or tmpfs on a directory."""
    subprocess.run(["mount", "-t", kind, *options, kind, str(point)], check=True)


def bind(source: Path, point: Path) -> None:
    """Mount a directory a second time."""
    subprocess.run(["mount", "--bind", str(source), str(point)], check=True)


def unmount(point: Path, *options: str) -> None:
    """Take a mount away."""
    subprocess.run(["umount", *options, str(point)], check=True)


def leave_memory(limit_bytes: int) -> bool:
    """Put this process, and what it forks, into a group that may hold so much memory; tell whether it could.

    Who forked this process takes it away (`remove_memory_group`). Source: docs.kernel.org, admin-guide,
    cgroup-v1/memory.html and cgroup-v2.html.
    """
    for group, limit in _memory_groups(os.getppid()):
        try:
            group.mkdir(exist_ok=True)
            (group / limit).write_text(str(limit_bytes))
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError:
            continue
        return True
    return False


def peak_kib() -> int:
    """Return the most memory that this process has held at once (proc(5), VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def remove_memory_group() -> None:
    """Take away the group of a process that is gone."""
    for group, _ in _memory_groups(os.getpid()):
        with suppress(FileNotFoundError):
            group.rmdir()


def _memory_groups(pid: int) -> tuple[tuple[Path, str], ...]:
    """Return where a group may be, and the name of its limit, in versions 1 and 2."""
    name = f"mig-test-{pid}"
    return (_CGROUPS / "memory" / name, "memory.limit_in_bytes"), (_CGROUPS / name, "memory.max")
