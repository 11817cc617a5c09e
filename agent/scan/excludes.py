"""What a search leaves out: globs on absolute paths, or on names.

A glob with a slash stands for a place, one without for every file or directory of that name; either leaves
out what it matches and all that is below. A walk asks of one directory after the other, each time of many
names: what is left of the globs in a directory is worked out once, from what was left of them in its parent.
"""

from collections import OrderedDict
from typing import Collection, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

from agent.scan.globs import NameGlob, is_glob, split_path

_ANY_DEPTH = b"**"
# Directories of which is remembered what is left of the globs: the last ones, their parents, and both under
# two names. Few, since paths may be long.
_REMEMBERED = 16

# One component of a glob: a name, a glob on names, or None for `**`, any number of directories.
_Component = Union[bytes, NameGlob, None]
# Components that are left to be matched.
_Rest = Tuple[_Component, ...]


class _Left(NamedTuple):
    """What is left of the globs in a directory, and what of its names they leave out."""

    states: FrozenSet[_Rest]
    names: FrozenSet[bytes]
    globs: Tuple[NameGlob, ...]

    def has(self, name: bytes) -> bool:
        return name in self.names or any(glob.matches(name) for glob in self.globs)


class Exclusions:
    """The exclusions of one search."""

    def __init__(self, globs: Sequence[str]) -> None:
        anywhere: List[_Component] = []
        places: List[_Rest] = []
        for glob in globs:
            written = glob.encode("utf-8", "surrogateescape")
            if written.startswith(b"/"):
                places.append(_components(written))
            else:
                anywhere.append(_component(written))
        self._anywhere = tuple(anywhere)
        # By directory; None where it is left out itself.
        self._known: OrderedDict[bytes, Optional[_Left]] = OrderedDict()
        self._top = self._make(_spread(places))

    def has(self, path: bytes) -> bool:
        """Tell whether a path, or a directory above it, is left out."""
        return self._inside(path) is None

    def has_name(self, directory: bytes, name: bytes) -> bool:
        """Tell whether a name in a directory is left out."""
        left = self._inside(directory)
        return left is None or left.has(name)

    def has_any(self, directory: bytes, names: Collection[bytes]) -> bool:
        """Tell whether any of these names in a directory is left out."""
        left = self._inside(directory)
        if left is None or (left.names and not left.names.isdisjoint(names)):
            return True
        return any(glob.matches(name) for glob in left.globs for name in names)

    def _inside(self, directory: bytes) -> Optional[_Left]:
        if directory in self._known:
            self._known.move_to_end(directory)
            return self._known[directory]
        parent, _, name = directory.rpartition(b"/")
        if parent in self._known and name:
            left = self._below(self._known[parent], name)
        else:
            left = self._top
            for component in split_path(directory):
                left = self._below(left, component)
        self._known[directory] = left
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return left

    def _below(self, left: Optional[_Left], name: bytes) -> Optional[_Left]:
        if left is None or left.has(name):
            return None
        return self._make(_spread(_advance(left.states, name)))

    def _make(self, states: FrozenSet[_Rest]) -> Optional[_Left]:
        if () in states:
            return None
        lasts = (*self._anywhere, *(rest[0] for rest in states if len(rest) == 1))
        return _Left(
            states,
            frozenset(last for last in lasts if isinstance(last, bytes)),
            tuple(last for last in lasts if isinstance(last, NameGlob)),
        )


def _component(text: bytes) -> _Component:
    return NameGlob(text) if is_glob(text) else text


def _components(glob: bytes) -> _Rest:
    parts = split_path(glob)
    if parts and parts[-1] == _ANY_DEPTH:
        # All that is below, at any depth: which is what `*` leaves out, too.
        parts.append(b"*")
    return tuple(None if part == _ANY_DEPTH else _component(part) for part in parts)


def _advance(states: Iterable[_Rest], name: bytes) -> List[_Rest]:
    advanced = []
    for rest in states:
        first = rest[0]
        if first is None:
            advanced.append(rest)
        elif first == name if isinstance(first, bytes) else first.matches(name):
            advanced.append(rest[1:])
    return advanced


def _spread(states: Iterable[_Rest]) -> FrozenSet[_Rest]:
    """Let every leading `**` stand for nothing, too."""
    found: Dict[_Rest, None] = {}
    for rest in states:
        found[rest] = None
        left = rest
        while left and left[0] is None:
            left = left[1:]
            found[left] = None
    return frozenset(found)
