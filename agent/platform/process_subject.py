"""One process of Linux with all that can be asked of it, each answer read when it is first asked for.

Rules:

* What is not known is never taken for something that is not there: `NotKnown` says what and why.
* All is read through the process's own directory (`agent.platform.processes`).
* A parent is whoever bears the number now, unless it started after its child: then that number was given to
  another process, and the chain ends.
"""

import os
from functools import cached_property
from typing import Callable, Collection, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, TypeVar

from agent.platform.containers import container_in_cgroup
from agent.platform.process_details import (
    Held,
    Ports,
    command_line,
    held,
    mapped_files,
    variable_names,
)
from agent.platform.process_memory import ProcessGone
from agent.platform.process_programs import Programs
from agent.platform.process_users import UserNames
from agent.platform.processes import ProcessDirectory, ProcessFacts, boot_time_s, list_pids

MOST_ANCESTORS = 32
# The kernel counts a start in ticks of a hundredth of a second.
_TICK_S = 0.02
# What is wider names no container that we know of.
_CGROUP_BYTES = 1 << 16
_T = TypeVar("_T")


class NotKnown(Exception):
    """A fact of a process is not known: `what` it is, and the reason."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


class Ancestor(NamedTuple):
    """A parent, or a parent's parent; `executable` is None for threads of the kernel and where not known."""

    pid: int
    process: bytes
    executable: Optional[bytes]
    started_s: float
    ppid: int


class Subject:
    """One process, while its directory is open.

    Every property and method raises ProcessGone when it ended, and NotKnown.
    """

    def __init__(self, directory: ProcessDirectory, facts: ProcessFacts, table: "ProcessTable") -> None:
        self.facts = facts
        self._directory = directory
        self._table = table
        self._cut: List[str] = []

    @property
    def pid(self) -> int:
        """Its number."""
        return self.facts.pid

    @property
    def cut(self) -> Tuple[str, ...]:
        """What was longer than is read, in words."""
        return tuple(self._cut)

    @cached_property
    def executable(self) -> Tuple[Optional[bytes], bool]:
        """The path of its program, and whether that file was deleted or replaced."""
        if self.facts.is_kernel_thread:
            return None, False
        return self._ask("program", self._directory.executable)

    @cached_property
    def user(self) -> Optional[str]:
        """The name of its user."""
        return self._table.users.name(self.facts.uid)

    @cached_property
    def command(self) -> bytes:
        """Its arguments, with blanks between them; for matching only."""
        data, is_cut = self._ask("command line", lambda: command_line(self._directory))
        if is_cut:
            self._cut.append("command line")
        return data

    @cached_property
    def variables(self) -> Tuple[bytes, ...]:
        """The names of its environment's variables."""
        names, is_cut = self._ask("environment", lambda: variable_names(self._directory))
        if is_cut:
            self._cut.append("environment")
        return names

    @cached_property
    def _held(self) -> Held:
        return self._ask("open files", lambda: held(self._directory))

    @property
    def open_files(self) -> Tuple[bytes, ...]:
        """The paths that its descriptors lead to."""
        return self._held.paths

    @cached_property
    def libraries(self) -> Tuple[bytes, ...]:
        """The paths of the files that it maps, but its program's."""
        path, is_deleted = self.executable
        own = path + b" (deleted)" if path and is_deleted else path
        mapped = self._ask("libraries", lambda: mapped_files(self._directory))
        return tuple(file for file in mapped if file != own)

    @cached_property
    def ports(self) -> Tuple[int, ...]:
        """The ports on which it listens, by TCP or UDP."""
        sockets = self._held.sockets
        return self._ask("sockets", lambda: self._table.ports.of(self._directory, sockets))

    @cached_property
    def container(self) -> Optional[str]:
        """The container that it runs in."""
        data = self._ask("control groups", lambda: self._directory.read("cgroup", _CGROUP_BYTES))
        return container_in_cgroup(data.decode("utf-8", "replace"))

    @cached_property
    def ancestors(self) -> Tuple[Ancestor, ...]:
        """Its parent, that one's parent and so on."""
        return self._table.ancestors(self.facts)

    def digests(self, programs: Programs) -> Mapping[str, str]:
        """Return the digests of its program; none of a thread of the kernel."""
        path, _ = self.executable
        if path is None:
            return {}
        program = self._ask("program", lambda: programs.digests(path, self._directory.open_program))
        if program.digests is None:
            raise NotKnown("program", program.reason)
        return program.digests

    def _ask(self, what: str, ask: Callable[[], _T]) -> _T:
        try:
            return ask()
        except OSError as error:
            raise NotKnown(what, os.strerror(error.errno or 0)) from None


