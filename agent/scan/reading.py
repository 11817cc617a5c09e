"""Opens one file and reads it once, for all searches that want to know what is in it.

Rules:

* Only regular files are opened, and what was opened is looked at again: whoever asked judges what is there.
* At most as much is read as fstat said, so that a file that grows ends. A file that mostly consists of holes
  is not read, nor what the kernel makes up where reading blocks or consumes.
* Where access rules hold, a file is known by its descriptor only, and that is judged before its status.
* What could not be read, vanished or changed is said in the coverage.
"""

import errno
import os
import stat
from contextlib import closing
from typing import (
    Callable,
    Dict,
    Iterable,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
)

from agent.scan.batch import ENTRY, LINK
from agent.scan.coverage import Witness
from agent.scan.fence import Fence, path_of
from agent.scan.intake import Content, Demands
from agent.scan.judging import UNREAD, Candidate, Facts
from agent.scan.mounts import READABLE_PSEUDO_TYPES, UNREADABLE_NAMES, Mounts
from agent.scan.opening import open_file, open_for_status, resolve
from agent.scan.plan import Plan
from agent.scan.source import MAP_BYTES, MappedSource, PlainSource, Source

CHUNK_BYTES = 1 << 20
# A file this large of which less than a sixteenth is stored is holes: hashing 1 TiB of them takes an hour.
SPARSE_BYTES = 1 << 30
SPARSE_SHARE = 16
# What is read of a file that says size 0 and has content all the same (proc(5)).
PSEUDO_BYTES = 1 << 20


class Name(NamedTuple):
    """A name in an open directory, what its listing says it is, and its whole path."""

    directory: int
    name: bytes
    kind: str
    path: bytes

    @property
    def is_link(self) -> bool:
        """Tell whether it is a link, which is looked through."""
        return self.kind == LINK


class Opened(NamedTuple):
    """A regular file, open for reading, and its status as the descriptor has it."""

    descriptor: int
    status: os.stat_result
    path: bytes


class KeptDigests(Protocol):
    """Digests of files that were read before (`agent.scan.cache`)."""

    def recall(self, status: os.stat_result, kinds: Iterable[str]) -> Optional[Dict[str, str]]:
        """Return the digests of a file; None unless all of these kinds are known."""

    def keep(self, before: os.stat_result, after: os.stat_result, digests: Mapping[str, str]) -> None:
        """Keep the digests of a file that was read as a whole."""


