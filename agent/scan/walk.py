"""One walk for all searches: directories in, batches of names out.

Rules:

* Iterative, on descriptors: a directory is opened from its parent's descriptor and never through a link, so
  depth and path length have no limit and nobody can swap a directory for a link behind the walk's back.
* Each directory is visited once, with the searches that are active in it. A search is active below its own
  roots by whole components of the path, with its own depth, and is left behind when its root is left.
* Files of a directory come before its subdirectories, both sorted by name, whatever other searches run; so
  a root below another one is met on the way, also where nothing else is wanted in between.
* File systems that the kernel makes up are not entered from above; a root inside one is walked. Those that
  are elsewhere are not even looked at, unless a search says `remotefs` (`agent.scan.mounts`).
* For searches that ask for types, what is no regular file comes in batches of its own, after the files.
* What the access rules of this endpoint do not allow is not listed (`agent.scan.fence`).
* A directory that vanished, moved or cannot be read is noted, and the walk goes on.
"""

import errno
import itertools
import os
import stat
from typing import AbstractSet, Callable, Dict, Generator, Iterator, List, NamedTuple, Optional, Set, Tuple

from agent.scan.batch import ENTRY, LINK, Batch
from agent.scan.bounds import Bounds
from agent.scan.coverage import Witness
from agent.scan.fence import Fence
from agent.scan.globs import split_path
from agent.scan.mounts import Mounts
from agent.scan.opening import open_directory, open_subdirectory
from agent.scan.plan import Plan
from agent.scan.roots import DirectoryRoots, Root, Tail, join
from agent.scan.scope import Patterns, Scope, Trees

BATCH_NAMES = 256
# As many names are sorted at once; a larger directory comes in several sorted runs, to bound memory.
SORTED_NAMES = 100_000
# As many directories along the current path are kept open; others are opened again on the way up.
OPEN_DIRECTORIES = 48


class _Names(NamedTuple):
    """Sorted names of a directory, and what those are that are no regular files."""

    names: List[bytes]
    kinds: Dict[bytes, str]


