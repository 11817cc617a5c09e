"""Containers as their processes show: by control groups (`agent.platform.containers`) and namespaces alone.

Rules:

* Processes that a control group's name puts into a container are its own; so are those in the process
  namespace of its first process, where that is not the endpoint's.
* Processes that no runtime and no control group tells of, and that have both a process and a mount namespace
  of their own, are told as a container too: its id is the process namespace, such as `pid:[4026532201]`. A
  browser's sandbox may look the same.
* Everything is compared with process 1; where that may not be looked at, with ourselves.

Sources: namespaces(7), proc(5): /proc/PID/ns, /proc/PID/status (NSpid, CapBnd, Seccomp), mountinfo.
"""

import os
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from agent.platform.container_facts import MAX_LISTED, ContainerFacts, MountFacts, added, bounded
from agent.platform.containers import container_of
from agent.scan.capabilities import NAMES
from agent.scan.mounts import PSEUDO_TYPES, unescape
from agent.scan.texts import path_text

_KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_STATUS_BYTES = 64 << 10
_MAX_MOUNT_BYTES = 1 << 20
_LEAST_ALL = len(NAMES) - 4
# Mounts that every container has, and that are nobody's files.
_OWN_TYPES = PSEUDO_TYPES | {"tmpfs", "overlay", "devtmpfs"}
_LEAST_FIELDS = 6


class Processes(NamedTuple):
    """Processes by the container that their control group names, and by their process namespace."""

    by_container: Dict[str, List[int]]
    by_namespace: Dict[str, List[int]]


def find_processes(proc: str = "/proc", check: Callable[[], None] = lambda: None) -> Processes:
    """Return which processes may be in containers; those in the endpoint's own process namespace are not."""
    by_container: Dict[str, List[int]] = {}
    by_namespace: Dict[str, List[int]] = {}
    own = namespace_of(_reference(proc), "pid", proc)
    for pid in sorted(int(name) for name in os.listdir(proc) if name.isdigit()):  # noqa: PTH208  (thousands)
        check()
        container = container_of(pid, proc)
        if container is not None:
            by_container.setdefault(container, []).append(pid)
        namespace = namespace_of(pid, "pid", proc)
        if namespace is not None and namespace != own:
            by_namespace.setdefault(namespace, []).append(pid)
    return Processes(by_container, by_namespace)


def namespace_of(pid: int, kind: str, proc: str = "/proc") -> Optional[str]:
    """Return a process's namespace, such as `net:[4026531840]`; None where it cannot be told."""
    try:
        return os.readlink(f"{proc}/{pid}/ns/{kind}")  # noqa: PTH115  (asked of thousands of processes)
    except OSError:
        return None


def _reference(proc: str) -> int:
    return 1 if namespace_of(1, "mnt", proc) is not None else os.getpid()


def with_processes(facts: ContainerFacts, processes: Processes, proc: str = "/proc") -> ContainerFacts:
    """Return a container with its processes and what they show, as far as its runtime did not tell."""
    pids = set(processes.by_container.get(facts.id, ()))
    space = namespace_of(facts.pid, "pid", proc) if facts.pid else None
    pids.update(processes.by_namespace.get(space or "", ()))
    if not pids:
        # Whatever a file says: a process with that number that is in no container is another one by now.
        is_stale = facts.source != "engine"
        return facts._replace(
            pid=0 if is_stale else facts.pid, state=facts.state or ("stopped" if is_stale else None)
        )
    first = facts.pid if facts.pid in pids else _first_of(sorted(pids), proc)
    return facts._replace(
        pid=first,
        pids=tuple(sorted(pids)[:MAX_LISTED]),
        state=facts.state or "running",
        namespace=namespace_of(first, "net", proc),
        shared=_shared(first, proc),
    )


def unclaimed(
    processes: Processes, claimed: "frozenset[int]", proc: str = "/proc"
) -> List[Tuple[str, str, int]]:
    """Return what no runtime told of: an id, by what it is known, and its first process."""
    found: List[Tuple[str, str, int]] = []
    seen = set(claimed)
    for container, pids in sorted(processes.by_container.items()):
        if seen.isdisjoint(pids):
            found.append((container, "cgroup", _first_of(pids, proc)))
            seen.update(pids)
    own = namespace_of(_reference(proc), "mnt", proc)
    for space, pids in sorted(processes.by_namespace.items()):
        first = _first_of(pids, proc)
        if seen.isdisjoint(pids) and namespace_of(first, "mnt", proc) not in (None, own):
            found.append((space, "namespaces", first))
    return found


def facts_of_process(container: str, source: str, pid: int, proc: str = "/proc") -> ContainerFacts:
    """Return what the first process of a container shows of it."""
    status = _status(pid, proc)
    mask = _hexadecimal(status.get("CapBnd"))
    bounding = tuple(name for number, name in enumerate(NAMES) if mask >> number & 1)
    uids, gids = status.get("Uid", "").split(), status.get("Gid", "").split()
    network = namespace_of(pid, "net", proc)
    is_host = network is not None and network == namespace_of(_reference(proc), "net", proc)
    return ContainerFacts(
        id=container,
        runtime="unknown",
        source=source,
        pid=pid,
        user=f"{uids[0]}:{gids[0]}" if uids and gids else None,
        is_privileged=len(bounding) >= _LEAST_ALL and status.get("Seccomp") == "0",
        capabilities_added=added(bounding),
        network=None if network is None else "host" if is_host else "own",
        mounts=_mounts(pid, proc),
    )


def _first_of(pids: List[int], proc: str) -> int:
    """Return the process that is number 1 within, else the one with the lowest number."""
    for pid in pids:
        if _status(pid, proc).get("NSpid", "").split()[1:][-1:] == ["1"]:
            return pid
    return pids[0]


def _shared(pid: int, proc: str) -> Tuple[str, ...]:
    """Return the kinds of namespaces that a process has in common with the endpoint."""
    reference = _reference(proc)
    own = {kind: namespace_of(pid, kind, proc) for kind in _KINDS}
    return tuple(
        kind for kind in _KINDS if own[kind] is not None and own[kind] == namespace_of(reference, kind, proc)
    )


def _status(pid: int, proc: str) -> Dict[str, str]:
    try:
        with open(f"{proc}/{pid}/status", "rb") as file:  # noqa: PTH123  (asked of many processes)
            lines = file.read(_STATUS_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name: value.strip() for name, _, value in pairs}


def _hexadecimal(text: Optional[str]) -> int:
    try:
        return int(text or "0", 16)
    except ValueError:
        return 0


def _mounts(pid: int, proc: str) -> Tuple[MountFacts, ...]:
    """Return what is mounted within and holds files; the source is a path on its file system."""
    try:
        with open(f"{proc}/{pid}/mountinfo", "rb") as file:  # noqa: PTH123  (as above)
            lines = file.read(_MAX_MOUNT_BYTES).splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        before, _, after = line.partition(b" - ")
        fields, kind = before.split(), after.split()[:1]
        if len(fields) < _LEAST_FIELDS or not kind or kind[0].decode("ascii", "replace") in _OWN_TYPES:
            continue
        found.append(
            MountFacts(
                path_text(unescape(fields[4]))[:4096],
                bounded(path_text(unescape(fields[3]))),
                bounded(kind[0].decode("ascii", "replace")),
                b"ro" in fields[5].split(b","),
            )
        )
    return tuple(found[:MAX_LISTED])