class Reader:
    """Looks at files and reads them; the coverage is told of what went wrong.

    Large files are mapped where there is somebody to be told, before and after (`on_map`): a process that
    maps a file dies when that is truncated.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        coverage: Witness,
        mounts: Mounts,
        fence: Fence,
        check: Callable[[], None],
        on_map: Optional[Callable[[bool], None]] = None,
        cache: Optional[KeptDigests] = None,
    ) -> None:
        self._plan = plan
        self._cache = cache
        self._coverage = coverage
        self._mounts = mounts
        self._fence = fence
        self._check = check
        self._on_map = on_map
        self.demands = Demands(plan, check)

    def status(self, name: Name) -> Optional[os.stat_result]:
        """Return the status of a regular file, through a link where it is one; None counts why not.

        Of an entry for searches by type: its own status, whatever it is.
        """
        try:
            status = self._stat(name)
        except OSError as error:
            if name.is_link and not (self._fence.is_open or self._fence.admits_path(resolve(name.path))):
                # As if it were there: nobody may learn by a link what exists where they may not look.
                self._coverage.withhold(name.path)
            elif name.is_link and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                self._coverage.skip("dangling-link")
            elif error.errno == errno.ENOENT:
                self._coverage.vanish(name.path)
            else:
                self._coverage.fail(name.path, error)
            return None
        if status is None or stat.S_ISREG(status.st_mode) or name.kind == ENTRY:
            return status
        is_directory_link = name.is_link and stat.S_ISDIR(status.st_mode)
        self._coverage.skip("directory-link" if is_directory_link else "special-file")
        return None

    def _stat(self, name: Name) -> Optional[os.stat_result]:
        """Return the status of an entry; None where the access rules do not allow to know it."""
        if self._fence.is_open:
            return os.stat(name.name, dir_fd=name.directory, follow_symlinks=name.is_link)
        descriptor = open_for_status(name.name, name.directory, follow=name.is_link)
        try:
            if self._fence.admits(descriptor):
                return os.fstat(descriptor)
        finally:
            os.close(descriptor)
        self._coverage.withhold(name.path)
        return None

    def open(self, name: Name, status: os.stat_result) -> Optional[Opened]:
        """Open what had this status; None where it is not to be read, or cannot be, which is said."""
        try:
            if not stat.S_ISREG(status.st_mode) or not self._may_read(name, status):
                return None
            descriptor = open_file(name.name, name.directory, follow=name.is_link)
        except OSError as error:
            if error.errno == errno.ENOENT:
                self._coverage.vanish(name.path)
            elif error.errno == errno.ELOOP:
                self._coverage.lose(name.path, "was replaced while the scan ran")
            else:
                self._coverage.fail(name.path, error)
            return None
        if not self._fence.admits(descriptor):
            os.close(descriptor)
            self._coverage.withhold(name.path)
            return None
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and self._may_read(name, status):
            return Opened(descriptor, status, name.path)
        if not stat.S_ISREG(status.st_mode):
            self._coverage.lose(name.path, "was replaced while the scan ran")
        os.close(descriptor)
        return None

    def _may_read(self, name: Name, status: os.stat_result) -> bool:
        pseudo = self._mounts.pseudo_type(status.st_dev)
        if pseudo is not None and (pseudo not in READABLE_PSEUDO_TYPES or _may_block(name, status)):
            self._coverage.skip("pseudo-filesystem")
            return False
        stored = getattr(status, "st_blocks", 0) * 512
        if pseudo is None and status.st_size >= SPARSE_BYTES and stored < status.st_size // SPARSE_SHARE:
            self._coverage.skip("sparse")
            self._coverage.lose(name.path, f"not read: {status.st_size} bytes, of which {stored} are stored")
            return False
        return True

    def recall(self, status: os.stat_result, candidates: Sequence[Candidate]) -> Optional[Facts]:
        """Return what an earlier scan has read, where that is all that the candidates need."""
        if self._cache is None:
            return None
        readers = [one for one in candidates if one.needs_reading()]
        if not readers or not all(one.search.is_by_digest() for one in readers):
            return None
        kinds = {kind for one in readers for kind in one.search.report_kinds}
        digests = self._cache.recall(status, kinds)
        return None if digests is None else Facts(None, digests, is_cached=True)

    def read(self, opened: Opened, candidates: Sequence[Candidate], *, may_map: bool = False) -> Facts:
        """Read a file once, as far as the candidates need it; by mapping it where that may be done."""
        readers = [one for one in candidates if one.needs_reading()]
        if not readers:
            return UNREAD
        try:
            with closing(self._source(opened, may_map=may_map)) as source:
                return self._read(opened, source, readers)
        except OSError as error:
            self._coverage.fail(opened.path, error)
            return UNREAD

    def _source(self, opened: Opened, *, may_map: bool) -> Source:
        if may_map and self._on_map is not None and opened.status.st_size >= MAP_BYTES:
            return MappedSource(opened.descriptor, opened.status.st_size, self._on_map)
        return PlainSource(opened.descriptor)

    def _read(self, opened: Opened, source: Source, readers: Sequence[Candidate]) -> Facts:
        """Let the bytes go by what is asked of them and, where some search wants it, of what they pack."""
        self._coverage.files_read += 1
        is_pseudo = self._mounts.pseudo_type(opened.status.st_dev) is not None
        left = PSEUDO_BYTES if is_pseudo else opened.status.st_size
        content: Optional[Content] = None
        while True:
            self._check()
            data = source.read(min(left, CHUNK_BYTES)) if left else b""
            left -= len(data)
            self._coverage.bytes_read += len(data)
            if content is None:
                content = Content(self.demands, readers, data, self._check)
            is_last = not data or not left
            content.take(data, is_last=is_last)
            if is_last or not content.is_open():
                break
        if content.is_cut:
            self._coverage.cut(opened.path)
        if content.problem is not None:
            self._coverage.lose(opened.path, content.problem)
        facts = content.facts()
        if not is_pseudo:
            self._look_again(opened, facts.digests, is_whole=not (is_last and left))
        return facts

    def _look_again(self, opened: Opened, digests: Mapping[str, str], *, is_whole: bool) -> None:
        """Say when what was read is not one state of the file; if it is, its digests may be kept."""
        now = os.fstat(opened.descriptor)
        if not is_whole or is_other(opened.status, now):
            self._coverage.change(opened.path)
        elif self._cache is not None and digests:
            self._cache.keep(opened.status, now, digests)


def _may_block(name: Name, status: os.stat_result) -> bool:
    """Tell whether reading a file of the kernel may block or consume, under whatever name it is met.

    A link is judged by the name of what it leads to. A file that is mounted over another one bears that one's
    name, and is known by lying on another file system than its directory; it is left alone, whatever it is.
    """
    if not name.is_link:
        return name.name in UNREADABLE_NAMES or os.fstat(name.directory).st_dev != status.st_dev
    descriptor = open_for_status(name.name, name.directory, follow=True)
    try:
        directory, _, own_name = path_of(descriptor).rpartition(b"/")
    finally:
        os.close(descriptor)
    return own_name in UNREADABLE_NAMES or os.stat(directory or b"/").st_dev != status.st_dev  # noqa: PTH116


def is_other(before: os.stat_result, now: os.stat_result) -> bool:
    """Tell whether two statuses are of different files, or of different states of one."""
    return (
        before.st_ino != now.st_ino
        or before.st_dev != now.st_dev
        or before.st_size != now.st_size
        or before.st_mtime_ns != now.st_mtime_ns
        or before.st_mode != now.st_mode
    )
