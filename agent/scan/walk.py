"""One walk for all searches: directories in, batches of names out.

Rules:

* Iterative, on descriptors: a directory is opened from its parent's descriptor and never through a link, so
  depth and path length have no limit and nobody can swap a directory for a link behind the walk's back.
* Each directory is visited once, with the searches that are active in it. A search is active below its own
  roots by whole components of the path, with its own depth, and is left behind when its root is left.
* Files of a directory come before its subdirectories, both sorted by name, whatever other searches run; so
  a root below another one is met on the way, also where nothing else is wanted in between.
* A small directory that holds no others is not listed here where nobody needs its names before its files are
  judged: who judges them lists it (`agent.scan.leaf`).
* File systems that the kernel makes up are not entered from above; a root inside one is walked. Those that
  are elsewhere are not even looked at, unless a search says `remotefs` (`agent.scan.mounts`).
* For searches that ask for types, what is no regular file comes in batches of its own, after the files.
* What the access rules of this endpoint do not allow is not listed (`agent.scan.fence`).
* A directory that vanished, moved or cannot be read is noted, and the walk goes on.
"""

import errno
import os
from typing import (
    AbstractSet,
    Callable,
    Dict,
    Generator,
    Iterator,
    List,
    Optional,
    Set,
    Tuple,
)

from agent.scan.batch import ENTRY, Batch
from agent.scan.batching import Batcher
from agent.scan.bounds import Bounds
from agent.scan.coverage import Witness
from agent.scan.fence import Fence
from agent.scan.globs import split_path
from agent.scan.leaf import COUNTING_TYPES, is_leaf, most_names
from agent.scan.listing import Names, list_names, look_up_names
from agent.scan.mounts import Mounts
from agent.scan.opening import open_directory, open_subdirectory
from agent.scan.plan import Plan
from agent.scan.roots import DirectoryRoots, Root, Tail, join
from agent.scan.scope import Patterns, Scope, Trees

