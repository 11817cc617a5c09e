"""LIKE and ILIKE without backtracking.

`%` stands for any run of characters, `_` for exactly one, a backslash takes the next character as it is. The
whole value must match. ILIKE compares letters without case, one character at a time: by the simple lower case
of Unicode, where an ASCII letter never equals a letter outside ASCII (the Kelvin sign is not a `k`), so that
a database which folds ASCII only can still be asked first.
"""

from enum import Enum
from typing import Callable, Dict, List, Tuple, Union


class Wildcard(Enum):
    """The two wildcards of LIKE."""

    RUN = "%"
    ONE = "_"


LikeItem = Union[str, Wildcard]


def parse_like(pattern: str) -> Tuple[LikeItem, ...]:
    r"""Split a pattern into single characters and wildcards.

    Raises:
        ValueError: the pattern ends with its escape character, as in PostgreSQL.

    """
    items: List[LikeItem] = []
    characters = iter(pattern)
    for character in characters:
        if character == "\\":
            following = next(characters, None)
            if following is None:
                raise ValueError("the pattern ends with a backslash")
            items.append(following)
        elif character == "%":
            items.append(Wildcard.RUN)
        else:
            items.append(Wildcard.ONE if character == "_" else character)
    return tuple(items)


def _fold_character(character: str) -> str:
    lower = character.lower()
    return lower if len(lower) == 1 and (character.isascii() or not lower.isascii()) else character


def fold(text: str) -> str:
    """Return the text as ILIKE compares it: of the same length, character by character."""
    return text.lower() if text.isascii() else "".join(map(_fold_character, text))


def compile_like(pattern: str, *, ignore_case: bool) -> Callable[[str], bool]:
    """Compile a pattern to a test of one value, whose cost is bounded by pattern length times value length.

    Raises:
        ValueError: the pattern ends with its escape character.

    """
    items = parse_like(fold(pattern) if ignore_case else pattern)
    matches = _compile_bits(items) if Wildcard.ONE in items else _compile_pieces(items)
    return (lambda value: matches(fold(value))) if ignore_case else matches


def _compile_pieces(items: Tuple[LikeItem, ...]) -> Callable[[str], bool]:
    """Compile a pattern without `_`: fixed pieces that must follow one another."""
    pieces = [""]
    for item in items:
        if isinstance(item, Wildcard):
            pieces.append("")
        else:
            pieces[-1] += item
    if len(pieces) == 1:
        return pieces[0].__eq__
    first, *middle, last = pieces

    def matches(value: str) -> bool:
        if not value.startswith(first) or not value.endswith(last):
            return False
        start, end = len(first), len(value) - len(last)
        for piece in middle:
            found = value.find(piece, start, max(start, end))
            if found < 0:
                return False
            start = found + len(piece)
        return start <= end

    return matches


def _compile_bits(items: Tuple[LikeItem, ...]) -> Callable[[str], bool]:
    """Compile to a bit-parallel automaton: bit n of the state says that the first n characters have matched.

    This is Shift-And (Baeza-Yates and Gonnet 1992) with a loop at each `%`: one pass, a few operations on an
    integer for each character of the value.
    """
    length, loops, ones = 0, 0, 0
    accepted: Dict[str, int] = {}
    for item in items:
        if item is Wildcard.RUN:
            loops |= 1 << length
            continue
        length += 1
        if isinstance(item, str):
            accepted[item] = accepted.get(item, 0) | 1 << length
        else:
            ones |= 1 << length
    final = 1 << length

    def matches(value: str) -> bool:
        state = 1
        for character in value:
            state = ((state << 1) & (accepted.get(character, 0) | ones)) | (state & loops)
            if not state:
                return False
        return bool(state & final)

    return matches
