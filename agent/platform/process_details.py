"""What a process of Linux was started with and holds: command line, variables, files, libraries, ports.

Rules:

* What may hold secrets is for matching and goes no further: a command line's text. Of the environment the
  names leave this file and never a value.
* A process can write its command line and its environment anew (prctl(2), PR_SET_MM_ARG_START); what is read
  is what stands there now. Both are read up to a bound, and it is told when that cuts them.
* A path that the kernel tells is in the process's own mount namespace.

Sources: proc_pid_cmdline(5), proc_pid_environ(5), proc_pid_fd(5), proc_pid_maps(5).
"""

import os
import re
from typing import Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from agent.platform.process_memory import ProcessGone
from agent.platform.processes import ProcessDirectory
from agent.platform.sockets import is_listening, read_sockets

# The kernel takes 6 MiB of arguments and variables together at most (3/4 of _STK_LIM, fs/exec.c).
MOST_BYTES = 6 << 20
# Addresses, permissions, offset, device, an inode that is none of 0, and the path.
_MAPPED = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ \S+ [0-9a-f]+ \S+ [1-9][0-9]* +([^ \n][^\n]*)$", re.MULTILINE)
_SOCKET = b"socket:["
_INTERNET = ("ipv4", "ipv6")


class Text(NamedTuple):
    """What was read up to the bound, and whether that cut it."""

    data: bytes
    is_cut: bool


class Held(NamedTuple):
    """What the descriptors of a process lead to: paths, and the inodes of sockets."""

    paths: Tuple[bytes, ...]
    sockets: Tuple[int, ...]


def command_line(directory: ProcessDirectory) -> Text:
    """Return the arguments with blanks between them; empty for threads of the kernel.

    Raises:
        ProcessGone: it ended.
        PermissionError: we may not know.

    """
    data = directory.read("cmdline", MOST_BYTES + 1)
    return Text(data[:MOST_BYTES].rstrip(b"\0").replace(b"\0", b" "), len(data) > MOST_BYTES)


def variable_names(directory: ProcessDirectory) -> Tuple[Tuple[bytes, ...], bool]:
    """Return the names of the environment's variables, each once, and whether the bound cut it.

    Raises:
        ProcessGone: it ended.
        PermissionError: we may not know.

    """
    data = directory.read("environ", MOST_BYTES + 1)
    entries = data[:MOST_BYTES].split(b"\0")
    # What has no `=` is no variable; nothing of it is told, since it may be a value that was written over.
    names = (name for name, sign, _ in (entry.partition(b"=") for entry in entries) if sign and name)
    return tuple(dict.fromkeys(names)), len(data) > MOST_BYTES


def held(directory: ProcessDirectory) -> Held:
    """Return what the open descriptors lead to; the kernel adds ` (deleted)` to a path of what was deleted.

    Raises:
        ProcessGone: it ended.
        PermissionError: we may not know.

    """
    paths: List[bytes] = []
    sockets: List[int] = []
    try:
        descriptor = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory.descriptor)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessGone from None
    try:
        for name in os.listdir(descriptor):  # noqa: PTH208  (thousands of names)
            try:
                target = os.readlink(name.encode(), dir_fd=descriptor)
            except (FileNotFoundError, ProcessLookupError):
                continue  # closed meanwhile
            if target.startswith(b"/"):
                paths.append(target)
            elif target.startswith(_SOCKET):
                sockets.append(int(target[len(_SOCKET) : -1]))
    finally:
        os.close(descriptor)
    return Held(tuple(dict.fromkeys(paths)), tuple(sockets))


def mapped_files(directory: ProcessDirectory) -> Tuple[bytes, ...]:
    """Return the paths of the files that are mapped, each once, its program's among them.

    Raises:
        ProcessGone: it ended.
        PermissionError: we may not know.

    """
    return parse_mapped_files(directory.read("maps"))


def parse_mapped_files(maps: bytes) -> Tuple[bytes, ...]:
    """Return the paths of the files that a `maps` tells of, each once."""
    # The kernel writes a line's end in a path as \012 and nothing else in another way (seq_file_path(9)).
    return tuple(path.replace(b"\\012", b"\n") for path in dict.fromkeys(_MAPPED.findall(maps)))


class Ports:
    """The ports on which processes listen, each network namespace read once, when it is first met."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._listening: Dict[int, Set[int]] = {}
        self._seen: Set[Optional[bytes]] = set()

    def of(self, directory: ProcessDirectory, sockets: Iterable[int]) -> Tuple[int, ...]:
        """Return the ports of TCP and UDP on which a process listens by one of its sockets.

        A socket that it was given out of another namespace counts where some process lives in that one.

        Raises:
            ProcessGone: it ended.
            PermissionError: we may not know.

        """
        held_sockets = tuple(sockets)
        if not held_sockets:
            return ()
        namespace = directory.read_link("ns/net")
        if namespace not in self._seen:
            try:
                for one in read_sockets(f"{self._proc}/{directory.pid}/net"):
                    if one.family in _INTERNET and is_listening(one):
                        self._listening.setdefault(one.inode, set()).add(one.local_port)
            except (FileNotFoundError, ProcessLookupError):
                raise ProcessGone from None
            self._seen.add(namespace)
        return tuple(sorted({port for inode in held_sockets for port in self._listening.get(inode, ())}))
