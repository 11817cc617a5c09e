"""Native libraries of the zip files: checked, then loaded from memory or from a private directory.

Rules:
1. A library is inflated from the one descriptor of the file being run, and compared with the SHA-256 that the
   build noted, before it is loaded.
2. `memfd`: a file in memory, sealed against any change; children inherit it and need not inflate it again.
3. `directory`: made fresh under a random name in a place where nobody else can interfere, entered by nobody
   else, and removed as soon as the library is loaded. A directory that is there already is never used.
4. A library that few processes need (`lazy`: it came with an optional part of the build) is not kept in
   memory for children: who needs it loads it. A process that may write small files only, as a module's, lifts
   its soft limit (RLIMIT_FSIZE, which also counts files in memory) for that moment.
5. The configuration orders the two; where the system forbids one (vm.memfd_noexec, no /proc, a mount with
   noexec, an endpoint product) the next is tried. A library that needs others beside it takes `directory`.

Standard library only, and little of it: every process of an agent loads this.
"""

import os
import stat
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from types import ModuleType
from typing import Any, Dict, Iterator, List, Optional

EXIT_USAGE = 2
EXIT_REFUSED = 4

DESCRIPTORS = "/proc/self/fd"
# include/uapi/linux/memfd.h, Linux 6.3: asks for an executable memfd where vm.memfd_noexec is 1.
_MFD_EXEC = 0x0010
_PIECE_BYTES = 1 << 18


class StartupFailure(Exception):
    """The program is not started; `exit_code` and one line say why."""

    def __init__(self, exit_code: int, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.exit_code = exit_code


def unsafe_directory(directory: str) -> str:
    """Return what lets others than root and this user change entries on this path, or an empty string."""
    while True:
        info = os.lstat(directory)
        problem = changeable(info)
        if problem and not (info.st_mode & stat.S_ISVTX and info.st_uid in (0, os.geteuid())):
            return f"{directory} is {problem}"
        if directory == os.path.dirname(directory):
            return ""
        directory = os.path.dirname(directory)


def changeable(info: os.stat_result) -> str:
    """Return what lets others than root and this user change a file or directory, or an empty string."""
    if info.st_uid not in (0, os.geteuid()):
        return f"owned by uid {info.st_uid}"
    if info.st_mode & stat.S_IWOTH:
        return "writable by everybody"
    if info.st_mode & stat.S_IWGRP and info.st_gid != 0:
        return f"writable by group {info.st_gid}"
    return ""


class NativeLibraries:
    """Finds the extension modules of the zip that fit this interpreter and loads them.

    Registered at the end of `sys.meta_path`: the standard library's own come first.
    """

    def __init__(
        self,
        *,
        archive_fd: int,
        libraries: Dict[str, Dict[str, Any]],
        methods: List[str],
        inherited: Dict[str, int],
    ) -> None:
        self._archive_fd = archive_fd
        self._libraries = libraries
        self._memfds = dict(inherited)
        self._places = [place for method in methods for place in _places(method)]
        self._modules = {}  # type: Dict[str, str]
        for suffix in reversed(EXTENSION_SUFFIXES):
            for path in libraries:
                module = path[: -len(suffix)]
                if path.endswith(suffix) and "." not in module.rpartition("/")[2]:
                    self._modules[module.replace("/", ".")] = path

    def find_spec(self, name: str, path: object = None, target: object = None) -> Optional[ModuleSpec]:  # noqa: ARG002  (import protocol)
        """Return the spec of an extension module that the zip holds, or nothing."""
        return ModuleSpec(name, self) if name in self._modules else None  # type: ignore[arg-type]  # a loader in all but name

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Load the library from the first place that the system allows, and prefer that place afterwards."""
        library = self._modules[spec.name]
        failures = []
        for place in list(self._places):
            try:
                module = self._load(spec.name, library, place)
            except (ImportError, OSError) as error:
                failures.append(f"{place}: {error}")
                continue
            if failures and not self._needs_directory(library, "memfd"):
                self._places.remove(place)
                self._places.insert(0, place)
            return module
        raise ImportError(f"{library} cannot be loaded: {'; '.join(failures)}", name=spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Run the library's own initialisation."""
        name = module.__name__
        ExtensionFileLoader(name, getattr(module, "__file__", None) or name).exec_module(module)

    def share(self) -> Dict[str, int]:
        """Write all libraries of this interpreter to memfds, for children; return descriptors by path."""
        if self._places[:1] == ["memfd"]:
            for library in sorted(set(self._modules.values())):
                if not (self._needs_directory(library, "memfd") or self._libraries[library].get("lazy")):
                    self._memfd(library)
        return dict(self._memfds)

    def _needs_directory(self, library: str, place: str) -> bool:
        # The linker looks for a library's own libraries beside it, which a memfd cannot offer.
        return place == "memfd" and bool(self._libraries[library].get("needs"))

    def _load(self, name: str, library: str, place: str) -> ModuleType:
        if self._needs_directory(library, place):
            raise ImportError("it needs further libraries beside it")
        if place == "memfd":
            return _create(name, f"{DESCRIPTORS}/{self._memfd(library)}")
        with PrivateDirectory(place) as directory:
            for path in [*self._libraries[library].get("needs", ()), library]:
                descriptor = directory.create(path)
                try:
                    self._copy(path, descriptor)
                finally:
                    os.close(descriptor)
            return _create(name, os.path.join(directory.path, library))

    def _copy(self, path: str, target: int) -> None:
        with _RoomToWrite():
            copy_library(self._archive_fd, path, self._libraries[path], target)

    def _memfd(self, library: str) -> int:
        if library not in self._memfds:
            descriptor = make_memfd(os.path.basename(library))
            try:
                self._copy(library, descriptor)
                seal(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._memfds[library] = descriptor
        return self._memfds[library]


class _RoomToWrite:
    """Lifts the soft limit on the size of files to the hard one, for the block."""

    def __enter__(self) -> None:
        import resource  # noqa: PLC0415  (a child that inherits its libraries needs it not)

        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._limits[1], self._limits[1]))

    def __exit__(self, *_: object) -> None:
        import resource  # noqa: PLC0415  (as above)

        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)


