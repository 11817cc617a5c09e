r"""Derives from an expression a text that every line it matches must hold, to be looked for first.

Where text is searched for a literal, most of it is jumped over; an automaton reads every byte. Rules:

* Only what is provably required is said; wherever the syntax (RE2's) leaves a doubt, nothing is, which costs
  speed and never an answer. An alternation outside a group, a flag, `\Q` or a character beyond ASCII end it.
* A repeated character counts as absent, since the least number of repetitions may be none.
* The text holds no line end, so that a line ending of two bytes cannot hide or fake it.

Source: RE2's syntax page (https://github.com/google/re2/wiki/Syntax).
"""

from collections import Counter
from typing import List, Sequence, Tuple

# A longer one is hardly rarer, and Python before 3.10 needs quadratic time for it in a file made for that.
MAX_LITERAL_BYTES = 32
_MIN_BYTES = 2
# So many texts are looked for one after the other; of more, an automaton reads no slower.
_MOST_LITERALS = 6
# What many literals have in common: as long as this, and of no more of them, or to find it takes long.
_COMMON_BYTES = range(3, 13)
_COMMON_AMONG = 256
_REPEATS = "*+?{"
# Bytes of programs, logs, code and prose, those first that are met most often; all others are met less.
_FREQUENT = (
    b"\x00 etaoinsrldhcum0123456789.pgfby:w/,v-k_=()\"'x[]*#jqz<>;TSACEIRDNPLMOFBUHGVWKYXJQZ"
    b"\xff\x01\x02\x03\x04\x08\x10\x8b"
)
_LEAST_PROBE_BYTES = 3
# Escapes that stand for one character of a class, or for none.
_CLASS_ESCAPES = "dDsSwWbB"
_NO_CHARACTER = ".^$*+?"


def required_literals(expression: str) -> Tuple[bytes, ...]:
    """Return texts of which every match holds one, one for each alternative; none where that is not known."""
    if not expression.isascii() or "\\Q" in expression:
        return ()
    branches: List[List[str]] = [[""]]
    at = 0
    while at < len(expression):
        character = expression[at]
        if character in ")\n\r":
            return ()
        if character == "|":
            branches.append([""])
            at += 1
            continue
        runs = branches[-1]
        if character in _REPEATS:
            runs[-1] = runs[-1][:-1]
        at, text = _next(expression, at)
        if not at:
            return ()
        if text:
            runs[-1] += text
        else:
            runs.append("")
    longest = [max(runs, key=len)[:MAX_LITERAL_BYTES].encode("ascii") for runs in branches]
    if len(longest) > _MOST_LITERALS or min(map(len, longest)) < _MIN_BYTES:
        return ()
    return tuple(longest)


def common_texts(literals: Sequence[bytes], most: int) -> Tuple[bytes, ...]:
    """Return at most `most` texts of which each literal holds one; nothing where there are none such."""
    chosen: List[bytes] = []
    left = list(literals)
    while left:
        if len(chosen) == most or len(left) > _COMMON_AMONG:
            return ()
        counts = Counter(part for literal in left for part in _parts(literal))
        if not counts:
            return ()
        best = max(counts, key=lambda part: (counts[part], len(part), part))
        chosen.append(best)
        left = [literal for literal in left if best not in literal]
    return tuple(chosen)


def probe_of(literal: bytes) -> bytes:
    """Return the part of a literal to look for: from its rarest byte on, since that is jumped to."""
    starts = range(max(1, len(literal) - _LEAST_PROBE_BYTES + 1))
    rarest = max(starts, key=lambda start: (_FREQUENT.find(literal[start]) % (len(_FREQUENT) + 1), -start))
    return literal[rarest:]


def _parts(literal: bytes) -> "set[bytes]":
    ends = range(len(literal) + 1)
    return {literal[end - size : end] for end in ends for size in _COMMON_BYTES if size <= end}


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