# As many directories along the current path are kept open; others are opened again on the way up.
OPEN_DIRECTORIES = 48
_SHORT_PATH_BYTES = 1024
# Scopes that are remembered for what is below them; about as many are met as there are levels.
_MAX_SCOPES = 256


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
    """A path as a chain of names: ten thousand levels must not cost ten thousand copies of long paths.

    Short ones are known as a whole.
    """

    __slots__ = ("known", "name", "parent")

    def __init__(self, parent: Optional["_Path"], name: bytes) -> None:
        self.parent = parent
        self.name = name
        self.known: Optional[bytes] = name if parent is None else None
        if parent is not None and parent.known is not None and len(parent.known) < _SHORT_PATH_BYTES:
            self.known = join(parent.known, name)

    def whole(self) -> bytes:
        if self.known is not None:
            return self.known
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
        self._mounts = mounts
        self._bounds = Bounds(plan, coverage, mounts)
        self._fence = fence
        self._closed = closed
        self._check = check
        self._frames: List[_Frame] = []
        self._has_roots_below = False
        # By the id of a scope: that scope, how many searches were closed, and what is active one level below.
        self._below: Dict[int, Tuple[Scope, int, Scope]] = {}
        self._batcher = Batcher(plan, coverage, self._bounds, check)

    def batches(self) -> Generator[Batch, None, None]:
        """Yield everything to look at."""
        try:
            for path in sorted(self._roots, key=lambda path: path.split(b"/")):
                if path not in self._roots:
                    continue
                scope = self._arrive(path, {}, [])
                inside = path.rstrip(b"/") + b"/"
                self._has_roots_below = any(root.startswith(inside) for root in self._roots)
                try:
                    descriptor = open_directory(path, to_list=scope.needs_listing())
                except OSError as error:
                    self._coverage.fail(path, error)
                    continue
                yield from self._visit(descriptor, os.fstat(descriptor), _Path(None, path), scope)
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
            whole = path.whole() if self._has_roots_below else b""
            scope = self._scope_below(frame.scope, name, whole)
            if self._bounds.concern(name):
                scope = self._bounds.below(scope, frame.path.whole(), name)
            if frame.descriptor is None or (scope.is_empty() and path.whole() not in self._ways):
                continue
            opened = self._open_child(frame, name, path, scope)
            if opened is not None:
                descriptor, status, kept = opened
                yield from self._visit(descriptor, status, path, kept)

    def _scope_below(self, scope: Scope, name: bytes, path: bytes) -> Scope:
        """Return what is active in a subdirectory; where its name has no say, all of them have one scope."""
        if scope.patterns or self._has_roots_below:
            return self._child_scope(scope, name, path)
        known = self._below.get(id(scope))
        if known is not None and known[0] is scope and known[1] == len(self._closed):
            return known[2]
        child = self._child_scope(scope, name, path)
        if len(self._below) >= _MAX_SCOPES:
            self._below.clear()
        self._below[id(scope)] = (scope, len(self._closed), child)
        return child

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
    ) -> Optional[Tuple[int, os.stat_result, Scope]]:
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
        status = os.fstat(descriptor)
        if status.st_dev == frame.device or scope.is_empty():
            return descriptor, status, scope
        kept = self._bounds.across(scope, path.whole(), status.st_dev)
        if kept.is_empty() and path.whole() not in self._ways:
            os.close(descriptor)
            return None
        return descriptor, status, kept

    def _visit(self, descriptor: int, status: os.stat_result, path: _Path, scope: Scope) -> Iterator[Batch]:
        """Yield the batches of one directory and, where it has subdirectories, leave a frame for them."""
        keep = False
        try:
            whole = path.whole()
            subdirectories: List[bytes] = []
            if not scope.is_empty() and not self._fence.admits_way(descriptor):
                self._coverage.withhold(whole)
                return
            leaf = self._leaf(descriptor, status, whole, scope)
            if leaf is not None:
                yield leaf
                return
            yield from self._entries(descriptor, whole, scope, subdirectories)
            if subdirectories:
                subdirectories.sort(reverse=True)
                self._frames.append(_Frame(descriptor, status, path, scope, subdirectories))
                keep = True
        finally:
            if not keep:
                os.close(descriptor)
        self._close_far()

    def _leaf(self, descriptor: int, status: os.stat_result, path: bytes, scope: Scope) -> Optional[Batch]:
        """Return the batch of a directory that need not be listed to go on."""
        if is_leaf(status) and self._mounts.stated_type(status.st_dev) in COUNTING_TYPES:
            return self._batcher.unlisted(descriptor, path, most_names(status), scope)
        return None

    def _entries(
        self, descriptor: int, path: bytes, scope: Scope, subdirectories: List[bytes]
    ) -> Iterator[Batch]:
        """Yield the batches of one directory: its files, then what is no file for those who ask for types."""
        specials: List[bytes] = []
        is_typed = self._bounds.has_typed(scope)
        if scope.needs_listing():
            runs = list_names(descriptor, path, self._coverage, subdirectories, specials)
        else:
            runs = iter([look_up_names(descriptor, path, self._coverage, scope.files, specials)])
        links: List[bytes] = []
        for_files = self._bounds.for_files(scope)
        missing = set(scope.files)
        for entries in runs:
            if missing:
                missing.difference_update(entries.files, entries.kinds)
            if is_typed:
                links += entries.kinds
            yield from self._batcher.batches(descriptor, path, entries, for_files)
            if for_files.is_empty():
                self._coverage.files_seen += len(entries.files)
        if is_typed:
            others = (*links, *specials, *subdirectories)
            yield from self._batcher.batches(descriptor, path, Names([], dict.fromkeys(others, ENTRY)), scope)
        if specials and self._bounds.has_untyped(scope):
            self._coverage.skip("special-file", len(specials))
        for name in sorted(missing.difference(specials, subdirectories)):
            self._coverage.vanish(join(path, name))
        if not scope.needs_listing():
            subdirectories.extend(self._ways.get(path, ()))

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
