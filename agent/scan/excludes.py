"""What a search leaves out: globs on absolute paths, or on names.

A glob with a slash stands for a place, one without for every file or directory of that name; either leaves
out what it matches and all that is below. What the globs of a search can leave out inside one directory is
worked out once for the directory, so that a name costs next to nothing where none of them reaches.
"""

from typing import Dict, FrozenSet, Iterable, Iterator, List, Optional, Sequence, Tuple

from agent.scan.globs import NameGlob, split_path

_ANY_DEPTH = b"**"
# A walk asks of one directory, under two names at most, until it goes on to the next.
_REMEMBERED = 16

# Components that are left to be matched; None is `**`, any number of directories.
_Rest = Tuple[Optional[NameGlob], ...]
_Names = Tuple[NameGlob, ...]


class Exclusions:
    """The exclusions of one search."""

    def __init__(self, globs: Sequence[str]) -> None:
        names: List[NameGlob] = []
        paths: List[_Rest] = []
        for glob in globs:
            written = glob.encode("utf-8", "surrogateescape")
            if written.startswith(b"/"):
                paths.append(_components(written))
            else:
                names.append(NameGlob(written))
        self._names = tuple(names)
        self._paths = _spread(paths)
        self._known: Dict[bytes, Optional[_Names]] = {}

    def has(self, path: bytes) -> bool:
        """Tell whether a path, or a directory above it, is left out."""
        return self._inside(path) is None

    def has_name(self, directory: bytes, name: bytes) -> bool:
        """Tell whether a name in a directory is left out."""
        globs = self._inside(directory)
        return globs is None or any(glob.matches(name) for glob in globs)

    def _inside(self, directory: bytes) -> Optional[_Names]:
        """Return what a name in a directory must not match; None where the directory is left out itself."""
        if directory not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[directory] = self._follow(directory)
        return self._known[directory]

    def _follow(self, directory: bytes) -> Optional[_Names]:
        states = self._paths
        for name in split_path(directory):
            if () in states or any(glob.matches(name) for glob in self._names):
                return None
            states = _spread(_advance(states, name))
        if () in states:
            return None
        return (*self._names, *(rest[0] for rest in states if len(rest) == 1 and rest[0] is not None))


def _components(glob: bytes) -> _Rest:
    parts = split_path(glob)
    if parts and parts[-1] == _ANY_DEPTH:
        # All that is below, at any depth: which is what `*` leaves out, too.
        parts.append(b"*")
    return tuple(None if part == _ANY_DEPTH else NameGlob(part) for part in parts)


def _advance(states: FrozenSet[_Rest], name: bytes) -> Iterator[_Rest]:
    for rest in states:
        glob = rest[0]
        if glob is None:
            yield rest
        elif glob.matches(name):
            yield rest[1:]


def _spread(states: Iterable[_Rest]) -> FrozenSet[_Rest]:
    """Let every leading `**` stand for nothing, too."""
    found = set()
    for rest in states:
        found.add(rest)
        left = rest
        while left and left[0] is None:
            left = left[1:]
            found.add(left)
    return frozenset(found)
