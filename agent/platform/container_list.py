"""All containers of an endpoint, put together of what engines, stores on disk and processes say.

What an engine says is believed first, then what stands on disk, then what processes show. Without engines and
stores, processes alone tell: of each container only what can be seen from outside.
"""

import os
import stat
from typing import Callable, Dict, Iterator, List, Tuple

from agent.platform.container_engine import Engine, EngineFailure, sockets
from agent.platform.container_facts import ContainerFacts, merge
from agent.platform.container_processes import (
    facts_of_process,
    find_processes,
    unclaimed,
    with_processes,
)
from agent.platform.container_stores import stored_containers

_MAX_HOMES = 1000

Lose = Callable[[str], None]


def list_containers(
    lose: Lose, *, root: str = "/", proc: str = "/proc", check: Callable[[], None] = lambda: None
) -> Iterator[ContainerFacts]:
    """Yield the containers, by their ids; `lose` is told what could not be looked at, and why."""
    known: Dict[str, ContainerFacts] = {}
    for facts in (*_engines(root, lose, check), *stored_containers(root, _homes(root), lose)):
        check()
        other = known.get(facts.id)
        known[facts.id] = facts if other is None else merge(other, facts)
    processes = find_processes(proc, check)
    found: List[ContainerFacts] = [with_processes(facts, processes, proc) for facts in known.values()]
    claimed = frozenset(pid for facts in found for pid in facts.pids)
    for container, source, pid in unclaimed(processes, claimed, proc):
        check()
        facts = facts_of_process(container, source, pid, proc)
        found.append(with_processes(facts, processes, proc))
    yield from sorted(found, key=lambda facts: facts.id)


def _engines(root: str, lose: Lose, check: Callable[[], None]) -> Iterator[ContainerFacts]:
    for runtime, path in sockets(root):
        try:
            status = os.stat(path)  # noqa: PTH116  (of a socket)
        except OSError:
            continue
        # Whoever else may have put it there is not to be talked to.
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.stat(root).st_uid:  # noqa: PTH116  (as above)
            lose(f"{path}: is no socket of the endpoint's owner, and was not asked")
            continue
        try:
            yield from Engine(runtime, path, check).containers(lose)
        except EngineFailure as failure:
            lose(str(failure))


def _homes(root: str) -> Tuple[str, ...]:
    """Return the directories of users who may have stores of their own."""
    try:
        names = sorted(os.listdir(f"{root.rstrip('/')}/home"))[:_MAX_HOMES]  # noqa: PTH208  (names only)
    except OSError:
        names = []
    return ("root", *(f"home/{name}" for name in names))