class ProcessTable:
    """All processes, one after the other; `proc` stands for /proc."""

    # What a subject of this kind can be asked for at all; see `agent.platform.process_portable`.
    lacks: Mapping[str, str] = {}

    def __init__(self, proc: str = "/proc") -> None:
        self.users = UserNames()
        self.ports = Ports(proc)
        self._proc = proc
        self._boot_s = boot_time_s(proc)
        self._ancestors: Dict[int, Optional[Ancestor]] = {}

    def subjects(self, lost: Callable[[int, str], None], pids: Collection[int] = ()) -> Iterator[Subject]:
        """Yield the processes by number, all or those that are named.

        `lost` is told which is not among them, and why: `ended` or `hidden`.
        """
        for pid in sorted(pids) if pids else list_pids(self._proc):
            try:
                with ProcessDirectory(pid, self._proc) as directory:
                    facts = directory.facts(self._boot_s)
                    yield Subject(directory, facts, self)
            except ProcessGone:
                lost(pid, "ended")
            except PermissionError:
                lost(pid, "hidden")

    def ancestors(self, facts: ProcessFacts) -> Tuple[Ancestor, ...]:
        """Return the chain of parents, at most `MOST_ANCESTORS` of them."""
        found: List[Ancestor] = []
        ppid, started_s = facts.ppid, facts.started_s
        while ppid and len(found) < MOST_ANCESTORS:
            if ppid not in self._ancestors:
                self._ancestors[ppid] = self._ancestor(ppid)
            one = self._ancestors[ppid]
            if one is None or one.started_s > started_s + _TICK_S:
                break
            found.append(one)
            ppid, started_s = one.ppid, one.started_s
        return tuple(found)

    def _ancestor(self, pid: int) -> Optional[Ancestor]:
        try:
            with ProcessDirectory(pid, self._proc) as directory:
                facts = directory.facts(self._boot_s)
                try:
                    executable = None if facts.is_kernel_thread else directory.executable()[0]
                except PermissionError:
                    executable = None
                return Ancestor(pid, facts.process, executable, facts.started_s, facts.ppid)
        except (ProcessGone, PermissionError):
            return None

    def holes(self) -> Iterator[str]:
        """Yield what of this endpoint is not shown to us at all."""
        return iter(hidden_by(self._proc, mounted=self._proc))


def hidden_by(proc: str, *, mounted: str = "/proc", euid: Optional[int] = None) -> List[str]:
    """Return what hides processes from us: another namespace of numbers, or how `mounted` is.

    Source: proc(5), mount options; the kernel's words for hidepid since 5.8 are off, noaccess, invisible and
    ptraceable.
    """
    said = []
    # PROC_PID_INIT_INO of the kernel (include/linux/proc_ns.h): the numbers of the endpoint itself.
    try:
        namespace = os.readlink(f"{proc}/self/ns/pid")  # noqa: PTH115
    except OSError:
        namespace = ""
    if namespace and namespace != "pid:[4026531836]":
        said.append("the agent has process numbers of its own (a container?): what runs outside is not seen")
    try:
        with open(f"{proc}/self/mountinfo", "rb") as mounts:  # noqa: PTH123
            lines = mounts.read().split(b"\n")
    except OSError:
        lines = []
    is_root = (os.geteuid() if euid is None else euid) == 0
    for line in lines:
        fields, _, rest = line.partition(b" - ")
        if fields.split()[4:5] != [os.fsencode(mounted)] or not rest.startswith(b"proc ") or is_root:
            continue
        said.extend(
            f"{mounted} is mounted with {option}: processes of others are hidden"
            for option in rest.split()[-1].decode("ascii", "replace").split(",")
            if option.startswith("hidepid=") and option not in ("hidepid=0", "hidepid=off")
        )
    return said
