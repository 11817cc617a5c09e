"""List what starts by itself: at boot, at login, at a time, or when a device, a key or a package sets it off.

Every thing that satisfies all filters is a record: the file that says so, whether it is in force, which
programs it runs, and for each file its digest and the package that it belongs to. Without a filter, all are.
`found` means that there is one. `root` names another system's root directory, such as a mounted image.

| kind | what |
|---|---|
| systemd | services, timers, sockets, paths of the system and of people; drop-ins, generators, sleep hooks |
| cron | crontabs of the system and of people, periodic scripts, anacron, jobs of at |
| rc | rc.local, init.d, inittab, OpenRC, Upstart |
| shell, desktop | files that shells and sessions read; what desktops start at login |
| kernel-module, preload | modules loaded and to be loaded, commands of modprobe.d; ld.so.preload |
| udev, dbus, network | rules that run something; services of a bus; scripts for interfaces |
| pam, ssh | programs and modules that logging in runs; commands forced on keys, and sshrc |
| package-hook, motd, initramfs | hooks of apt and dpkg; scripts of the greeting; scripts of the first disk |
| container | Docker's that restart, Podman's units, the node's own pods |

Of a command line only the programs are told and how many words follow each: the rest may hold secrets. What a
script does is not looked into, nor what a program starts in turn. A path of a program that is not there says
`missing`. A program within a container begins with `container:` and is not looked at.

Owners are those that dpkg, rpm or apk name. `unpackaged` means that the file, or a program that it runs and
that is there, belongs to no package: what people configured themselves does not, either. Without a database
of packages that is noted and nothing counts as packaged.

Statistics: `starts_seen`, `files_read`, `bytes_hashed`, `skipped` by reason, `errors`.
"""

import stat
import time
from typing import Annotated, Any, Dict, Iterator, List, Literal, NamedTuple, Optional, Tuple

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord
from agent.platform.autostart import Program, Start, find_program
from agent.platform.autostart_sources import read_starts
from agent.platform.package_owners import PackageOwners
from agent.platform.package_verify import Verifier
from agent.platform.rooted import Rooted
from agent.scan.fence import Fence
from agent.scan.patterns import require_engine, require_pattern, split_inverse
from agent.scan.plain_flags import plain_flags, plural_parameters
from agent.scan.process_checks import TextFilter
from agent.scan.search import Age, Hex64, Regex, RootPath
from agent.scan.texts import mode_text, path_base64, path_text, time_text

PATHS = ("root",)
PLATFORMS = ("linux",)
EXAMPLES = (
    "mig persistence --unpackaged --enabled   what starts by itself and came with no package",
    "mig persistence --mtime '<7d'   what was put there, or changed, within a week",
    "mig persistence --program '^/(tmp|var/tmp|dev/shm|home)/'   what is started from where people write",
    "mig persistence --sha256 DIGEST   where a known bad file is started",
    "mig persistence --kind preload --kind pam --kind ssh   what rides on every program and login",
)
Kind = Literal[
    "systemd", "cron", "rc", "shell", "desktop", "kernel-module", "preload", "udev", "pam", "ssh",
    "package-hook", "network", "motd", "initramfs", "dbus", "container",
]  # fmt: skip
_SINGULAR = {"kinds": "kind", "names": "name", "programs": "program", "mtimes": "mtime", "sha256": "sha256"}
_MOST_HASHED = 256 << 20
_IN_CONTAINER = b"container:"
_UNIT_S = {"d": 86_400, "h": 3_600, "m": 60}
_NS = 1_000_000_000
_STARTS_PER_PROGRESS = 50


class Params(ModuleParams, frozen=True, kw_only=True):
    """Which of what starts to tell of; all filters must hold, several values of one are alternatives."""

    kinds: Annotated[
        Tuple[Kind, ...],
        Meta(
            description="systemd cron rc shell desktop kernel-module preload udev pam ssh package-hook"
            " network motd initramfs dbus container, any of them; without it all",
            max_length=16,
        ),
    ] = ()
    names: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on the name, such as of a unit or crontab; a leading !"
            " leaves out",
            max_length=1000,
        ),
    ] = ()
    programs: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on the path of a program that is run, or of the file; a"
            " leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    sha256: Annotated[
        Tuple[Hex64, ...],
        Meta(description="SHA-256 digests of the file, or of a program that it runs", max_length=10_000),
    ] = ()
    mtimes: Annotated[
        Tuple[Age, ...],
        Meta(
            description="age of the last change of the file or a program in d h m: <7d within, >5h before",
            max_length=16,
        ),
    ] = ()
    unpackaged: Annotated[
        bool, Meta(description="only where the file, or a program, belongs to no package")
    ] = False
    enabled: Annotated[bool, Meta(description="only what is in force")] = False
    root: Annotated[
        RootPath, Meta(description="root directory of the system to look at, such as a mounted image")
    ] = "/"

    def __post_init__(self) -> None:
        """Refuse expressions that are none; msgspec turns the ValueError into its own error."""
        for field in ("names", "programs"):
            for expression in getattr(self, field):
                require_pattern(split_inverse(expression)[0], field)


