"""Globs in the paths of a search, matched by our own linear matcher.

`*` is any run of characters within one name (hidden names included), `?` one character, `[a-z]` and `[!a-z]`
one of a class, `**` as a whole component any number of directories, none included. A character that is
special stands for itself inside brackets: `[*]`. Names are compared as text; bytes that are not UTF-8 count
as one character each.

The standard library's fnmatch is not used: it makes a backtracking expression of a pattern from an action.
"""

from typing import List, NamedTuple, Optional, Tuple, Union

_SPECIAL = frozenset(b"*?[")


class _CharacterClass(NamedTuple):
    ranges: Tuple[Tuple[str, str], ...]
    is_inverse: bool

    def has(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges) is not self.is_inverse


_ANY_RUN = "*"
_ANY_ONE = "?"


class _Literal(NamedTuple):
    character: str


_Token = Union[str, _Literal, _CharacterClass]


def is_glob(component: bytes) -> bool:
    """Tell whether a component of a path holds a character that is special in a glob."""
    return not _SPECIAL.isdisjoint(component)


def split_path(path: bytes) -> List[bytes]:
    """Return the components of an absolute path, without empty ones and without `.`."""
    return [component for component in path.split(b"/") if component not in (b"", b".")]


class NameGlob:
    """One component of a glob, made ready to be matched against names."""

    def __init__(self, component: bytes) -> None:
        self._tokens = _tokenise(component.decode("utf-8", "surrogateescape"))

    def matches(self, name: bytes) -> bool:
        """Tell whether a name matches; the time is bounded by its length times the glob's."""
        text = name.decode("utf-8", "surrogateescape")
        tokens = self._tokens
        at = position = 0
        star, retry = -1, 0
        while position < len(text):
            if at < len(tokens) and tokens[at] == _ANY_RUN:
                star, retry = at, position
                at += 1
            elif at < len(tokens) and _is_one(tokens[at], text[position]):
                at += 1
                position += 1
            elif star >= 0:
                # Only the last run is ever lengthened: an earlier one cannot help where this one cannot.
                retry += 1
                at, position = star + 1, retry
            else:
                return False
        return all(token == _ANY_RUN for token in tokens[at:])


def _is_one(token: _Token, character: str) -> bool:
    if isinstance(token, _CharacterClass):
        return token.has(character)
    if isinstance(token, _Literal):
        return token.character == character
    return token == _ANY_ONE


def _tokenise(text: str) -> Tuple[_Token, ...]:
    tokens: List[_Token] = []
    at = 0
    while at < len(text):
        character = text[at]
        if character == "[":
            parsed = _parse_class(text, at)
            if parsed is not None:
                token, at = parsed
                tokens.append(token)
                continue
        tokens.append(character if character in (_ANY_RUN, _ANY_ONE) else _Literal(character))
        at += 1
    return tuple(tokens)


def _parse_class(text: str, start: int) -> Optional[Tuple[_CharacterClass, int]]:
    """Parse `[...]` at `start`; without its closing bracket the opening one stands for itself (None)."""
    at = start + 1
    is_inverse = text[at : at + 1] in ("!", "^")
    at += is_inverse
    end = text.find("]", at + 1)
    if end < 0:
        return None
    ranges: List[Tuple[str, str]] = []
    while at < end:
        if text[at + 1 : at + 2] == "-" and at + 2 < end:
            ranges.append((text[at], text[at + 2]))
            at += 3
        else:
            ranges.append((text[at], text[at]))
            at += 1
    return _CharacterClass(tuple(ranges), is_inverse), end + 1
