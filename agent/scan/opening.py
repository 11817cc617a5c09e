"""Opening what lies on the disk without being led astray, and without leaving a trace.

Every component of a directory's path is opened from its parent's descriptor and must not be a link: paths
that reach this file are resolved already, so a link in one was put there since. Access times stay as they are
where the kernel lets us (`O_NOATIME`: the owner and root, open(2)). Files are opened non-blocking, so that a
FIFO that took a file's place does not hang the scan.
"""

import errno
import os
from typing import List, Optional

from agent.scan.globs import split_path

# open(2): 0 where a system lacks a flag, which then merely goes unused.
_NOATIME = getattr(os, "O_NOATIME", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_DIRECTORY = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NOFOLLOW | _CLOEXEC
_STEP = _DIRECTORY | getattr(os, "O_PATH", 0)
_FILE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _CLOEXEC
# With which most regular files can be opened; who may not use O_NOATIME needs `open_file`.
QUICK_FLAGS = _FILE | _NOFOLLOW | _NOATIME


def _open_quietly(name: bytes, flags: int, directory: Optional[int]) -> int:
    try:
        return os.open(name, flags | _NOATIME, dir_fd=directory)
    except PermissionError as error:
        if error.errno != errno.EPERM or not _NOATIME:
            raise
        return os.open(name, flags, dir_fd=directory)


def resolve(path: bytes) -> bytes:
    """Return an absolute path without links; what cannot be resolved stands at its end as it is.

    That is what is not there, and links that we may not read, such as /proc/1/cwd for whoever is not its user
    (proc(5)): os.path.realpath raises for these.
    """
    rest: List[bytes] = []
    while True:
        try:
            real = os.path.realpath(path)
        except OSError:
            path, _, name = path.rpartition(b"/")
            path = path or b"/"
            rest.append(name)
        else:
            return b"/".join([real.rstrip(b"/"), *reversed(rest)]) if rest else real


def open_file(name: bytes, directory: int, *, follow: bool) -> int:
    """Open a file of a directory for reading; the caller checks with fstat what it got.

    Raises:
        OSError: as open(2); ELOOP for a link where `follow` is false.

    """
    return _open_quietly(name, _FILE if follow else _FILE | _NOFOLLOW, directory)


def open_for_status(name: bytes, directory: int, *, follow: bool) -> int:
    """Open whatever stands under a name, not to read it: for its status and for where it lies.

    Raises:
        OSError: as open(2).

    """
    # Without O_PATH (macOS) the file is opened, non-blocking.
    flags = _CLOEXEC | getattr(os, "O_PATH", _FILE)
    return os.open(name, flags if follow else flags | _NOFOLLOW, dir_fd=directory)


def open_subdirectory(name: bytes, directory: int, *, to_list: bool = True) -> int:
    """Open a directory inside an open one; never through a link.

    Without `to_list` only what is inside it can be opened, which takes no right to read the directory.

    Raises:
        OSError: as open(2); ELOOP or ENOTDIR where it is none.

    """
    if not to_list:
        return os.open(name, _STEP, dir_fd=directory)
    return _open_quietly(name, _DIRECTORY, directory)


def open_directory(path: bytes, *, to_list: bool = True) -> int:
    """Open a directory by its absolute, resolved path, of any length, one component after the other.

    Raises:
        OSError: as open(2); ELOOP or ENOTDIR where a component is no directory any more.

    """
    components = split_path(path)
    current = os.open(b"/", _STEP if components or not to_list else _DIRECTORY)
    for at, component in enumerate(components, start=1):
        try:
            following = open_subdirectory(component, current, to_list=to_list and at == len(components))
        finally:
            os.close(current)
        current = following
    return current