class ProgramRecord(ModuleRecord, frozen=True, kw_only=True):
    """A program that is run."""

    path: Annotated[str, Meta(description="its path, or its name where it was not found")]
    path_b64: Annotated[
        Optional[str], Meta(description="bytes of the path in base64, only where it is not UTF-8")
    ] = None
    arguments: Annotated[int, Meta(description="number of words that follow it")] = 0
    missing: Annotated[bool, Meta(description="there is no such file")] = False
    hashes: Annotated[
        Optional[Dict[str, str]], Meta(description="digests in hexadecimal by algorithm: sha256")
    ] = None
    package: Annotated[Optional[str], Meta(description="the package that it belongs to")] = None
    mtime: Annotated[Optional[str], Meta(description="its last change, RFC 3339 in UTC")] = None


class Record(ModuleRecord, frozen=True, kw_only=True):
    """Something that starts by itself."""

    kind: Annotated[Kind, Meta(description="what sets it off")]
    name: Annotated[str, Meta(description="its name: of the unit, script, crontab, module, key's user")]
    path: Annotated[str, Meta(description="the file that says so, or that is run")]
    path_b64: Annotated[
        Optional[str], Meta(description="bytes of the path in base64, only where it is not UTF-8")
    ] = None
    line: Annotated[Optional[int], Meta(description="line of the file, from 1")] = None
    enabled: Annotated[Optional[bool], Meta(description="whether it is in force, where that can be told")] = (
        None
    )
    overridden: Annotated[bool, Meta(description="another file of the same name comes before this one")] = (
        False
    )
    user: Annotated[Optional[str], Meta(description="as whom it runs, where it says")] = None
    programs: Annotated[
        Optional[Tuple[ProgramRecord, ...]], Meta(description="the programs that it runs")
    ] = None
    package: Annotated[Optional[str], Meta(description="the package that the file belongs to")] = None
    hashes: Annotated[
        Optional[Dict[str, str]], Meta(description="digests of the file in hexadecimal by algorithm: sha256")
    ] = None
    mode: Annotated[Optional[str], Meta(description="type and permission bits of the file as letters")] = None
    uid: Annotated[Optional[int], Meta(description="number of the file's owner")] = None
    gid: Annotated[Optional[int], Meta(description="number of the file's group")] = None
    size_bytes: Annotated[Optional[int], Meta(description="size of the file in bytes")] = None
    mtime: Annotated[Optional[str], Meta(description="last change of the file, RFC 3339 in UTC")] = None


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each thing that starts by itself.

    Raises:
        InvalidInput: `unsupported` where regular expressions are asked for and there is no engine for them.

    """
    if params.names or params.programs:
        require_engine("a search by names or programs")
    files = Rooted(params.root, fence=Fence(context.paths), note=context.note)
    facts = _Facts(files, context)
    filters = _Filters(params, facts)
    seen = 0
    try:
        if params.unpackaged and not facts.owners.has_databases():
            context.note("no database of dpkg, rpm or apk was found: nothing counts as packaged")
        for start in read_starts(files, params.kinds):
            context.check()
            seen += 1
            if not seen % _STARTS_PER_PROGRESS:
                context.statistics["starts_seen"] = seen
                context.progress()
            placed = facts.place(start)
            if filters.hold(placed):
                yield _record(placed, facts)
    finally:
        context.statistics.update(
            starts_seen=seen,
            files_read=files.files_read,
            bytes_hashed=facts.verifier.bytes_read,
            skipped=dict(sorted(files.skipped.items())),
            errors=files.errors,
        )


class _File(NamedTuple):
    """What is known of a file without reading it; `is_inside` tells of one within a container."""

    path: bytes
    mtime_ns: Optional[int]
    mode: int
    uid: int
    gid: int
    size_bytes: int
    is_inside: bool = False


class _Placed(NamedTuple):
    """Something that starts, with the files that it is about."""

    start: Start
    file: Optional[_File]
    programs: Tuple[Tuple[Program, Optional[_File]], ...]

    def all_files(self) -> List[_File]:
        return [file for file in (self.file, *(file for _, file in self.programs)) if file is not None]


class _Facts:
    """Status, digests and owners of files, each looked up once."""

    def __init__(self, files: Rooted, context: Context) -> None:
        self._files = files
        self._context = context
        self.owners = PackageOwners(files=files, check=context.check)
        self.verifier = Verifier(files, context.check)
        self._known: Dict[bytes, Optional[_File]] = {}
        self._digests: Dict[bytes, Optional[str]] = {}
        self._found: Dict[bytes, bytes] = {}

    def place(self, start: Start) -> _Placed:
        programs: List[Tuple[Program, Optional[_File]]] = []
        for program in start.programs:
            if program.path.startswith(_IN_CONTAINER):
                programs.append((program, _File(program.path, None, 0, 0, 0, 0, is_inside=True)))
                continue
            if program.path not in self._found:
                self._found[program.path] = find_program(self._files, program.path)
            path = self._found[program.path]
            programs.append(
                (program._replace(path=path), self._file(path) if path.startswith(b"/") else None)
            )
        return _Placed(start, self._file(start.path), tuple(programs))

    def _file(self, path: bytes) -> Optional[_File]:
        if path not in self._known:
            status = self._files.status(path, follow=True)
            self._known[path] = (
                _File(path, status.st_mtime_ns, status.st_mode, status.st_uid, status.st_gid, status.st_size)
                if status is not None
                else None
            )
        return self._known[path]

    def digest(self, file: _File) -> Optional[str]:
        if file.path not in self._digests:
            is_read = stat.S_ISREG(file.mode) and file.size_bytes <= _MOST_HASHED
            if file.size_bytes > _MOST_HASHED:
                self._context.note(
                    f"{path_text(file.path)}: no digest, it has more than {_MOST_HASHED} bytes"
                )
                self._files.skipped["too-large"] += 1
            self._digests[file.path] = self.verifier.digest(file.path, "sha256") if is_read else None
        return self._digests[file.path]

    def owner(self, file: _File) -> Optional[str]:
        if file.is_inside:
            return None
        # Under the name that it has here, or of the file that a link leads to, such as /etc/alternatives.
        return self.owners.owner(file.path) or self.owners.owner(self._files.inside(file.path))


class _Filters:
    """What must hold; what costs most is asked last."""

    def __init__(self, params: Params, facts: _Facts) -> None:
        self._params = params
        self._facts = facts
        self._names = TextFilter(params.names)
        self._programs = TextFilter(params.programs)
        now_ns = time.time_ns()
        self._ages = [
            (age[0] == "<", now_ns - int(age[1:-1]) * _UNIT_S[age[-1]] * _NS) for age in params.mtimes
        ]
        self._wanted = frozenset(params.sha256)

    def hold(self, placed: _Placed) -> bool:
        params = self._params
        if params.enabled and placed.start.enabled is False:
            return False
        if not self._names.holds([placed.start.name]):
            return False
        if params.programs and not self._programs.holds(
            [placed.start.path, *(program.path for program, _ in placed.programs)]
        ):
            return False
        files = placed.all_files()
        if self._ages and not any(self._has_age(file) for file in files):
            return False
        if params.unpackaged and not any(self._is_unpackaged(file) for file in files):
            return False
        return not self._wanted or any(self._facts.digest(file) in self._wanted for file in files)

    def _has_age(self, file: _File) -> bool:
        at = file.mtime_ns
        return at is not None and any(
            (at > then) if is_within else (at < then) for is_within, then in self._ages
        )

    def _is_unpackaged(self, file: _File) -> bool:
        return not file.path.startswith(b"/proc/") and not file.is_inside and self._facts.owner(file) is None


def _record(placed: _Placed, facts: _Facts) -> Record:
    start, file = placed.start, placed.file
    is_made_up = start.path.startswith(b"/proc/")
    status: Dict[str, Any] = {}
    if file is not None and not is_made_up:
        status = {
            "package": facts.owner(file),
            "hashes": _hashes(facts, file),
            "mode": mode_text(file.mode),
            "uid": file.uid,
            "gid": file.gid,
            "size_bytes": file.size_bytes,
            "mtime": time_text(file.mtime_ns) if file.mtime_ns is not None else None,
        }
    return Record(
        kind=start.kind,  # type: ignore[arg-type]  # of Kind, which a test holds to the readers
        name=path_text(start.name[:256]),
        path=path_text(start.path),
        path_b64=path_base64(start.path),
        line=start.line,
        enabled=start.enabled,
        overridden=start.is_overridden,
        user=path_text(start.user[:256]) if start.user is not None else None,
        programs=tuple(_program(program, file, facts) for program, file in placed.programs) or None,
        **status,
    )


def _program(program: Program, file: Optional[_File], facts: _Facts) -> ProgramRecord:
    path = program.path[:4096]
    if file is None:
        return ProgramRecord(
            path=path_text(path), path_b64=path_base64(path), arguments=program.arguments, missing=True
        )
    return ProgramRecord(
        path=path_text(path),
        path_b64=path_base64(path),
        arguments=program.arguments,
        hashes=_hashes(facts, file),
        package=facts.owner(file),
        mtime=time_text(file.mtime_ns) if file.mtime_ns is not None else None,
    )


def _hashes(facts: _Facts, file: _File) -> Optional[Dict[str, str]]:
    digest = facts.digest(file)
    return {"sha256": digest} if digest is not None else None


def upgrade(parameters: Any) -> Any:
    """Rewrite looser spellings: a name in the singular, a lone value, digests in capitals."""
    upgraded = plural_parameters(parameters, _SINGULAR)
    if isinstance(upgraded, dict) and isinstance(upgraded.get("sha256"), list):
        upgraded["sha256"] = [one.lower() if isinstance(one, str) else one for one in upgraded["sha256"]]
    return upgraded


FLAGS = plain_flags(Params, _SINGULAR)


def from_flags(values: Dict[str, Any]) -> Any:
    """Make the parameters of the command line's flags."""
    return upgrade(values)
