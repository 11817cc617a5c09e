"""Judges the files of a batch for all searches that are active there, the cheapest check first.

Rules:

* Name, then stat, then content, then digests; a search that must have every check (`matchall`) is dropped at
  the first that fails, and what is needed by nobody is not read.
* A file is opened once and read once for all searches. Only regular files are opened, and what was opened is
  looked at again: had the file been replaced since, the metadata checks are judged anew on what is there.
* At most as much is read as fstat said, so that a file that grows ends. A file that mostly consists of holes
  is not read, nor what the kernel makes up where reading blocks or consumes.
* Where access rules hold, a file is known by its descriptor only, and that is judged before its status.
* A file that cannot be read satisfies no check on what it holds, inverted or not, and that is said.
"""

import errno
import hashlib
import os
import stat
from typing import (
    AbstractSet,
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from agent.scan.coverage import Coverage
from agent.scan.fence import Fence
from agent.scan.lines import LineScan
from agent.scan.mounts import READABLE_PSEUDO_TYPES, UNREADABLE_NAMES, Mounts
from agent.scan.opening import open_file, open_for_status
from agent.scan.plan import Plan, PlannedSearch
from agent.scan.roots import Root, join
from agent.scan.walk import Batch, Entry

CHUNK_BYTES = 1 << 20
# A file this large of which less than a sixteenth is stored is holes: hashing 1 TiB of them takes an hour.
SPARSE_BYTES = 1 << 30
SPARSE_SHARE = 16
# What is read of a file that says size 0 and has content all the same (proc(5)).
PSEUDO_BYTES = 1 << 20


class Match(NamedTuple):
    """A file that one search looks for. `path` is as the search's root shows it."""

    search: int
    path: bytes
    is_link: bool
    status: os.stat_result
    digests: Mapping[str, str]
    checks: Tuple[str, ...]


class _Candidate(NamedTuple):
    """A file that a search may still want; `said` are the checks that held so far."""

    root: Root
    search: PlannedSearch
    said: Tuple[str, ...]

    def needs_reading(self) -> bool:
        search = self.search
        if search.contents or search.hashes:
            return True
        return bool(search.report_kinds) and (search.matchall or bool(self.said))


class _Facts(NamedTuple):
    """What reading a file told; `lines` is None where it was not read."""

    lines: Optional[LineScan]
    digests: Mapping[str, str]


_UNREAD = _Facts(None, {})


class Inspector:
    """Judges batches; `closed` holds searches that want no more."""

    def __init__(
        self,
        plan: Plan,
        *,
        coverage: Coverage,
        mounts: Mounts,
        fence: Fence,
        closed: AbstractSet[int],
        check: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._coverage = coverage
        self._mounts = mounts
        self._fence = fence
        self._closed = closed
        self._check = check

    def inspect(self, batch: Batch) -> Iterator[Match]:
        """Yield the matches among a batch's entries, in their order."""
        active = self._active(batch)
        for entry in batch.entries:
            self._check()
            if any(one.root.search in self._closed for one in active):
                active = self._active(batch)
            if not active:
                return
            status: Optional[os.stat_result] = None
            if entry.is_link:
                # Also where no name fits: what lies behind a link to a directory was not seen; it counts.
                status = self._status(batch, entry)
                if status is None:
                    continue
            self._coverage.files_seen += 1
            named = [kept for kept in (_by_name(one, entry.name) for one in active) if kept is not None]
            if not named:
                continue
            status = status or self._status(batch, entry)
            if status is not None:
                yield from self._judge(batch, entry, status, named)

    def _active(self, batch: Batch) -> List[_Candidate]:
        return [
            _Candidate(root, self._plan.searches[root.search], ())
            for root in batch.active
            if root.search not in self._closed
        ]

    def _status(self, batch: Batch, entry: Entry) -> Optional[os.stat_result]:
        """Return the status of a regular file, through a link where it is one; None counts why not."""
        try:
            status = self._stat(batch, entry)
        except OSError as error:
            if entry.is_link and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                self._coverage.skip("dangling-link")
            elif error.errno == errno.ENOENT:
                self._coverage.vanish(join(batch.path, entry.name))
            else:
                self._coverage.fail(join(batch.path, entry.name), error)
            return None
        if status is None or stat.S_ISREG(status.st_mode):
            return status
        is_directory_link = entry.is_link and stat.S_ISDIR(status.st_mode)
        self._coverage.skip("directory-link" if is_directory_link else "special-file")
        return None

    def _stat(self, batch: Batch, entry: Entry) -> Optional[os.stat_result]:
        """Return the status of an entry; None where the access rules do not allow to know it."""
        if self._fence.is_open:
            return os.stat(entry.name, dir_fd=batch.directory, follow_symlinks=entry.is_link)
        descriptor = open_for_status(entry.name, batch.directory, follow=entry.is_link)
        try:
            if self._fence.admits(descriptor):
                return os.fstat(descriptor)
        finally:
            os.close(descriptor)
        self._coverage.withhold(join(batch.path, entry.name))
        return None

    def _judge(
        self, batch: Batch, entry: Entry, status: os.stat_result, named: Sequence[_Candidate]
    ) -> Iterator[Match]:
        path = join(batch.path, entry.name)
        facts = _UNREAD
        candidates = _by_status(named, status)
        readers = [one for one in candidates if one.needs_reading()]
        if readers and self._may_read(path, entry.name, status):
            opened = self._open(batch, entry, path)
            if opened is not None:
                descriptor, status_now = opened
                try:
                    if _is_other(status, status_now):
                        candidates = _by_status(named, status_now)
                        readers = [one for one in candidates if one.needs_reading()]
                    status = status_now
                    facts = self._read(descriptor, path, status, readers)
                except OSError as error:
                    self._coverage.fail(path, error)
                finally:
                    os.close(descriptor)
        for one in candidates:
            checks = _decide(one, facts)
            if checks is not None:
                kinds = one.search.report_kinds
                yield Match(
                    search=one.root.search,
                    path=one.root.show(path),
                    is_link=entry.is_link,
                    status=status,
                    digests={kind: facts.digests[kind] for kind in kinds if kind in facts.digests},
                    checks=checks,
                )

    def _may_read(self, path: bytes, name: bytes, status: os.stat_result) -> bool:
        pseudo = self._mounts.pseudo_type(status.st_dev)
        if pseudo is not None and (pseudo not in READABLE_PSEUDO_TYPES or name in UNREADABLE_NAMES):
            self._coverage.skip("pseudo-filesystem")
            return False
        stored = getattr(status, "st_blocks", 0) * 512
        if pseudo is None and status.st_size >= SPARSE_BYTES and stored < status.st_size // SPARSE_SHARE:
            self._coverage.skip("sparse")
            self._coverage.lose(path, f"not read: {status.st_size} bytes, of which {stored} are stored")
            return False
        return True

    def _open(self, batch: Batch, entry: Entry, path: bytes) -> Optional[Tuple[int, os.stat_result]]:
        try:
            descriptor = open_file(entry.name, batch.directory, follow=entry.is_link)
        except OSError as error:
            if error.errno == errno.ENOENT:
                self._coverage.vanish(path)
            elif error.errno == errno.ELOOP:
                self._coverage.lose(path, "was replaced while the scan ran")
            else:
                self._coverage.fail(path, error)
            return None
        if not self._fence.admits(descriptor):
            os.close(descriptor)
            self._coverage.withhold(path)
            return None
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and self._may_read(path, entry.name, status):
            return descriptor, status
        if not stat.S_ISREG(status.st_mode):
            self._coverage.lose(path, "was replaced while the scan ran")
        os.close(descriptor)
        return None

    def _read(
        self, descriptor: int, path: bytes, status: os.stat_result, readers: Sequence[_Candidate]
    ) -> _Facts:
        """Read a file once: content first, digests of what the searches left standing still need."""
        lines = LineScan(
            self._plan.patterns,
            some=_patterns(readers, all_lines=False),
            every=_patterns(readers, all_lines=True),
            check=self._check,
        )
        digests: Optional[Dict[str, Any]] = None
        self._coverage.files_read += 1
        is_pseudo = self._mounts.pseudo_type(status.st_dev) is not None
        left = PSEUDO_BYTES if is_pseudo else status.st_size
        while True:
            self._check()
            data = os.read(descriptor, min(left, CHUNK_BYTES)) if left else b""
            left -= len(data)
            self._coverage.bytes_read += len(data)
            lines.feed(data)
            is_last = not data or not left
            if is_last:
                lines.finish()
            readers = [one for one in readers if _is_open(one, lines)]
            lines.keep_only(
                some=_patterns(readers, all_lines=False), every=_patterns(readers, all_lines=True)
            )
            kinds = {kind for one in readers for kind in one.search.report_kinds}
            if digests is None:
                digests = {kind: hashlib.new(kind, usedforsecurity=False) for kind in sorted(kinds)}
            else:
                digests = {kind: digest for kind, digest in digests.items() if kind in kinds}
            for digest in digests.values():
                digest.update(data)
            if is_last or not (digests or lines.is_open()):
                break
        if lines.is_cut:
            self._coverage.cut(path)
        if not is_pseudo:
            self._look_again(descriptor, path, status, is_whole=not (is_last and left))
        return _Facts(lines, {kind: digest.hexdigest() for kind, digest in digests.items()})

    def _look_again(self, descriptor: int, path: bytes, before: os.stat_result, *, is_whole: bool) -> None:
        """Say when what was read is not one state of the file."""
        if not is_whole or _is_other(before, os.fstat(descriptor)):
            self._coverage.change(path)


def _is_other(before: os.stat_result, now: os.stat_result) -> bool:
    return (
        before.st_ino != now.st_ino
        or before.st_dev != now.st_dev
        or before.st_size != now.st_size
        or before.st_mtime_ns != now.st_mtime_ns
        or before.st_mode != now.st_mode
    )


def _by_name(one: _Candidate, name: bytes) -> Optional[_Candidate]:
    """Judge the checks on the name."""
    checks = one.search.names
    if not checks:
        return one
    if one.search.matchall:
        return one if all(check.holds(name) for check in checks) else None
    held = tuple(check.said for check in checks if check.holds(name))
    has_more = one.search.stats or one.search.contents or one.search.hashes
    return one._replace(said=held) if held or has_more else None


def _by_status(candidates: Sequence[_Candidate], status: os.stat_result) -> List[_Candidate]:
    """Judge the checks on size, mode and time."""
    kept = []
    for one in candidates:
        checks = one.search.stats
        if one.search.matchall:
            if all(check.holds(status) for check in checks):
                kept.append(one)
            continue
        held = tuple(check.said for check in checks if check.holds(status))
        kept.append(one._replace(said=one.said + held) if held else one)
    return kept


def _patterns(readers: Sequence[_Candidate], *, all_lines: bool) -> Set[int]:
    return {check.pattern for one in readers for check in one.search.contents if check.all_lines is all_lines}


def _is_open(one: _Candidate, lines: LineScan) -> bool:
    """Tell whether a search still wants the file: not where every check counts and a content one failed."""
    if not one.search.matchall:
        return True
    for check in one.search.contents:
        found = lines.found_every if check.all_lines else lines.found_some
        if check.pattern in found and found[check.pattern] is not check.wanted:
            return False
    return True


def _decide(one: _Candidate, facts: _Facts) -> Optional[Tuple[str, ...]]:
    """Return the checks to report (none where all were needed), or None where the search has no match."""
    held = list(one.said)
    search = one.search
    for check in search.contents:
        found: Mapping[int, bool] = {}
        if facts.lines is not None:
            found = facts.lines.found_every if check.all_lines else facts.lines.found_some
        if check.pattern in found and found[check.pattern] is check.wanted:
            held.append(check.said)
        elif search.matchall:
            return None
    for hash_check in search.hashes:
        digest = facts.digests.get(hash_check.kind)
        if digest is not None and (digest in hash_check.digests) is hash_check.wanted:
            held.append(f"{hash_check.said}={digest}" if hash_check.wanted else hash_check.said)
        elif search.matchall:
            return None
    if search.matchall:
        return ()
    return tuple(held) or None
