r"""Find processes by name, command line, user, program, hash, parents, open files, libraries, ports and more.

The answer is every process that satisfies all filters given, or all processes without any. Values of one
filter are alternatives; one with a leading `!` leaves out what it matches. `found` means that at least one
process did.

Regular expressions (RE2) are found anywhere unless anchored with `^` and `$`. Names are what a process calls
itself and what the file of its program is called: either is enough. What can hold secrets is matched and
never answered: a command line's text is not given, and of the environment only the names of variables that
matched are.

The program of a process is hashed through /proc/PID/exe: it is the file that runs, also where it was deleted
or replaced since, and each file is read once however many processes run it. One on a network file system is
not read. Paths are those of the process's own mount namespace. Threads of the kernel have no program, no
command line and no files: filters on these leave them out; `kernel` tells them apart.

A process is looked at once, and processes come and go meanwhile: this is no snapshot. What is not known, such
as the program of another user's process where the agent is not root, satisfies no filter on it, turned round
or not: `skipped` counts such processes by what is not known, `errors` is their sum, and a note says why. One
that code in the kernel hides from /proc is not seen. On macOS and Windows, where psutil answers,
capabilities, containers and deleted programs are `unsupported`.

`processes_seen` counts the processes looked at (with `pids` only those), `processes_matched` those answered,
`kernel_threads` the threads of the kernel among those seen; `files_hashed` and `bytes_read` tell what was
read to hash.
"""

import sys
import time
from itertools import islice
from typing import Annotated, Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from msgspec import Meta

from agent.module import Context, ModuleRecord
from agent.platform.process_portable import PortableTable
from agent.platform.process_programs import Programs
from agent.platform.process_subject import Ancestor, ProcessTable
from agent.scan.accounts import Accounts
from agent.scan.capabilities import NAMES as CAPABILITIES
from agent.scan.digests import require_digests
from agent.scan.fence import Fence
from agent.scan.patterns import require_engine
from agent.scan.process_checks import AnySubject, Checks, TextFilter, make_checks
from agent.scan.process_filters import EXPRESSIONS, ProcessFilters
from agent.scan.process_flags import PROCESS_FLAGS, upgrade_filters
from agent.scan.process_record import ProcessRecord
from agent.scan.process_tally import ProcessTally
from agent.scan.search import HASH_KINDS, Count, HashKind
from agent.scan.texts import path_base64, path_text, time_text
from agent.scan.throttle import Throttle
from protocol.errors import InvalidInput

ALIASES = ("ps",)
PATHS = ()
EXAMPLES = (
    "mig process --name '^(nc|ncat|socat)$'   who runs a tool by its name",
    "mig process --sha256 DIGEST   where a known bad program runs, be its file deleted or not",
    "mig process --deleted --returnsha256   programs whose file is gone, or was replaced by an update",
    "mig process --fromtemporary --user root   programs of root below /tmp, /var/tmp and /dev/shm",
    "mig process --command 'bash -i' --ancestor '^(nginx|httpd|php-fpm)'   a shell below a web server",
    "mig process --port 4444 --start '<1h'   who has been listening on a port for less than an hour",
    "mig process --variable '^LD_PRELOAD$' --library '^/(tmp|home)/'   preloaded from where people write",
    "mig process --capability cap_sys_admin --user '!root'   rights without being root",
    "mig process --container any --open-file '^/var/run/docker\\.sock$'   who in a container reaches out",
)
# Of the lists of one record.
_MOST_NAMED = 16
_MOST_NAMED_BYTES = 4096
_NO_PROGRAM: Tuple[Optional[bytes], bool] = (None, False)
_NO_ANCESTORS: Tuple[Ancestor, ...] = ()
# Filters that read files of /proc which path rules may be about.
_PATH_RULED = ("commands", "variables", "open_files", "libraries")


