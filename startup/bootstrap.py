"""Start-up code: `__main__.py` of mig-agent, mig-server and mig.

Rules, in the order in which they are applied:
1. An interpreter outside the versions that the file carries libraries for is refused.
2. The file is opened once; from then on everything comes from that descriptor (`/proc/self/fd/N`), so that
   replacing the file on disk never mixes versions. Python runs isolated (`-I -S -B`), or is started again.
3. Root runs no file that others could change: neither the file nor a directory above it may be writable, or
   owned, by anybody else. A directory with the sticky bit (/tmp) may be writable by all.
4. umask 077; the environment keeps what the program needs and loses what could steer it.
5. Python code is imported from the zip; nothing is unpacked, no place on disk is trusted.
6. Native libraries are loaded as `startup/natives.py` says.
7. Children are started from the same descriptors (`mig_startup.child_argv`).

Standard library only. The syntax stays readable for Python 3.6, which gets a clear message instead of a
traceback.
"""

import importlib
import json
import os
import sys
from types import ModuleType
from typing import Any, Dict, List, Tuple

from startup.natives import (
    DESCRIPTORS,
    EXIT_REFUSED,
    EXIT_USAGE,
    NativeLibraries,
    StartupFailure,
    changeable,
    unsafe_directory,
)

_INHERITED = "--inherited-descriptors="
# The agent's environment is composed, not inherited: terminal, language, and what systemd tells a service.
_AGENT_KEEPS = (
    *("LANG", "LC_ALL", "LC_CTYPE", "TERM", "TZ", "COLUMNS", "LINES", "NO_COLOR"),
    *("INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
)
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# The server and the client need HOME, gpg's variables and the like; these steer interpreter and linker.
_STEERING = ("PYTHON", "SHIV_", "PEX_", "LD_", "DYLD_", "BASH_FUNC_", "BASH_ENV")


def require_interpreter(manifest: Dict[str, Any]) -> None:
    """Raise unless this interpreter is one that the file carries libraries for."""
    oldest, newest = tuple(manifest["oldest"]), tuple(manifest["newest"])
    here = f"{sys.platform}-{os.uname().machine}"
    if here != manifest["platform"]:
        raise StartupFailure(EXIT_USAGE, "unsupported", f"built for {manifest['platform']}; this is {here}")
    if sys.implementation.name == "cpython" and oldest <= sys.version_info[:2] <= newest:
        return
    raise StartupFailure(
        EXIT_USAGE,
        "tool-missing",
        "needs CPython {}.{} to {}.{}; {} is {} {}.{}".format(
            *oldest, *newest, sys.executable, sys.implementation.name, *sys.version_info[:2]
        ),
    )


def open_archive(archive: str) -> int:
    """Return a descriptor of the file being run, the only one that is used from here on."""
    directory, _, number = archive.rpartition("/")
    if directory == DESCRIPTORS and number.isdigit():
        os.set_inheritable(int(number), False)  # noqa: FBT003  (takes no keyword)
        return int(number)
    return os.open(archive, os.O_RDONLY | os.O_CLOEXEC)


def restart_isolated(archive: str, archive_fd: int) -> None:
    """Start again, isolated and from the descriptor, unless that is how this process was started."""
    flags = sys.flags
    is_isolated = bool(flags.isolated and flags.no_site and flags.dont_write_bytecode)
    descriptor = f"{DESCRIPTORS}/{archive_fd}"
    has_proc = os.path.exists(descriptor)
    if is_isolated and (archive == descriptor or not has_proc):
        return
    os.set_inheritable(archive_fd, True)  # noqa: FBT003  (takes no keyword)
    path = descriptor if has_proc else archive
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", path, *sys.argv[1:]])  # noqa: S606  (that file again)


def path_of(archive: str) -> str:
    """Return the file's path, or what the kernel says of a file that was deleted or replaced."""
    if archive.startswith(DESCRIPTORS):
        return os.readlink(archive)
    return os.path.realpath(archive)


def require_safe_file(archive_fd: int, path: str) -> None:
    """Raise where root would run what somebody else could change.

    A file that was replaced meanwhile has no path any more; its directories were checked when it was started.
    """
    if os.geteuid() != 0:
        return
    problem = changeable(os.fstat(archive_fd))
    if problem:
        raise StartupFailure(EXIT_REFUSED, "unsafe-file", f"not run as root: {path} is {problem}")
    directory = os.path.dirname(path) if os.path.exists(path) else ""
    problem = directory and unsafe_directory(directory)
    if problem:
        raise StartupFailure(EXIT_REFUSED, "unsafe-file", f"not run as root: {problem}")


def clean_environment(program: str) -> None:
    """Drop every variable that could steer the program; the agent keeps a short list only."""
    for name in list(os.environ):
        keeps = name in _AGENT_KEEPS if program == "mig-agent" else not name.startswith(_STEERING)
        if not keeps:
            del os.environ[name]
    if program == "mig-agent":
        os.environ["PATH"] = _PATH


class Startup(ModuleType):
    """The module `mig_startup`: how a child of this process is started from the very same file.

    archive_fd: descriptor of the file being run. path: its path when it was started. build: its build id.
    """

    def __init__(
        self, *, archive: str, archive_fd: int, path: str, build: str, natives: NativeLibraries
    ) -> None:
        super().__init__("mig_startup", Startup.__doc__)
        self.archive_fd = archive_fd
        self.path = path
        self.build = build
        self._archive = archive
        self._natives = natives
        self._stamp = _stamp(archive_fd)

    @property
    def pass_fds(self) -> Tuple[int, ...]:
        """Descriptors that a child inherits: the file, and the libraries in memory."""
        self._require_unchanged()
        return (self.archive_fd, *sorted(self._natives.share().values()))

    def child_argv(self, *args: str) -> List[str]:
        """Return the command line that starts this file again, isolated, re-using the libraries in memory."""
        self._require_unchanged()
        shared = ";".join(f"{fd}:{library}" for library, fd in sorted(self._natives.share().items()))
        argv = [sys.executable, "-I", "-S", "-B", self._archive]
        return [*argv, *([_INHERITED + shared] if shared else []), *args]

    def _require_unchanged(self) -> None:
        # A file that is replaced stays as it was behind the descriptor; one that is written over (wget -O)
        # does not. Ending the process lets the service manager start what lies there now, whole.
        if _stamp(self.archive_fd) != self._stamp:
            raise StartupFailure(EXIT_REFUSED, "unsafe-file", f"{self.path} was written over while it ran")


def _stamp(descriptor: int) -> Tuple[int, int]:
    info = os.fstat(descriptor)
    return info.st_size, info.st_mtime_ns


def take_inherited(argv: List[str]) -> Dict[str, int]:
    """Remove the argument about inherited libraries from a command line; return descriptors by library.

    Only sealed memfds above the standard streams are believed: what a caller of a privileged command line
    could slip in is a file or a pipe.
    """
    if len(argv) < 2 or not argv[1].startswith(_INHERITED):  # noqa: PLR2004  (program and first argument)
        return {}
    import fcntl  # noqa: PLC0415  (only where there are memfds)

    inherited = {}
    for item in argv.pop(1)[len(_INHERITED) :].split(";"):
        number, _, library = item.partition(":")
        descriptor = int(number)
        try:
            is_sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        except OSError:
            is_sealed = 0
        if descriptor <= 2 or not is_sealed:  # noqa: PLR2004  (standard streams)
            raise StartupFailure(EXIT_REFUSED, "unsafe-file", f"descriptor {descriptor} is no sealed library")
        os.set_inheritable(descriptor, False)  # noqa: FBT003  (takes no keyword)
        inherited[library] = descriptor
    return inherited


def start() -> None:
    """Apply the rules of this file and hand over to the program's own `main`."""
    archive = sys.path[0]
    read = __loader__.get_data  # type: ignore[name-defined]  # (set by the import system)
    manifest = json.loads(read("startup.json").decode("utf-8"))
    try:
        require_interpreter(manifest)
        os.umask(0o077)
        archive_fd = open_archive(archive)
        restart_isolated(archive, archive_fd)
        path = path_of(archive)
        require_safe_file(archive_fd, path)
        inherited = take_inherited(sys.argv)
        clean_environment(manifest["program"])
        sys.path.append(sys.path.pop(0))  # the standard library is never shadowed
        natives = NativeLibraries(
            archive_fd=archive_fd,
            libraries=manifest["libraries"],
            methods=manifest["native"],
            inherited=inherited,
        )
        sys.meta_path.append(natives)
        sys.modules["mig_startup"] = Startup(
            archive=archive, archive_fd=archive_fd, path=path, build=manifest["build"], natives=natives
        )
        if os.path.exists(path):
            sys.argv[0] = path
        module, _, function = manifest["entry"].partition(":")
        getattr(importlib.import_module(module), function)()
    except StartupFailure as failure:
        sys.stderr.write(f"{manifest['program']}: {failure}\n")
        sys.exit(failure.exit_code)


if __name__ == "__main__":
    start()
