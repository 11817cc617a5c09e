"""What is active in a directory of the walk: searches and depths, what is left of globs, single files."""

from typing import AbstractSet, Dict, FrozenSet, Iterator, List, NamedTuple, Tuple

from agent.scan.roots import Root, Tail

Trees = Dict[int, Tuple[int, Root]]  # search -> depth of this directory's files, root
Patterns = List[Tuple[Root, Tail]]


class Scope(NamedTuple):
    """What is active in one directory; `begun` are the searches of which a path leads to it itself."""

    trees: Trees
    patterns: Patterns
    files: Dict[bytes, List[Root]]
    begun: FrozenSet[int] = frozenset()

    def is_empty(self) -> bool:
        """Tell whether nothing is wanted here."""
        return not (self.trees or self.patterns or self.files)

    def needs_listing(self) -> bool:
        """Tell whether names must be met, not only those that are given."""
        return bool(self.trees or self.patterns)

    def size(self) -> int:
        """Return how much is active below."""
        return len(self.trees) + len(self.patterns)

    def roots(self) -> Iterator[Root]:
        """Yield the roots of what is active below, some more than once."""
        for _, root in self.trees.values():
            yield root
        for root, _ in self.patterns:
            yield root

    def searches(self) -> Iterator[int]:
        """Yield the searches that are active here, some more than once."""
        yield from self.trees
        for root, _ in self.patterns:
            yield root.search
        for roots in self.files.values():
            for root in roots:
                yield root.search

    def without(self, searches: AbstractSet[int], *, but_at: bytes = b"") -> "Scope":
        """Return the scope without what these searches want, except what begins at a directory."""
        return self._replace(
            trees={
                search: entry
                for search, entry in self.trees.items()
                if search not in searches or (but_at and search in self.begun)
            },
            patterns=[
                (root, tail)
                for root, tail in self.patterns
                if root.search not in searches or (but_at and root.real == but_at)
            ],
        )