class Params(ProcessFilters, frozen=True, kw_only=True):
    """Which processes to tell, and what of them."""

    returnsha256: Annotated[bool, Meta(description="give the SHA-256 of the program of each process")] = False
    returnhashes: Annotated[
        Tuple[HashKind, ...],
        Meta(description="digests to give of the program of each process", max_length=len(HASH_KINDS)),
    ] = ()
    matchlimit: Annotated[
        Count, Meta(description="tell at most so many processes, and say so; 0 is without limit")
    ] = 0

    def digest_kinds(self) -> Tuple[str, ...]:
        """Return the digests that are needed."""
        asked = (*self.returnhashes, *(("sha256",) if self.returnsha256 else ()))
        return tuple(kind for kind in HASH_KINDS if getattr(self, kind) or kind in asked)


class AncestorRecord(ModuleRecord, frozen=True, kw_only=True):
    """A parent of a process, or a parent's parent."""

    pid: Annotated[int, Meta(description="its number")]
    process: Annotated[str, Meta(description="what it calls itself")]
    executable: Annotated[Optional[str], Meta(description="path of its program, where it is known")] = None


class Record(ProcessRecord, frozen=True, kw_only=True):
    """A process."""

    ppid: Annotated[int, Meta(description="number of its parent; 0 is none")]
    kernel: Annotated[bool, Meta(description="whether it is a thread of the kernel")] = False
    uid: Annotated[Optional[int], Meta(description="number of its effective user")] = None
    gid: Annotated[Optional[int], Meta(description="number of its effective group")] = None
    user: Annotated[Optional[str], Meta(description="name of its user, where the endpoint has one")] = None
    started: Annotated[str, Meta(description="when it was started, RFC 3339 in UTC, to a second or so")]
    state: Annotated[
        str, Meta(description="R running, S sleeping, D waiting for a device, T stopped, Z ended, I idle")
    ]
    container: Annotated[Optional[str], Meta(description="id or name of the container that it runs in")] = (
        None
    )
    ancestors: Annotated[
        Tuple[AncestorRecord, ...], Meta(description="its parent, that one's parent and so on, 32 at most")
    ] = ()
    hashes: Annotated[
        Optional[Dict[str, str]],
        Meta(description="digests of its program in hexadecimal by algorithm, of those asked for"),
    ] = None
    ports: Annotated[
        Optional[Tuple[int, ...]],
        Meta(description="ports on which it listens by TCP or UDP, where ports are asked for"),
    ] = None
    capabilities: Annotated[
        Optional[Tuple[str, ...]],
        Meta(description="its effective capabilities, where capabilities are asked for"),
    ] = None
    open_files: Annotated[
        Optional[Tuple[str, ...]], Meta(description="paths that it has open and that matched, 16 at most")
    ] = None
    libraries: Annotated[
        Optional[Tuple[str, ...]], Meta(description="paths that it maps and that matched, 16 at most")
    ] = None
    variables: Annotated[
        Optional[Tuple[str, ...]],
        Meta(description="names of its variables that matched, 16 at most; never a value"),
    ] = None


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each process that satisfies all filters.

    Raises:
        InvalidInput: `unsupported` for what this system, or its Python, cannot answer; `acl-refused` where
            path rules forbid what a filter reads.

    """
    table = _table()
    _require_answerable(params, table.lacks)
    _require_allowed(params, context)
    tally = ProcessTally(context, params.pids)
    programs = Programs(
        params.digest_kinds(), Fence(context.paths), lambda: throttle.keep(lambda: tally.check(programs))
    )
    throttle = Throttle(context.budget, 1, bytes_read=lambda: programs.bytes_read)
    checks = make_checks(params, now_s=time.time(), accounts=Accounts(), programs=programs)
    for note in (*table.holes(), *checks.notes):
        context.note(note)
    try:
        for subject in table.subjects(tally.lose, frozenset(params.pids)):
            tally.check(programs)
            record = tally.judge(subject, lambda one: _record(one, params, checks, programs, tally))
            if record is None:
                continue
            if params.matchlimit and tally.counts["processes_matched"] >= params.matchlimit:
                context.truncate(f"stopped at the matchlimit of {params.matchlimit}; there are more matches")
                return
            tally.counts["processes_matched"] += 1
            yield record
    finally:
        tally.finish(programs)


def _table() -> Any:
    """Return the table of processes; both kinds have what `AnySubject` asks for."""
    return ProcessTable() if sys.platform.startswith("linux") else PortableTable()


def _require_answerable(params: Params, lacks: Mapping[str, str]) -> None:
    if any(getattr(params, name) for name in EXPRESSIONS):
        require_engine("a regular expression on processes")
    require_digests(params.digest_kinds(), "the digest of a program")
    for name, reason in lacks.items():
        if getattr(params, name) not in ((), None):
            raise InvalidInput("unsupported", f"{name}: {reason}")


def _require_allowed(params: Params, context: Context) -> None:
    """Refuse, where there are path rules, what is read of processes under paths that these do not allow."""
    if not context.paths.is_open and any(getattr(params, name) for name in _PATH_RULED):
        context.paths.require(["/proc"])


def _record(
    subject: AnySubject, params: Params, checks: Checks, programs: Programs, tally: ProcessTally
) -> Optional[Record]:
    """Return the record of a process; None where it is not wanted."""
    if not checks.hold(subject):
        return None
    facts = subject.facts
    executable, is_deleted = tally.told(lambda: subject.executable, _NO_PROGRAM)
    digests: Mapping[str, str] = {}
    if params.digest_kinds():
        digests = tally.told(lambda: subject.digests(programs), {})
    return Record(
        pid=facts.pid,
        ppid=facts.ppid,
        process=path_text(facts.process),
        executable=path_text(executable) if executable else None,
        executable_b64=path_base64(executable) if executable else None,
        deleted=is_deleted,
        kernel=facts.is_kernel_thread,
        uid=facts.uid if facts.uid >= 0 else None,
        gid=facts.gid if facts.gid >= 0 else None,
        user=subject.user,
        started=time_text(int(facts.started_s * 1_000_000) * 1000),
        state=facts.state,
        container=tally.told(lambda: subject.container, None),
        ancestors=tuple(map(_ancestor, tally.told(lambda: subject.ancestors, _NO_ANCESTORS))),
        hashes=dict(digests) or None,
        ports=tuple(subject.ports) if params.ports else None,
        capabilities=_capability_names(facts.capabilities) if params.capabilities else None,
        open_files=_matching(checks.open_files, lambda: subject.open_files),
        libraries=_matching(checks.libraries, lambda: subject.libraries),
        variables=_matching(checks.variables, lambda: subject.variables),
    )


def _ancestor(one: Ancestor) -> AncestorRecord:
    return AncestorRecord(
        pid=one.pid,
        process=path_text(one.process),
        executable=path_text(one.executable) if one.executable else None,
    )


def _capability_names(bits: int) -> Tuple[str, ...]:
    return tuple(name for number, name in enumerate(CAPABILITIES) if bits >> number & 1)


def _matching(
    wanted: Optional[TextFilter], texts: Callable[[], Sequence[bytes]]
) -> Optional[Tuple[str, ...]]:
    if wanted is None:
        return None
    found = islice(wanted.matching(texts()), _MOST_NAMED)
    return tuple(path_text(text[:_MOST_NAMED_BYTES]) for text in found) or None


FLAGS = PROCESS_FLAGS


def from_flags(values: Dict[str, Any]) -> Any:
    """Make the parameters of the command line's flags."""
    return upgrade_filters({name.replace("-", "_"): value for name, value in values.items()})


def upgrade(parameters: Any) -> Any:
    """Rewrite looser spellings: a name in the singular, a lone value, digests told apart by their length."""
    return upgrade_filters(parameters)