class _Frame:
    """A directory on the current path that has subdirectories left."""

    __slots__ = ("descriptor", "device", "inode", "path", "scope", "subdirectories")

    def __init__(
        self, descriptor: int, status: os.stat_result, path: "_Path", scope: Scope, names: List[bytes]
    ) -> None:
        self.descriptor: Optional[int] = descriptor
        self.device = status.st_dev
        self.inode = status.st_ino
        self.path = path
        self.scope = scope
        self.subdirectories = names

    def is_at(self, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        return (status.st_dev, status.st_ino) == (self.device, self.inode)


class _Path:
    """A path as a chain of names: ten thousand levels must not cost ten thousand copies of long paths."""

    __slots__ = ("name", "parent")

    def __init__(self, parent: Optional["_Path"], name: bytes) -> None:
        self.parent = parent
        self.name = name

    def whole(self) -> bytes:
        names: List[bytes] = []
        at: Optional[_Path] = self
        while at is not None:
            names.append(at.name)
            at = at.parent
        start = names.pop()
        return join(start, b"/".join(reversed(names)))


class Walker:
    """Walks the roots of a plan; `closed` holds searches that want no more."""

    def __init__(
        self,
        plan: Plan,
        roots: Dict[bytes, DirectoryRoots],
        *,
        coverage: Witness,
        mounts: Mounts,
        fence: Fence,
        closed: AbstractSet[int],
        check: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._roots = dict(roots)
        self._ways = _ways_to(roots)
        self._coverage = coverage
        self._bounds = Bounds(plan, coverage, mounts)
        self._fence = fence
        self._closed = closed
        self._check = check
        self._frames: List[_Frame] = []

    def batches(self) -> Generator[Batch, None, None]:
        """Yield everything to look at."""
        try:
            for path in sorted(self._roots, key=lambda path: path.split(b"/")):
                if path not in self._roots:
                    continue
                scope = self._arrive(path, {}, [])
                try:
                    descriptor = open_directory(path, to_list=scope.needs_listing())
                except OSError as error:
                    self._coverage.fail(path, error)
                    continue
                yield from self._visit(descriptor, _Path(None, path), scope)
                yield from self._descend()
        finally:
            for frame in self._frames:
                if frame.descriptor is not None:
                    os.close(frame.descriptor)
            self._frames.clear()

    def _descend(self) -> Iterator[Batch]:
        while self._frames:
            self._check()
            frame = self._frames[-1]
            if not frame.subdirectories:
                self._leave()
                continue
            name = frame.subdirectories.pop()
            path = _Path(frame.path, name)
            whole = path.whole() if self._roots else b""
            scope = self._child_scope(frame.scope, name, whole)
            if self._bounds.concern(name):
                scope = self._bounds.below(scope, frame.path.whole(), name)
            if frame.descriptor is None or (scope.is_empty() and whole not in self._ways):
                continue
            opened = self._open_child(frame, name, path, scope)
            if opened is not None:
                yield from self._visit(opened[0], path, opened[1])

    def _child_scope(self, scope: Scope, name: bytes, path: bytes) -> Scope:
        """Return what is active in a subdirectory: depths grow by one, globs advance, roots begin anew."""
        trees: Trees = {}
        for search, (depth, root) in scope.trees.items():
            maxdepth = self._plan.searches[search].maxdepth
            if (not maxdepth or depth < maxdepth) and search not in self._closed:
                trees[search] = (depth + 1, root)
        patterns: Patterns = []
        for root, tail in scope.patterns:
            if root.search in self._closed:
                continue
            glob = tail[0]
            if glob is None:
                patterns.append((root, tail))
            elif glob.matches(name):
                if len(tail) > 1:
                    patterns.append((root, tail[1:]))
                else:
                    _begin(trees, root)
        return self._arrive(path, trees, patterns)

    def _arrive(self, path: bytes, trees: Trees, patterns: Patterns) -> Scope:
        """Add what begins at a directory to what comes from above, and let `**` stand for nothing too."""
        begun = self._roots.pop(path, None)
        if begun is not None:
            for root in begun.trees:
                _begin(trees, root)
            patterns = patterns + begun.patterns
        # By root and what is left, or `**/**/x` would double its states at every level.
        spread: Dict[Tuple[Root, int], Tuple[Root, Tail]] = {}
        for root, tail in patterns:
            spread[root, len(tail)] = (root, tail)
            rest = tail
            while rest and rest[0] is None:
                rest = rest[1:]
                if rest:
                    spread[root, len(rest)] = (root, rest)
                else:
                    _begin(trees, root)
        if begun is None:
            return Scope(trees, list(spread.values()), {})
        own = frozenset(root.search for root in (*begun.trees, *(root for root, _ in begun.patterns)))
        return Scope(trees, list(spread.values()), begun.files, own)

    def _open_child(
        self, frame: _Frame, name: bytes, path: _Path, scope: Scope
    ) -> Optional[Tuple[int, Scope]]:
        assert frame.descriptor is not None  # noqa: S101  (the caller has looked)
        try:
            descriptor = open_subdirectory(name, frame.descriptor, to_list=scope.needs_listing())
        except OSError as error:
            if scope.is_empty():
                # Merely on the way to a root, which will be opened by itself and say what is wrong.
                pass
            elif error.errno == errno.ENOENT:
                self._coverage.vanish(path.whole())
            elif error.errno in (errno.ELOOP, errno.ENOTDIR):
                self._coverage.lose(path.whole(), "was replaced while it was walked")
            else:
                self._coverage.fail(path.whole(), error)
            return None
        device = os.fstat(descriptor).st_dev
        if device == frame.device or scope.is_empty():
            return descriptor, scope
        kept = self._bounds.across(scope, path.whole(), device)
        if kept.is_empty() and path.whole() not in self._ways:
            os.close(descriptor)
            return None
        return descriptor, kept

    def _visit(self, descriptor: int, path: _Path, scope: Scope) -> Iterator[Batch]:
        """Yield the batches of one directory and, where it has subdirectories, leave a frame for them."""
        keep = False
        try:
            whole = path.whole()
            subdirectories: List[bytes] = []
            if not scope.is_empty() and not self._fence.admits_way(descriptor):
                self._coverage.withhold(whole)
                return
            yield from self._entries(descriptor, whole, scope, subdirectories)
            if subdirectories:
                subdirectories.sort(reverse=True)
                self._frames.append(_Frame(descriptor, os.fstat(descriptor), path, scope, subdirectories))
                keep = True
        finally:
            if not keep:
                os.close(descriptor)
        self._close_far()

    def _entries(
        self, descriptor: int, path: bytes, scope: Scope, subdirectories: List[bytes]
    ) -> Iterator[Batch]:
        """Yield the batches of one directory: its files, then what is no file for those who ask for types."""
        specials: List[bytes] = []
        is_typed = self._bounds.has_typed(scope)
        if scope.needs_listing():
            runs = self._list(descriptor, path, subdirectories, specials)
        else:
            runs = iter([self._named_entries(descriptor, path, scope.files, specials)])
        links: List[bytes] = []
        missing = set(scope.files)
        for entries in runs:
            missing.difference_update(entries.names)
            if is_typed:
                links += entries.kinds
            yield from self._batch(descriptor, path, entries, scope)
        if is_typed:
            others = sorted((*links, *specials, *subdirectories))
            yield from self._batch(descriptor, path, _Names(others, dict.fromkeys(others, ENTRY)), scope)
        if specials and self._bounds.has_untyped(scope):
            self._coverage.skip("special-file", len(specials))
        for name in sorted(missing.difference(specials, subdirectories)):
            self._coverage.vanish(join(path, name))
        if not scope.needs_listing():
            subdirectories.extend(self._ways.get(path, ()))

    def _list(
        self, descriptor: int, path: bytes, subdirectories: List[bytes], specials: List[bytes]
    ) -> Iterator[_Names]:
        """Yield the files and links of a directory in sorted runs; collect what else is in it."""
        names: List[bytes] = []
        kinds: Dict[bytes, str] = {}
        try:
            with os.scandir(descriptor) as listing:
                for entry in listing:
                    name = os.fsencode(entry.name)
                    if entry.is_symlink():
                        kinds[name] = LINK
                        names.append(name)
                    elif entry.is_dir(follow_symlinks=False):
                        subdirectories.append(name)
                    elif entry.is_file(follow_symlinks=False):
                        names.append(name)
                    else:
                        specials.append(name)
                    if len(names) >= SORTED_NAMES:
                        yield _Names(sorted(names), kinds)
                        names, kinds = [], {}
        except OSError as error:
            self._coverage.fail(path, error)
        yield _Names(sorted(names), kinds)

    def _named_entries(
        self, descriptor: int, path: bytes, files: Dict[bytes, List[Root]], specials: List[bytes]
    ) -> _Names:
        """Return the entries of a directory in which single files only are wanted, without listing it."""
        entries = _Names([], {})
        for name in sorted(files):
            try:
                mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            except OSError as error:
                if error.errno != errno.ENOENT:
                    self._coverage.fail(join(path, name), error)
                continue
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                specials.append(name)
                continue
            entries.names.append(name)
            if stat.S_ISLNK(mode):
                entries.kinds[name] = LINK
        return entries

    def _batch(self, descriptor: int, path: bytes, entries: _Names, scope: Scope) -> Iterator[Batch]:
        base = tuple(scope.trees[search][1] for search in sorted(scope.trees))
        finals = [(root, tail[0]) for root, tail in scope.patterns if len(tail) == 1 and tail[0] is not None]
        if not finals and not scope.files and not self._bounds.judge_names(entries.kinds):
            groups: Iterator[Tuple[Tuple[Root, ...], Iterator[bytes]]] = iter([(base, iter(entries.names))])
        else:

            def active(name: bytes) -> Tuple[Root, ...]:
                roots = {root.search: root for root in base}
                for root in scope.files.get(name, ()):
                    roots.setdefault(root.search, root)
                for root, glob in finals:
                    if glob is not None and glob.matches(name):
                        if root.glob is not None:
                            root.glob.has_matched = True
                        roots.setdefault(root.search, root)
                found = tuple(roots[search] for search in sorted(roots))
                return self._bounds.seen(found, path, name, entries.kinds.get(name))

            groups = itertools.groupby(entries.names, key=active)
        for roots, group in groups:
            while roots:
                self._check()
                names = tuple(itertools.islice(group, BATCH_NAMES))
                if not names:
                    break
                yield Batch(descriptor, path, names, entries.kinds, roots)

    def _close_far(self) -> None:
        """Keep the number of open directories bounded along a deep path."""
        if len(self._frames) > OPEN_DIRECTORIES:
            far = self._frames[-OPEN_DIRECTORIES - 1]
            if far.descriptor is not None:
                os.close(far.descriptor)
                far.descriptor = None

    def _leave(self) -> None:
        """Go up from a finished directory, opening its parent again where that was closed on the way down."""
        frame = self._frames.pop()
        try:
            if self._frames and self._frames[-1].descriptor is None and self._frames[-1].subdirectories:
                self._reopen(self._frames[-1], frame.descriptor)
        finally:
            if frame.descriptor is not None:
                os.close(frame.descriptor)

    def _reopen(self, parent: _Frame, child: Optional[int]) -> None:
        """Open a directory again: from below where it still is there, else by its path; never another one."""
        for way in ("up", "path"):
            descriptor = None
            try:
                if way == "path":
                    descriptor = open_directory(parent.path.whole())
                elif child is not None:
                    descriptor = open_subdirectory(b"..", child)
                if descriptor is not None and parent.is_at(descriptor):
                    parent.descriptor = descriptor
                    return
            except OSError:
                continue
            if descriptor is not None:
                os.close(descriptor)
        lost = len(parent.subdirectories)
        self._coverage.lose(
            parent.path.whole(), f"moved while it was walked: {lost} of its directories were not searched"
        )
        parent.subdirectories.clear()


def _ways_to(roots: Dict[bytes, DirectoryRoots]) -> Dict[bytes, Set[bytes]]:
    """Return, for each directory above a root, the names in it that lead to roots."""
    ways: Dict[bytes, Set[bytes]] = {}
    for root in roots:
        directory = b"/"
        for name in split_path(root):
            ways.setdefault(directory, set()).add(name)
            directory = join(directory, name)
    return ways


def _begin(trees: Trees, root: Root) -> None:
    """Begin a search at a directory; of two roots the one written first gives the shown path."""
    known = trees.get(root.search)
    if root.glob is not None:
        root.glob.has_matched = True
    trees[root.search] = (1, root if known is None or root.order < known[1].order else known[1])
