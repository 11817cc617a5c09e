"""The root of a container, entered: what is looked at from then on is what the container's processes see.

Rules:

* A process of its own enters it, by chroot(2) into `/proc/PID/root`, and never leaves: links and `..` inside
  lead nowhere else. The process of the container is held by its directory in /proc, so that its number cannot
  become another one's; one that has the endpoint's own root is refused.
* From then on nothing of Python is loaded: what stands under the same path within the container is hostile
  code. What is needed is imported before; an import that was forgotten fails.
* /proc within belongs to the container and may lead out of it again (`/proc/1/root`, where it shares the
  endpoint's processes). So each file, once open, must lie on a mount of the container's own table: by its
  number (`mnt_id` of fdinfo), as a descriptor of the endpoint's /proc tells, which is kept.
* Access rules are about the endpoint's paths and say nothing of those within: whoever limits paths is not to
  come here.

Sources: chroot(2), proc(5) (root, mountinfo, fdinfo), openat2(2) for what RESOLVE_IN_ROOT would do, which
Python has not.
"""

import importlib
import os
import sys
from contextlib import suppress
from importlib.machinery import BuiltinImporter, FrozenImporter
from typing import Callable, FrozenSet, List, Optional

from agent.module import ANYWHERE
from agent.scan.fence import Fence
from agent.scan.mounts import Mounts
from agent.scan.scan import Place

_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_MAX_TABLE_BYTES = 4 << 20
# All that a scan may come to import while it runs; some may not be there.
_NEEDED = (
    "re2", "xxhash", "bz2", "lzma", "zlib", "hashlib", "mmap", "array", "fcntl", "compression.zstd",
    "backports.zstd", "traceback", "encodings.utf_8", "encodings.ascii", "encodings.latin_1",
    "agent.scan.scan", "agent.scan.pool", "agent.scan.worker", "agent.scan.cache", "agent.scan.accounts",
    "agent.scan.attributes",
)  # fmt: skip


class CannotEnter(Exception):
    """The root cannot be entered, or is not that of a container; the text says why."""


class _KeptMounts(Mounts):
    """A table of mounts that is read through an open descriptor of a process's directory."""

    def __init__(self, directory: int) -> None:
        super().__init__(source="")
        self._directory = directory
        self._kept = self._read()

    def numbers(self) -> FrozenSet[int]:
        """Return the numbers of the mounts as they are now."""
        return frozenset(int(line.split(None, 1)[0]) for line in self._table())

    def _table(self) -> List[bytes]:
        # When its process has ended, the table that was read last stands.
        with suppress(OSError):
            self._kept = self._read()
        return self._kept

    def _read(self) -> List[bytes]:
        descriptor = os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        with open(descriptor, "rb") as table:  # noqa: PTH123  (an open file)
            return table.read(_MAX_TABLE_BYTES).splitlines()


class RootFence(Fence):
    """Admits what lies on a mount of the container's own; `lose` is told, once, that something does not."""

    def __init__(self, mounts: _KeptMounts, proc: int, root: int, lose: Callable[[str], None]) -> None:
        super().__init__(ANYWHERE)
        self.is_open = False
        self._table = mounts
        self._proc = proc
        self._lose: Optional[Callable[[str], None]] = lose
        self._known = mounts.numbers()
        # A root that is a mere directory has no line of its own in the table.
        own = self._mount_of(root)
        self._known |= frozenset(() if own is None else (own,))

    def admits(self, descriptor: int) -> bool:
        """Tell whether what is open here lies within."""
        number = self._mount_of(descriptor)
        if number is not None and number not in self._known:
            # Something may have been mounted since.
            self._known |= self._table.numbers()
        if number is not None and number in self._known:
            return True
        if self._lose is not None:
            self._lose("something leads out of the container, and was not looked at")
            self._lose = None
        return False

    def admits_way(self, descriptor: int) -> bool:
        """Tell whether an open directory lies within."""
        return self.admits(descriptor)

    def admits_path(self, path: bytes) -> bool:  # noqa: ARG002  (as a fence has it)
        """Admit what is not open yet: it is judged when it is."""
        return True

    def _mount_of(self, descriptor: int) -> Optional[int]:
        """Return the number of the mount that an open file lies on."""
        try:
            # By our own number: we may have been forked since, and `self` stays what it was when opened.
            name = f"{os.getpid()}/fdinfo/{descriptor}"
            told = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        except OSError:
            return None
        try:
            for line in os.read(told, 4096).splitlines():
                if line.startswith(b"mnt_id:"):
                    return int(line.split()[1])
        except (OSError, ValueError, IndexError):
            return None
        finally:
            os.close(told)
        return None


def enter_root(pid: int, space: str, lose: Callable[[str], None]) -> Place:
    """Enter the root of a container's process, for ever, and return what a scan needs there.

    To be called in a process of its own. `space` is the mount namespace that the process has, such as
    `mnt:[4026532201]`: what else has its number by now is not entered.

    Raises:
        CannotEnter: with the reason.

    """
    try:
        proc = os.open("/proc", _DIRECTORY)
        directory = os.open(f"/proc/{pid}", _DIRECTORY)
        root = os.open("root", _DIRECTORY, dir_fd=directory)
        if os.readlink("ns/mnt", dir_fd=directory) != space:
            raise CannotEnter("its first process has ended")
        mounts = _KeptMounts(directory)
        fence = RootFence(mounts, proc, root, lose)
        ours, theirs = os.stat("/"), os.fstat(root)  # noqa: PTH116  (as the other one)
        is_ours = os.readlink("/proc/self/ns/mnt") == space  # noqa: PTH115  (as above)
        if is_ours and (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino):
            raise CannotEnter("its root is the endpoint's own")
        _import_all()
        os.fchdir(root)
        os.chroot(".")
        os.chdir("/")
    except OSError as error:
        raise CannotEnter(f"its root cannot be entered: {error.strerror}") from None
    _import_no_more()
    return Place(fence, mounts)


def _import_all() -> None:
    for name in _NEEDED:
        with suppress(ImportError):
            importlib.import_module(name)


def _import_no_more() -> None:
    """Have nothing loaded from files from here on, whatever asks for it."""
    sys.path.clear()
    sys.path_importer_cache.clear()
    sys.path_hooks.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder in (BuiltinImporter, FrozenImporter)]
