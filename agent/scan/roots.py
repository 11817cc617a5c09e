"""Where a scan begins: the paths of all searches, resolved on this endpoint.

Rules:

* A path that is written out may be a link, or lie behind one: it is followed, and that is noted (else `/bin`
  is empty on today's systems). What it leads to is shown under the path as it was written.
* A path with a glob is expanded here as far as needed to know the directories where matching begins; the
  walk matches the rest. Between its components links to directories are followed, as a shell does; what the
  last component or `**` meets is found, not given, so a link to a directory there is not followed.
* A search that asks for types also looks at what a written-out path names itself: a directory, a device, a
  link as a link.
* What a search excludes is left out also where a path leads there, and what lies on a file system that is
  elsewhere is not touched without `remotefs`; both are said.
* A missing path is an error of the coverage; a glob that matches nothing is a note.
* Everything is known by the resolved path of a directory, so that searches that meet anywhere share the walk.
"""

import os
import stat
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from agent.scan.coverage import Witness
from agent.scan.fence import Fence
from agent.scan.globs import NameGlob, is_glob, split_path
from agent.scan.mounts import Mounts
from agent.scan.opening import open_directory, resolve
from agent.scan.plan import Plan
from agent.scan.texts import path_text

_ANY_DEPTH = b"**"
# What is left of a glob below a directory: globs on names; None is `**`, any number of directories.
Tail = Tuple[Optional[NameGlob], ...]


class GlobUse:
    """Whether a glob of a search has matched anything; `twin` is one that means the same place."""

    def __init__(self, search: int, path: bytes) -> None:
        self.search = search
        self.path = path
        self.has_matched = False
        self.twin: Optional[GlobUse] = None

    def is_used(self) -> bool:
        """Tell whether the glob, or its twin, has matched anything."""
        return self.has_matched or (self.twin is not None and self.twin.is_used())


class Root(NamedTuple):
    """A place where a search begins. `order` is the place of its path among the search's paths."""

    search: int
    order: int
    real: bytes
    shown: bytes
    glob: Optional[GlobUse] = None

    def show(self, path: bytes) -> bytes:
        """Return a resolved path below this root as the investigator wrote it."""
        if self.real == self.shown:
            return path
        return join(self.shown, path[len(self.real) :].lstrip(b"/"))


class DirectoryRoots:
    """What begins at one directory: whole trees, what is left of globs, and single files by name."""

    def __init__(self) -> None:
        self.trees: List[Root] = []
        self.patterns: List[Tuple[Root, Tail]] = []
        self.files: Dict[bytes, List[Root]] = {}


def join(directory: bytes, name: bytes) -> bytes:
    """Join a directory and what is below it; without either, the other."""
    if not name:
        return directory
    return directory + name if directory.endswith(b"/") else directory + b"/" + name


