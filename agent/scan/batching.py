"""Makes batches of the names of a directory: which searches are active for which of them."""

import itertools
from typing import Callable, Collection, Dict, Iterator, NamedTuple, Optional, Sequence, Tuple

from agent.scan.batch import Batch
from agent.scan.bounds import Bounds
from agent.scan.coverage import Witness
from agent.scan.globs import NameGlob
from agent.scan.listing import Names
from agent.scan.plan import Plan
from agent.scan.roots import Root
from agent.scan.scope import Scope
from agent.scan.sieve import NameSieve, can_sift

BATCH_NAMES = 256
_MAX_SHAPES = 256


class _Shape(NamedTuple):
    """What follows from a scope: searches for all names, those for some, what sifts names for all of them."""

    base: Tuple[Root, ...]
    finals: Sequence[Tuple[Root, Optional[NameGlob]]]
    sieve: Optional[NameSieve]
    takes_all: bool


class Batcher:
    """Makes batches; names that no search wants are left out where all at once can be asked."""

    def __init__(self, plan: Plan, coverage: Witness, bounds: Bounds, check: Callable[[], None]) -> None:
        self._plan = plan
        self._coverage = coverage
        self._bounds = bounds
        self._check = check
        # By the id of a scope, which is kept with it.
        self._shapes: Dict[int, Tuple[Scope, _Shape]] = {}

    def batches(self, descriptor: int, path: bytes, entries: Names, scope: Scope) -> Iterator[Batch]:
        """Yield the batches of some names of a directory, in their order."""
        base, finals, sieve, _ = self._shape_of(scope)
        if not (base or scope.patterns or scope.files):
            return
        if base and not finals and not scope.files and not self._bounds.judge_names(base, path, entries):
            names: Collection[bytes] = entries.files
            if sieve is not None:
                # Names that no search wants are left out before anything is made of them.
                names = sieve.keep(entries.files)
                self._coverage.files_seen += len(entries.files) - len(names)
            if names or entries.kinds:
                batch = Batch(
                    descriptor,
                    path,
                    tuple(sorted((*names, *entries.kinds))),
                    entries.kinds,
                    base,
                    sieve is not None,
                )
                yield from self._cut(batch)
            return
        active = self._chooser(path, entries, scope, finals)
        for roots, group in itertools.groupby(sorted((*entries.files, *entries.kinds)), key=active):
            if roots:
                yield from self._cut(Batch(descriptor, path, tuple(group), entries.kinds, roots))

    def unlisted(self, descriptor: int, path: bytes, names: int, scope: Scope) -> Optional[Batch]:
        """Return a batch for about so many names of a directory; None where names must be judged first."""
        shape = self._shape_of(scope)
        if not shape.takes_all:
            return None
        return Batch(descriptor, path, (), {}, shape.base, unlisted=names)

    def _cut(self, batch: Batch) -> Iterator[Batch]:
        """Yield a batch in such as are not too large, which most are not."""
        names = batch.names
        if len(names) <= BATCH_NAMES:
            self._check()
            yield batch
            return
        for at in range(0, len(names), BATCH_NAMES):
            self._check()
            yield batch._replace(names=names[at : at + BATCH_NAMES])

    def _shape_of(self, scope: Scope) -> _Shape:
        """Return what is the same for all directories that share a scope."""
        known = self._shapes.get(id(scope))
        if known is not None and known[0] is scope:
            return known[1]
        base = tuple(scope.trees[search][1] for search in sorted(scope.trees))
        finals = [(root, tail[0]) for root, tail in scope.patterns if len(tail) == 1 and tail[0] is not None]
        chosen = [self._plan.searches[root.search] for root in base]
        sieve = NameSieve(chosen) if chosen and not finals and all(map(can_sift, chosen)) else None
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        is_plain = bool(base) and sieve is None and not (scope.patterns or scope.files)
        shape = _Shape(base, finals, sieve, is_plain and self._bounds.let_all_pass(scope))
        self._shapes[id(scope)] = (scope, shape)
        return shape

    def _chooser(
        self,
        path: bytes,
        entries: Names,
        scope: Scope,
        finals: Sequence[Tuple[Root, Optional[NameGlob]]],
    ) -> Callable[[bytes], Tuple[Root, ...]]:
        """Return what tells which searches are active for a name."""
        base = [scope.trees[search][1] for search in sorted(scope.trees)]

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

        return active
