"""Reads files of a system below a root: the endpoint's own, or that of an image or container elsewhere.

Rules:

* Links are followed as that system would: an absolute one begins at the root, and `..` leads not above it.
* Where a path leads is found out first; then every component is opened from its parent's descriptor and must
  not be a link (`agent.scan.opening`). What was swapped meanwhile leads nowhere.
* Only regular files are read, up to a bound, and without waiting: a FIFO or a device in a file's place is
  counted and named.
* What is not there is no trouble. What is there and cannot be read is: `errors` counts it, a note names it.
* The fence of an operation is asked of all that is open whether it may be looked at (`agent.scan.fence`);
  what may not is counted, and the first of it named.
"""

import errno
import os
import stat
from collections import Counter
from typing import Callable, Dict, List, NamedTuple, Optional

from agent.module import ANYWHERE
from agent.scan.coverage import NOT_ALLOWED
from agent.scan.fence import Fence
from agent.scan.globs import NameGlob, split_path
from agent.scan.opening import open_directory, open_file, open_for_status, resolve
from agent.scan.roots import join
from agent.scan.texts import path_text

# Of the kernel's, path_resolution(7).
_MOST_LINKS = 40
# The databases that are read here take some megabytes; dpkg's status of 5,000 packages takes 8.
MOST_BYTES = 64 << 20
_ABSENT = (errno.ENOENT, errno.ENOTDIR)
_KEPT_PLACES = 4096
_NAMED = 20
_SPECIAL = frozenset(b"*?[")
_NO_NAMES = (b"", b".", b"..")
_MOST_STEPS = 64


class Listed(NamedTuple):
    """A name in a directory and what it is there, a link not followed."""

    name: bytes
    is_directory: bool
    is_link: bool


