"""Rules applied to the memory of processes.

Rules:

* Memory is read only where no path rule of the ACL could be got round by it: it may hold what stands in any
  file. Where there are such rules, they must allow /proc, of which the memory is a part.
* The agent's own processes are left out: they hold the rules.
* No process is stopped. One that ends while it is looked at is a note; what was found until then stands.
"""

import os
from typing import Iterator, List, Mapping, NamedTuple, Optional, Set, Tuple

from agent.module import Context
from agent.platform.process_memory import Process, ProcessGone, list_pids
from agent.scan.helper import Helper
from agent.scan.outcome import GONE, Outcome, decode
from agent.scan.patterns import TextPattern, split_inverse
from agent.scan.rule_scan import Finding, MatchLimits, ProcessName, Tally, ask
from agent.scan.rule_work import PROCESS, PROCESS_TOGETHER
from agent.scan.texts import path_text
from protocol.acl import PathRules
from protocol.errors import InvalidInput

_OWN = "own-process"
_PROC = "/proc"


class Chosen(NamedTuple):
    """Which processes one search looks into; `matchlimit` is 0 where there is none."""

    pids: Tuple[int, ...]
    names: Tuple[str, ...]
    matchlimit: int


def require_memory_allowed(rules: PathRules) -> None:
    """Raise where path rules of the ACL forbid to read memory.

    Raises:
        InvalidInput: `acl-refused`.

    """
    if rules.is_open:
        return
    if rules.allow is None:
        raise InvalidInput(
            "acl-refused", f"memory can hold what stands in any file, and {rules.deny[0]} is denied"
        )
    rules.require([_PROC])


def scan_processes(
    chosen: Mapping[str, Chosen], helper: Helper, tally: Tally, context: Context, *, is_together: bool
) -> Iterator[Finding]:
    """Yield what matches in the memory of the processes that are chosen, each judged at once if asked for.

    Raises:
        InvalidInput: `acl-refused`.

    """
    require_memory_allowed(context.paths)
    tally.begin("processes")
    choosers = {label: _Chooser(one) for label, one in chosen.items()}
    limits = MatchLimits({label: one.matchlimit for label, one in chosen.items()}, context.truncate)
    kind = PROCESS_TOGETHER if is_together else PROCESS
    own = own_pids()
    named = {pid for one in chosen.values() for pid in one.pids}
    for pid in sorted(named.union(list_pids())):
        context.check()
        try:
            with Process(pid) as process:
                tally.counts["processes_seen"] += 1
                about = ProcessName(pid, process.name(), _executable(process))
                labels = [label for label, chooser in choosers.items() if chooser.wants(about)]
                outcome = _look(process, helper, tally, kind, is_own=pid in own) if labels else None
        except ProcessGone:
            if pid in named:
                tally.lose(GONE, f"process {pid}: not scanned: there is none")
            continue
        if outcome is None:
            continue
        for label in labels:
            if outcome.hits and limits.admits(label):
                for hit in outcome.hits:
                    yield Finding(label, hit, process=about)
        tally.count("processes", outcome, f"process {pid} ({path_text(about.name)})")
        tally.tell()
        context.progress()
        if limits.is_over():
            return


def _look(process: Process, helper: Helper, tally: Tally, kind: bytes, *, is_own: bool) -> Optional[Outcome]:
    if is_own:
        tally.lose(_OWN)
        return None
    return decode(ask(helper, kind + b"%d" % process.pid, process.descriptor))


def _executable(process: Process) -> bytes:
    try:
        return process.executable()
    except PermissionError:
        return b""


def own_pids() -> Set[int]:
    """Return the processes that hold the rules since they are ours: this one's group, and who started it."""
    own = {os.getpid(), os.getppid()}
    group = os.getpgid(0)
    for pid in list_pids():
        try:
            if os.getpgid(pid) == group:
                own.add(pid)
        except ProcessLookupError:
            continue
    return own


class _Chooser:
    """Tells which processes a search wants: any of its numbers, or any of its names and none with `!`."""

    def __init__(self, chosen: Chosen) -> None:
        self._pids = frozenset(chosen.pids)
        self._some: List[TextPattern] = []
        self._none: List[TextPattern] = []
        for name in chosen.names:
            expression, is_inverse = split_inverse(name)
            (self._none if is_inverse else self._some).append(TextPattern(expression))

    def wants(self, process: ProcessName) -> bool:
        """Tell whether a process is wanted, by its number, its own name or that of its program's file."""
        if process.pid in self._pids:
            return True
        names = (process.name, process.executable.rpartition(b"/")[2])
        if any(pattern.is_in(name) for pattern in self._none for name in names):
            return False
        if self._some:
            return any(pattern.is_in(name) for pattern in self._some for name in names)
        return bool(self._none) and not self._pids
