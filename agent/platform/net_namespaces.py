"""The network namespaces of a Linux endpoint: who is in which, and how to look into another one.

Rules:

* A namespace is named as the kernel names it, `net:[4026531840]`; the number is the inode of the namespace.
* Looking into one means that the calling thread goes there (setns(2)) for as long as one call takes, and
  comes back before anything else happens. A socket or a table opened there stays the other namespace's. Where
  the way back fails nothing may go on: that is no OSError, so that nobody takes it for a failing item.
* What may not be looked at is told to the caller, never passed over in silence.

Sources: namespaces(7), network_namespaces(7), setns(2), ip-netns(8).
"""

import os
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, TypeVar

# Where ip-netns(8) and Docker keep namespaces that need no process.
NAMED_DIRECTORIES = ("/run/netns", "/run/docker/netns")
_CLONE_NEWNET = 0x40000000
_PREFIX = "net:["

T = TypeVar("T")


class CannotReturn(Exception):
    """The thread is in a namespace where it must not stay, and could not leave it."""


class NamedNamespace(NamedTuple):
    """A namespace that is held by a file."""

    inode: int
    path: str


def namespace_text(inode: int) -> str:
    """Return the kernel's name of a network namespace."""
    return f"net:[{inode}]"


def namespace_of(pid: int, proc: str = "/proc") -> Optional[int]:
    """Return the inode of the network namespace of a process; None where it is gone.

    Raises:
        PermissionError: it may not be looked at.

    """
    try:
        target = os.readlink(f"{proc}/{pid}/ns/net")  # noqa: PTH115  (asked of thousands of processes)
    except (FileNotFoundError, ProcessLookupError):
        return None
    number = target[len(_PREFIX) : -1]
    return int(number) if target.startswith(_PREFIX) and number.isdigit() else None


def own_namespace() -> Optional[int]:
    """Return the inode of the network namespace that the calling thread is in."""
    return os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116


def namespaces_of(
    pids: Iterable[int], proc: str = "/proc", *, on_denied: Optional[Callable[[int], None]] = None
) -> Dict[int, List[int]]:
    """Return the processes that are in each network namespace, by its inode.

    Args:
        pids: the processes to ask; those that have ended are passed over.
        proc: where proc(5) is mounted.
        on_denied: told of each process that may not be looked at.

    """
    found: Dict[int, List[int]] = {}
    for pid in pids:
        try:
            inode = namespace_of(pid, proc)
        except PermissionError:
            if on_denied is not None:
                on_denied(pid)
            continue
        if inode is not None:
            found.setdefault(inode, []).append(pid)
    return found


def named_namespaces(directories: Iterable[str] = NAMED_DIRECTORIES) -> List[NamedNamespace]:
    """Return the namespaces that files hold; what is no namespace (any more) is on another file system.

    Raises:
        PermissionError: a directory may not be looked at.

    """
    found: List[NamedNamespace] = []
    kernel = os.stat("/proc/self/ns/net").st_dev  # noqa: PTH116  (nsfs: all namespaces are on one device)
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            path = f"{directory}/{name}"
            try:
                status = os.stat(path)  # noqa: PTH116
            except FileNotFoundError:
                continue
            if status.st_dev == kernel:
                found.append(NamedNamespace(status.st_ino, path))
    return found


def in_namespace(path: str, act: Callable[[], T]) -> T:
    """Return what a function returns in the network namespace of a file such as `/proc/1/ns/net`.

    Raises:
        OSError: we may not go there, or it is no network namespace, or what the function raises.
        CannotReturn: the thread could not come back.

    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            return act()
        finally:
            try:
                _enter(home)
            except OSError as error:
                raise CannotReturn(str(error)) from error
    finally:
        os.close(home)


def _enter(descriptor: int) -> None:
    # os.setns is there from Python 3.12 on.
    import ctypes  # noqa: PLC0415  (only who goes elsewhere needs it)

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