class RootFinder:
    """Resolves the paths of a plan; `roots` maps resolved directories to what begins there."""

    def __init__(
        self, plan: Plan, coverage: Witness, check: Callable[[], None], fence: Fence, mounts: Mounts
    ) -> None:
        self.roots: Dict[bytes, DirectoryRoots] = {}
        self.globs: List[GlobUse] = []
        self._coverage = coverage
        self._check = check
        self._fence = fence
        self._mounts = mounts
        self._searches = plan.searches
        self._said_bounds: Set[bytes] = set()
        self._missing: Set[bytes] = set()
        self._said_links: Dict[bytes, bytes] = {}
        self._tails: Dict[Tuple[bytes, ...], Tail] = {}
        for index, search in enumerate(plan.searches):
            for order, path in enumerate(search.paths):
                self._add_path(index, order, path)

    def _add_path(self, search: int, order: int, path: bytes) -> None:
        components = split_path(path)
        first = next((at for at, component in enumerate(components) if is_glob(component)), None)
        head = b"/" + b"/".join(components[:first])
        if first is None:
            self._add_given(Root(search, order, b"", head))
            return
        use = GlobUse(search, path)
        self.globs.append(use)
        if self._is_withheld(search, head):
            return
        try:
            if not stat.S_ISDIR(os.stat(head).st_mode):  # noqa: PTH116  (a path of bytes)
                return
        except OSError:
            return
        self._expand(Root(search, order, self._follow(head, resolve(head)), head, use), components[first:])

    def _add_given(self, root: Root) -> None:
        """Add a path that is written out; `root.real` is still unknown."""
        if self._is_withheld(root.search, root.shown):
            return
        parent, _, name = root.shown.rpartition(b"/")
        if name in (b"", b".."):
            self._add_tree(root, root.shown)
            return
        real_parent = resolve(parent or b"/")
        entry = join(real_parent, name)
        is_typed = self._searches[root.search].is_typed
        try:
            is_link = stat.S_ISLNK(os.lstat(entry).st_mode)
            mode = self._mode(entry, is_typed=is_typed)
        except OSError as error:
            # Below a glob's last wildcard a missing name is no error: it just does not match there.
            if root.glob is None and root.shown not in self._missing:
                self._missing.add(root.shown)
                self._coverage.fail(root.shown, error)
            return
        if stat.S_ISDIR(mode):
            self._add_tree(root, entry)
        if is_typed or stat.S_ISREG(mode):
            if is_link and is_typed:
                self._say(root.shown, f"{path_text(root.shown)} is a link, and is looked at as one")
            elif is_link:
                self._follow(root.shown, resolve(entry))
            self._follow(parent or b"/", real_parent)
            self._add_file(root._replace(real=real_parent, shown=parent or b"/"), name)
        elif not stat.S_ISDIR(mode):
            self._coverage.skip("special-file")
            self._coverage.lose(root.shown, "is neither a file nor a directory")

    def _mode(self, entry: bytes, *, is_typed: bool) -> int:
        """Return the mode of what an entry leads to; with types, of a link that leads nowhere, its own."""
        try:
            return os.stat(entry).st_mode  # noqa: PTH116  (a path of bytes)
        except OSError:
            if not is_typed:
                raise
            return os.lstat(entry).st_mode

    def _expand(self, start: Root, components: List[bytes]) -> None:
        """Follow a glob down to the directories where only its last component, or `**`, is left."""
        pending = [(start, components)]
        while pending:
            self._check()
            root, rest = pending.pop()
            if not any(is_glob(component) for component in rest):
                self._add_given(root._replace(real=b"", shown=join(root.shown, b"/".join(rest))))
            elif rest[0] == _ANY_DEPTH or len(rest) == 1:
                self._add_pattern(root, tuple(rest))
            else:
                found = [
                    (self._below(root, name), rest[1:])
                    for name in sorted(self._directories(root, rest[0]))
                    if not self._is_withheld(root.search, join(root.real, name))
                ]
                pending.extend(reversed(found))

    def _is_withheld(self, search: int, path: bytes) -> bool:
        """Tell, before it is touched, whether a path leads to where a search does not look, or may not."""
        if self._is_elsewhere(search, path) or self._is_excluded(search, path):
            return True
        if self._fence.admits_path(resolve(path)):
            return False
        self._coverage.withhold(path)
        return True

    def _is_elsewhere(self, search: int, path: bytes) -> bool:
        if self._searches[search].remotefs:
            return False
        remote = self._mounts.remote_on_way(path)
        if remote is None:
            return False
        self._coverage.skip("remote-filesystem")
        self._say(remote.point, str(remote))
        return True

    def _is_excluded(self, search: int, path: bytes) -> bool:
        excludes = self._searches[search].excludes
        if excludes is None or not (excludes.has(path) or excludes.has(resolve(path))):
            return False
        self._coverage.skip("excluded")
        self._say(path, f"{path_text(path)}: is excluded by the search itself")
        return True

    def _say(self, path: bytes, text: str) -> None:
        if path not in self._said_bounds:
            self._said_bounds.add(path)
            self._coverage.note(text)

    def _below(self, root: Root, name: bytes) -> Root:
        return root._replace(real=resolve(join(root.real, name)), shown=join(root.shown, name))

    def _directories(self, root: Root, component: bytes) -> Iterator[bytes]:
        """Yield the names of the directories, and links to directories, that match one component."""
        glob = NameGlob(component)
        directory = root.real
        try:
            descriptor = open_directory(directory)
        except OSError as error:
            self._coverage.fail(directory, error)
            return
        try:
            if not self._fence.admits_way(descriptor):
                self._coverage.withhold(directory)
                return
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    self._check()
                    name = os.fsencode(entry.name)
                    if not glob.matches(name) or self._is_elsewhere(root.search, join(directory, name)):
                        continue
                    if entry.is_dir():
                        yield name
        except OSError as error:
            self._coverage.fail(directory, error)
        finally:
            os.close(descriptor)

    def _follow(self, shown: bytes, real: bytes) -> bytes:
        """Note, once, that a path leads elsewhere than it says."""
        if shown != real and self._said_links.get(shown) != real:
            self._said_links[shown] = real
            self._coverage.note(
                f"{path_text(shown)} leads through a link to {path_text(real)}, which was followed"
            )
        return real

    def _at(self, root: Root) -> DirectoryRoots:
        # A pattern has matched only when the walk says so; whatever else of a glob is added, has.
        if root.glob is not None:
            root.glob.has_matched = True
        return self.roots.setdefault(root.real, DirectoryRoots())

    def _add_tree(self, root: Root, entry: bytes) -> None:
        resolved = root._replace(real=self._follow(root.shown, resolve(entry)))
        trees = self._at(resolved).trees
        if not any(tree.search == root.search for tree in trees):
            trees.append(resolved)

    def _add_file(self, root: Root, name: bytes) -> None:
        holders = self._at(root).files.setdefault(name, [])
        if not any(holder.search == root.search for holder in holders):
            holders.append(root)

    def _add_pattern(self, root: Root, components: Tuple[bytes, ...]) -> None:
        if components not in self._tails:
            self._tails[components] = tuple(
                None if component == _ANY_DEPTH else NameGlob(component) for component in components
            )
        patterns = self.roots.setdefault(root.real, DirectoryRoots()).patterns
        tail = self._tails[components]
        twin = next(
            (known for known, other in patterns if known.search == root.search and other is tail), None
        )
        if twin is None:
            patterns.append((root, tail))
        elif root.glob is not None and twin.glob is not root.glob:
            root.glob.twin = twin.glob
