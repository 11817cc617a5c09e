r"""Derives from an expression a text that every line it matches must hold, to be looked for first.

Python finds bytes in bytes several times faster than an automaton reads them. Rules:

* Only what is provably required is said; wherever the syntax (RE2's) leaves a doubt, nothing is, which costs
  speed and never an answer. An alternation outside a group, a flag, `\Q` or a character beyond ASCII end it.
* A repeated character counts as absent, since the least number of repetitions may be none.
* The text holds no line end, so that a line ending of two bytes cannot hide or fake it.

Source: RE2's syntax page (https://github.com/google/re2/wiki/Syntax).
"""

from typing import List, NamedTuple, Tuple

# What is looked for at most: the search for a longer one is quadratic before CPython 3.10, in a file that is
# made for it, and a longer one is hardly rarer.
MAX_LITERAL_BYTES = 32
_MIN_BYTES = 2
_REPEATS = "*+?{"
# Escapes that stand for one character of a class, or for none.
_CLASS_ESCAPES = "dDsSwWbB"
_NO_CHARACTER = ".^$*+?"


class Literal(NamedTuple):
    """A text that every matching line holds, empty where none is known; `is_all`: what holds it matches."""

    text: bytes = b""
    is_all: bool = False


def required_literal(expression: str) -> Literal:
    """Return the longest text that an expression surely requires."""
    if not expression.isascii() or "\\Q" in expression:
        return Literal()
    runs: List[str] = [""]
    at = 0
    while at < len(expression):
        character = expression[at]
        if character in "|)\n\r":
            return Literal()
        if character in _REPEATS:
            runs[-1] = runs[-1][:-1]
        at, text = _next(expression, at)
        if not at:
            return Literal()
        if text:
            runs[-1] += text
        else:
            runs.append("")
    return _best(runs)


def _next(expression: str, at: int) -> Tuple[int, str]:
    """Return where the next part begins, 0 in doubt, and the character that this one stands for, if any."""
    character = expression[at]
    if character == "(":
        return _after_group(expression, at), ""
    if character == "[":
        return _after_class(expression, at), ""
    if character == "{":
        return expression.find("}", at) + 1, ""
    if character == "\\":
        escaped = expression[at + 1 : at + 2]
        if escaped in _CLASS_ESCAPES:
            return at + 2, ""
        # \x41 and the like; of a line end, and of what stands last, RE2 may think otherwise.
        return (0 if escaped.isalnum() or escaped in "\n\r" else at + 2), escaped
    return at + 1, "" if character in _NO_CHARACTER else character


def _best(runs: List[str]) -> Literal:
    if len(runs) == 1 and 0 < len(runs[0]) <= MAX_LITERAL_BYTES:
        return Literal(runs[0].encode("ascii"), is_all=True)
    longest = max(runs, key=len)[:MAX_LITERAL_BYTES]
    return Literal(longest.encode("ascii")) if len(longest) >= _MIN_BYTES else Literal()


def _after_class(expression: str, at: int) -> int:
    """Return where the expression goes on after a character class; 0 in doubt."""
    at += 2 if expression.startswith("[^", at) else 1
    if expression.startswith("]", at):
        at += 1
    while at < len(expression):
        if expression[at] == "]":
            return at + 1
        if expression[at] == "\\":
            at += 2
        elif expression.startswith("[:", at):
            # [:alpha:]; where it is not closed, what follows is not read as RE2 does.
            at = expression.find(":]", at + 2) + 2
            if at == 1:
                return 0
        else:
            at += 1
    return 0


def _after_group(expression: str, at: int) -> int:
    """Return where the expression goes on after a group; 0 in doubt, such as where it sets a flag."""
    depth = 0
    while at < len(expression):
        character = expression[at]
        if character == "[":
            at = _after_class(expression, at)
            if not at:
                return 0
            continue
        if character == "\\":
            at += 2
            continue
        if character == "(":
            if expression.startswith("(?", at) and not expression.startswith(("(?:", "(?P<"), at):
                return 0
            depth += 1
        elif character == ")":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    return 0
