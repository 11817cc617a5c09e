"""Processes where there is no /proc (macOS, Windows), by what psutil can tell of them.

The same questions as to `agent.platform.process_subject`; `lacks` says which cannot be answered, and why.
psutil reads more of a process than its number only when asked, and answers of one that is gone by an error;
it tells a number that was given to another process since by when that one was started.

Source: https://psutil.readthedocs.io
"""

import os
import sys
from functools import cached_property
from typing import Any, Callable, Collection, Dict, Iterator, List, Mapping, Optional, Tuple, TypeVar

from agent.platform.process_memory import ProcessGone
from agent.platform.process_programs import Programs
from agent.platform.process_subject import MOST_ANCESTORS, Ancestor, NotKnown
from agent.platform.processes import ProcessFacts

_LETTERS = {"running": "R", "sleeping": "S", "disk-sleep": "D", "stopped": "T", "zombie": "Z", "idle": "I"}
_T = TypeVar("_T")


class PortableSubject:
    """One process. Every property and method raises ProcessGone when it ended, and NotKnown."""

    def __init__(self, process: Any, facts: ProcessFacts, table: "PortableTable") -> None:
        self.facts = facts
        self._process = process
        self._table = table

    @property
    def pid(self) -> int:
        """Its number."""
        return self.facts.pid

    @property
    def cut(self) -> Tuple[str, ...]:
        """What was longer than is read: psutil does not tell."""
        return ()

    @cached_property
    def executable(self) -> Tuple[Optional[bytes], bool]:
        """The path of its program; that its file was deleted is not told here."""
        path = self._ask("program", self._process.exe)
        return (os.fsencode(path) if path else None), False

    @cached_property
    def user(self) -> Optional[str]:
        """The name of its user."""
        try:
            name: str = self._ask("user", self._process.username)
        except NotKnown:
            return None
        return name

    @cached_property
    def command(self) -> bytes:
        """Its arguments, with blanks between them; for matching only."""
        return b" ".join(map(os.fsencode, self._ask("command line", self._process.cmdline)))

    @cached_property
    def variables(self) -> Tuple[bytes, ...]:
        """The names of its environment's variables."""
        return tuple(map(os.fsencode, self._ask("environment", self._process.environ)))

    @cached_property
    def open_files(self) -> Tuple[bytes, ...]:
        """The paths of the regular files that it has open."""
        found = self._ask("open files", self._process.open_files)
        return tuple(dict.fromkeys(os.fsencode(one.path) for one in found))

    @cached_property
    def libraries(self) -> Tuple[bytes, ...]:
        """The paths of the files that it maps, but its program's."""
        own = self.executable[0]
        maps = self._ask("libraries", self._process.memory_maps)
        paths = (os.fsencode(one.path) for one in maps if not one.path.startswith("["))
        return tuple(dict.fromkeys(path for path in paths if path != own))

    @cached_property
    def ports(self) -> Tuple[int, ...]:
        """The ports on which it listens, by TCP or UDP."""
        ask = getattr(self._process, "net_connections", None) or self._process.connections
        found = self._ask("sockets", lambda: ask(kind="inet"))
        # A UDP socket has no state; without an address at its other end it takes what comes.
        listening = (
            one for one in found if one.status == "LISTEN" or (one.status == "NONE" and not one.raddr)
        )
        return tuple(sorted({one.laddr.port for one in listening if one.laddr}))

    @property
    def container(self) -> Optional[str]:
        """The container that it runs in: not told here."""
        return None

    @cached_property
    def ancestors(self) -> Tuple[Ancestor, ...]:
        """Its parent, that one's parent and so on, at most `MOST_ANCESTORS` of them."""
        found: List[Ancestor] = []
        for parent in self._ask("parents", self._process.parents)[:MOST_ANCESTORS]:
            one = self._table.ancestor(parent)
            if one is None:
                break
            found.append(one)
        return tuple(found)

    def digests(self, programs: Programs) -> Mapping[str, str]:
        """Return the digests of its program."""
        path, _ = self.executable
        if path is None:
            return {}
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            program = programs.digests(path, lambda: os.open(path, flags))
        except ProcessGone:
            raise NotKnown("program", "its file is not there") from None
        except OSError as error:
            raise NotKnown("program", os.strerror(error.errno or 0)) from None
        if program.digests is None:
            raise NotKnown("program", program.reason)
        return program.digests

    def _ask(self, what: str, ask: Callable[[], _T]) -> _T:
        return _ask(what, ask)


class PortableTable:
    """All processes, one after the other."""

    def __init__(self) -> None:
        self._ancestors: Dict[int, Optional[Ancestor]] = {}

    @property
    def lacks(self) -> Mapping[str, str]:
        """Which questions are not answered on this system, by the parameter that asks them, and why."""
        lacking = {
            "deleted": "whether a program's file was deleted",
            "capabilities": "capabilities",
            "containers": "containers",
        }
        if sys.platform == "darwin":
            lacking["libraries"] = "which libraries a process maps"
        return {name: f"{what} cannot be told on this system" for name, what in lacking.items()}

    def subjects(
        self, lost: Callable[[int, str], None], pids: Collection[int] = ()
    ) -> Iterator[PortableSubject]:
        """Yield the processes by number, all or those named; `lost` is told which is missing, and why."""
        import psutil  # noqa: PLC0415  (not needed where there is /proc)

        for pid in sorted(pids or psutil.pids()):
            try:
                process = psutil.Process(pid)
                facts = _facts(process)
            except (psutil.NoSuchProcess, ProcessGone):
                lost(pid, "ended")
            except (psutil.AccessDenied, NotKnown):
                lost(pid, "hidden")
            else:
                yield PortableSubject(process, facts, self)

    def ancestor(self, process: Any) -> Optional[Ancestor]:
        """Return what is told of a parent; None where it is gone or hidden."""
        pid: int = process.pid
        if pid not in self._ancestors:
            self._ancestors[pid] = _ancestor(process)
        return self._ancestors[pid]

    def holes(self) -> Iterator[str]:
        """Yield what of this endpoint is not shown to us at all."""
        if hasattr(os, "geteuid") and os.geteuid():
            yield "without the rights of root little is told of processes of others"


def _facts(process: Any) -> ProcessFacts:
    with process.oneshot():
        return ProcessFacts(
            pid=process.pid,
            ppid=_ask("parent", process.ppid),
            process=os.fsencode(_ask("name", process.name)),
            uid=_ask("user", process.uids).effective if hasattr(process, "uids") else -1,
            gid=_ask("group", process.gids).effective if hasattr(process, "gids") else -1,
            started_s=_ask("start", process.create_time),
            state=_LETTERS.get(_ask("state", process.status), "?"),
        )


def _ancestor(process: Any) -> Optional[Ancestor]:
    try:
        facts = _facts(process)
    except (ProcessGone, NotKnown):
        return None
    try:
        path = _ask("program", process.exe)
    except NotKnown:
        path = None
    except ProcessGone:
        return None
    return Ancestor(
        facts.pid, facts.process, os.fsencode(path) if path else None, facts.started_s, facts.ppid
    )


def _ask(what: str, ask: Callable[[], _T]) -> _T:
    import psutil  # noqa: PLC0415

    try:
        return ask()
    except psutil.ZombieProcess:
        raise NotKnown(what, "it has ended, and its parent has not asked about it") from None
    except psutil.NoSuchProcess:
        raise ProcessGone from None
    except psutil.AccessDenied:
        raise NotKnown(what, "access denied") from None
    except OSError as error:
        raise NotKnown(what, os.strerror(error.errno or 0)) from None
