"""Where the searches of a walk end: what they exclude, file systems that they do not enter, types of entries.

Each search has bounds of its own. A directory that one leaves out is still walked for the others, and a name
that one does not see is seen by them. What was left out is counted, and file systems are named, once each.
"""

from typing import Optional, Sequence, Set, Tuple

from agent.scan.batch import ENTRY
from agent.scan.coverage import Witness
from agent.scan.listing import Names
from agent.scan.mounts import Mounts, Remote
from agent.scan.plan import Plan
from agent.scan.roots import Root, join
from agent.scan.scope import Scope
from agent.scan.texts import path_text


class Bounds:
    """The bounds of all searches of a plan."""

    def __init__(self, plan: Plan, coverage: Witness, mounts: Mounts) -> None:
        self._coverage = coverage
        self._mounts = mounts
        searches = tuple(enumerate(plan.searches))
        self._all = frozenset(index for index, _ in searches)
        self._excludes = {index: search.excludes for index, search in searches if search.excludes is not None}
        self._local = frozenset(index for index, search in searches if not search.remotefs)
        self._staying = frozenset(index for index, search in searches if search.onefilesystem)
        self._typed = frozenset(index for index, search in searches if search.is_typed)
        self._fileless = frozenset(index for index, search in searches if search.wants_no_files)
        self._said: Set[bytes] = set()

    # -- directories -------------------------------------------------------------------------------------

    def concern(self, name: bytes) -> bool:
        """Tell whether `below` must be asked of a subdirectory of this name."""
        return bool(self._excludes) or self._mounts.is_remote_name(name)

    def below(self, scope: Scope, directory: bytes, name: bytes) -> Scope:
        """Return what is active in a subdirectory, before it is touched."""
        path = join(directory, name)
        # What begins here was judged by its own path (`agent.scan.roots`).
        from_above = [root for root in scope.roots() if root.real != path]
        leaving = {root.search for root in from_above if self._is_excluded(root, directory, name)}
        if leaving:
            self._coverage.skip("excluded")
            scope = scope.without(leaving)
        remote = self._mounts.remote_at(directory, name)
        if remote is not None and not self._local.isdisjoint(scope.searches()):
            self._leave_alone(remote)
            scope = scope.without(self._local)
        return scope

    def across(self, scope: Scope, path: bytes, device: int) -> Scope:
        """Return what is active in a subdirectory that lies on another device than its parent."""
        kept = scope
        pseudo, remote = self._mounts.pseudo_type(device), self._mounts.remote_type(device)
        if pseudo is not None:
            kept = scope.without(self._all, but_at=path)
            if kept.size() < scope.size():
                self._coverage.skip("pseudo-filesystem")
                self._say(path, f"{path_text(path)}: {pseudo} is not searched from above")
        elif remote is not None and not self._local.isdisjoint(scope.searches()):
            # Mounted since the table was read: known only now.
            self._leave_alone(Remote(path, remote))
            kept = scope.without(self._local)
        staying = kept.without(self._staying, but_at=path) if self._staying else kept
        if staying.size() < kept.size():
            self._coverage.skip("other-filesystem")
            self._say(path, f"{path_text(path)}: another file system, not entered with onefilesystem")
        return staying

    # -- names -------------------------------------------------------------------------------------------

    def has_typed(self, scope: Scope) -> bool:
        """Tell whether a search that asks for types is active."""
        return bool(self._typed) and not self._typed.isdisjoint(scope.searches())

    def for_files(self, scope: Scope) -> Scope:
        """Return what of a scope may want regular files: no others need to be told which files there are."""
        if self._fileless.isdisjoint(scope.trees):
            return scope
        # What is left of globs stays: that a name matches is to be known.
        trees = {search: entry for search, entry in scope.trees.items() if search not in self._fileless}
        return scope._replace(trees=trees)

    def has_untyped(self, scope: Scope) -> bool:
        """Tell whether a search that wants files only is active."""
        return not self._typed or not self._typed.issuperset(scope.searches())

    def let_all_pass(self, scope: Scope) -> bool:
        """Tell whether no name of any directory with this scope needs to be judged here, unseen."""
        searches = set(scope.trees)
        return (
            searches.isdisjoint(self._excludes)
            and searches.isdisjoint(self._typed)
            and searches.isdisjoint(self._fileless)
            and (searches.isdisjoint(self._local) or not self._mounts.has_remote())
        )

    def judge_names(self, roots: Sequence[Root], directory: bytes, entries: Names) -> bool:
        """Tell whether `seen` must be asked of each name of a directory: most have nothing to leave out."""
        if entries.kinds and self._typed:
            return True
        for root in roots:
            excludes = self._excludes.get(root.search)
            if excludes is None:
                continue
            for shown in dict.fromkeys((directory, root.show(directory))):
                if excludes.has_any(shown, entries.files) or excludes.has_any(shown, entries.kinds):
                    return True
        if not self._mounts.has_remote() or all(root.search not in self._local for root in roots):
            return False
        return any(self._remote(directory, name, kind) is not None for name, kind in entries.kinds.items())

    def seen(
        self, roots: Tuple[Root, ...], directory: bytes, name: bytes, kind: Optional[str]
    ) -> Tuple[Root, ...]:
        """Return those of the active searches that are to look at a name of a directory."""
        if kind is not None:
            roots = tuple(root for root in roots if (root.search in self._typed) is (kind == ENTRY))
            roots = self._within_reach(roots, directory, name, kind)
        if roots and self._excludes:
            kept = tuple(root for root in roots if not self._is_excluded(root, directory, name))
            if len(kept) < len(roots):
                self._coverage.skip("excluded")
            return kept
        return roots

    def _within_reach(
        self, roots: Tuple[Root, ...], directory: bytes, name: bytes, kind: str
    ) -> Tuple[Root, ...]:
        """Keep off what an entry or a link would have us touch elsewhere."""
        if not self._mounts.has_remote() or all(root.search not in self._local for root in roots):
            return roots
        remote = self._remote(directory, name, kind)
        if remote is None:
            return roots
        self._leave_alone(remote)
        return tuple(root for root in roots if root.search not in self._local)

    def _remote(self, directory: bytes, name: bytes, kind: str) -> Optional[Remote]:
        """Return where an entry, or a link, leads that is elsewhere."""
        if kind == ENTRY:
            return self._mounts.remote_at(directory, name)
        return self._mounts.remote_on_way(join(directory, name))

    def _is_excluded(self, root: Root, directory: bytes, name: bytes) -> bool:
        excludes = self._excludes.get(root.search)
        if excludes is None:
            return False
        shown = root.show(directory)
        return excludes.has_name(directory, name) or (shown != directory and excludes.has_name(shown, name))

    def _leave_alone(self, remote: Remote) -> None:
        self._coverage.skip("remote-filesystem")
        self._say(remote.point, str(remote))

    def _say(self, point: bytes, text: str) -> None:
        if point not in self._said:
            self._said.add(point)
            self._coverage.note(text)