def _create(name: str, path: str) -> ModuleType:
    loader = ExtensionFileLoader(name, path)
    module = loader.create_module(ModuleSpec(name, loader, origin=path))
    module.__file__ = path
    return module


def copy_library(archive_fd: int, path: str, entry: Dict[str, Any], target: int) -> None:
    """Inflate one library out of the zip, piece by piece, and raise unless it is what the build put there."""
    import hashlib  # noqa: PLC0415  (a child that inherits its libraries needs neither)
    import zlib  # noqa: PLC0415

    total = hashlib.sha256()
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    offset, end = entry["offset"], entry["offset"] + entry["size"]
    while offset < end:
        piece = os.pread(archive_fd, min(_PIECE_BYTES, end - offset), offset)
        if not piece:
            break
        offset += len(piece)
        try:
            rest = memoryview(inflate.decompress(piece))
        except zlib.error:
            break
        total.update(rest)
        while rest:
            rest = rest[os.write(target, rest) :]
    if total.hexdigest() != entry["sha256"]:
        raise StartupFailure(EXIT_REFUSED, "unsafe-file", f"{path} in the zip is not what was built")


def make_memfd(name: str) -> int:
    """Return the descriptor of an empty file in memory that libraries may be loaded from."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_EXEC)
    except OSError:  # Linux before 6.3 does not know the flag
        return os.memfd_create(name, flags)


def seal(descriptor: int) -> None:
    """Forbid any change to a file in memory, to this process and to those that inherit it."""
    import fcntl  # noqa: PLC0415  (not on Windows)

    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)


def _places(method: str) -> Iterator[str]:
    if method == "memfd":
        if hasattr(os, "memfd_create") and os.path.isdir(DESCRIPTORS):
            yield "memfd"
        return
    # Where a library may be mapped differs: /run and /tmp are often mounted noexec.
    for directory in ("/run", f"/run/user/{os.geteuid()}", "/var/lib", "/var/tmp", "/tmp"):  # noqa: S108  (checked below)
        if os.access(directory, os.W_OK | os.X_OK):
            yield directory


class PrivateDirectory:
    """A directory that nobody else can enter: made fresh under a random name, removed after the block."""

    def __init__(self, parent: str) -> None:
        parent = os.path.realpath(parent)
        problem = unsafe_directory(parent)
        if problem:
            raise OSError(problem)
        self.path = os.path.join(parent, f".mig-{os.urandom(16).hex()}")
        os.mkdir(self.path, 0o700)
        info = os.lstat(self.path)
        if (
            not stat.S_ISDIR(info.st_mode)
            or info.st_uid != os.geteuid()
            or stat.S_IMODE(info.st_mode) & 0o077
        ):
            raise OSError(f"{self.path} was changed while it was made")

    def __enter__(self) -> "PrivateDirectory":  # noqa: PYI034  (Self is not in 3.9)
        return self

    def create(self, name: str) -> int:
        """Return a descriptor of a new file, given its path relative to the directory."""
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o500)

    def __exit__(self, *_: object) -> None:
        for directory, names, files in os.walk(self.path, topdown=False):
            for name in files:
                os.unlink(os.path.join(directory, name))
            for name in names:
                os.rmdir(os.path.join(directory, name))
        os.rmdir(self.path)