class Rooted:
    """The files of one system, by their absolute paths in it.

    Args:
        root: where that system's `/` lies; links in this path itself are followed.
        fence: of the operation; without one everything may be looked at.
        note: takes what cannot be read, in words.

    """

    def __init__(
        self,
        root: str = "/",
        *,
        fence: Optional[Fence] = None,
        note: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.root = resolve(os.fsencode(root))
        self.errors = 0
        self.skipped: Counter[str] = Counter()
        self.files_read = 0
        self._fence = fence or Fence(ANYWHERE)
        self._note = note
        self._places: Dict[bytes, bytes] = {}

    def read(self, path: bytes, most: int = MOST_BYTES) -> Optional[bytes]:
        """Return what is in a regular file; None where there is none, it may not be read or is too large."""
        descriptor = self.open(path)
        if descriptor is None:
            return None
        with os.fdopen(descriptor, "rb") as file:
            try:
                data = file.read(most + 1)
            except OSError as error:
                self.lose(path, error.strerror or str(error))
                return None
        if len(data) > most:
            self.lose(path, f"not read, it has more than {most} bytes")
            return None
        self.files_read += 1
        return data

    def open(self, path: bytes) -> Optional[int]:
        """Return a descriptor of a regular file, to be closed by the caller; None as for `read`."""
        try:
            place = self._place(path)
            parent, _, name = place.rpartition(b"/")
            directory = open_directory(parent or b"/", to_list=False)
            try:
                # Merely opening a device can do something: it is looked at before, and again when it is open.
                mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
                if not self._is_regular(mode, path):
                    return None
                descriptor = open_file(name, directory, follow=False)
            finally:
                os.close(directory)
        except OSError as error:
            self._fail(path, error)
            return None
        is_regular = self._is_regular(os.fstat(descriptor).st_mode, path)
        if is_regular and self._is_admitted(self._fence.admits(descriptor), path):
            return descriptor
        os.close(descriptor)
        return None

    def _is_regular(self, mode: int, path: bytes) -> bool:
        if stat.S_ISREG(mode):
            return True
        if not stat.S_ISDIR(mode):
            self.skipped["no-file"] += 1
            self._note(f"{path_text(path)}: not read, it is no regular file")
        return False

    def _is_admitted(self, verdict: bool, path: bytes) -> bool:  # noqa: FBT001  (said once, here)
        if not verdict:
            self.skipped[NOT_ALLOWED] += 1
            if self.skipped[NOT_ALLOWED] <= _NAMED:
                self._note(f"{path_text(path)}: not looked at, this endpoint's access rules do not allow it")
        return verdict

    def list(self, path: bytes) -> List[Listed]:
        """Return the names in a directory, sorted; none where there is no such directory."""
        try:
            descriptor = open_directory(self._place(path))
        except OSError as error:
            self._fail(path, error)
            return []
        try:
            if not self._is_admitted(self._fence.admits_way(descriptor), path):
                return []
            with os.scandir(descriptor) as entries:
                found = [
                    Listed(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False), entry.is_symlink())
                    for entry in entries
                ]
        except OSError as error:
            self._fail(path, error)
            return []
        finally:
            os.close(descriptor)
        return sorted(found)

    def expand(self, pattern: bytes, *, below: bytes = b"/") -> List[bytes]:
        """Return the paths that a pattern names: `*` and `?` in names, no `**`; what is there without such.

        `below` is the directory that the pattern begins in, taken as it is written.
        """
        found = [below]
        components = split_path(pattern)
        for at, component in enumerate(components):
            if not _SPECIAL.intersection(component):
                found = [join(path, component) for path in found]
                continue
            glob = NameGlob(component)
            is_last = at + 1 == len(components)
            found = [
                join(path, entry.name)
                for path in found
                for entry in self.list(path)
                if glob.matches(entry.name) and (is_last or entry.is_directory or entry.is_link)
            ]
        return found

    def status(self, path: bytes, *, follow: bool = False) -> Optional[os.stat_result]:
        """Return what lstat(2) says of a path in that system, or stat(2) with `follow`; None without it."""
        try:
            place = self._place(path) if follow else self.place_of_entry(path)
            parent, _, name = place.rpartition(b"/")
            directory = open_directory(parent or b"/", to_list=False)
            try:
                descriptor = open_for_status(name or b".", directory, follow=False)
            finally:
                os.close(directory)
        except OSError as error:
            self._fail(path, error)
            return None
        try:
            status = os.fstat(descriptor)
            is_way = stat.S_ISDIR(status.st_mode) and self._fence.admits_way(descriptor)
            verdict = is_way or self._fence.admits(descriptor)
            return status if self._is_admitted(verdict, path) else None
        finally:
            os.close(descriptor)

    def link(self, path: bytes) -> Optional[bytes]:
        """Return what a link says, as it is written; None where there is no link."""
        try:
            return os.readlink(self.place_of_entry(path))  # noqa: PTH115  (a path of bytes)
        except OSError:
            return None

    def inside(self, path: bytes) -> bytes:
        """Return the path without links, in that system, to which a path leads."""
        try:
            place = self._place(path)
        except OSError:
            return path
        return place if self.root == b"/" else place[len(self.root) :] or b"/"

    def place_of_entry(self, path: bytes) -> bytes:
        """Return where a path lies on this system, its last component not followed."""
        directory, _, name = path.rstrip(b"/").rpartition(b"/")
        return join(self._place_of_directory(directory or b"/"), name)

    def not_seen(self) -> int:
        """Return how many things there were that could not, or must not, be looked at."""
        return self.errors + sum(self.skipped.values())

    def lose(self, path: bytes, reason: str) -> None:
        """Count and name something that could not be read."""
        self.errors += 1
        self._note(f"{path_text(path)}: {reason}")

    def _fail(self, path: bytes, error: OSError) -> None:
        if error.errno not in _ABSENT:
            self.lose(path, error.strerror or str(error))

    def _place(self, path: bytes) -> bytes:
        """Return where a path lies on this system: absolute and without links."""
        parent, _, name = path.rpartition(b"/")
        if not path.startswith(b"/") or name in _NO_NAMES or path.count(b"/") > _MOST_STEPS:
            return join(self.root, b"/".join(self._follow(path)))
        # Most files lie beside the one before: the way to their directory is known.
        place = join(self._place_of_directory(parent or b"/"), name)
        try:
            os.readlink(place)  # noqa: PTH115  (a path of bytes)
        except OSError:
            return place
        return join(self.root, b"/".join(self._follow(path)))

    def _place_of_directory(self, path: bytes) -> bytes:
        known = self._places.get(path)
        if known is None:
            known = self.root if path == b"/" else self._place(path)
            if len(self._places) >= _KEPT_PLACES:
                self._places.clear()
            self._places[path] = known
        return known

    def _follow(self, path: bytes) -> List[bytes]:
        pending = split_path(path)[::-1]
        done: List[bytes] = []
        links = 0
        while pending:
            name = pending.pop()
            if name == b"..":
                del done[-1:]
                continue
            try:
                target = os.readlink(join(self.root, b"/".join([*done, name])))  # noqa: PTH115  (bytes)
            except OSError:
                # No link, or nothing at all: opening it will tell.
                done.append(name)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.startswith(b"/"):
                done.clear()
            pending.extend(split_path(target)[::-1])
        return done
