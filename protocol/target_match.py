"""Matching one endpoint: the only authority on whom a target means.

Rules:
1. SQL's three-valued logic. A tag that an endpoint does not have is NULL; comparing NULL with anything is
   unknown (`None` here), NOT unknown is unknown; an endpoint matches only where the whole is true.
2. Text compares by code point, so the same way on every system, whatever its locale.
3. Regular expressions are RE2's: linear time, unanchored search. They never meet `re`. RE2 is imported by the
   first target that needs it.
4. Any text of an endpoint gives an answer, text that is not Unicode (lone surrogates) too.
"""

import operator
from datetime import datetime, timedelta
from typing import Any, Callable, Dict, List, Optional, Union

import msgspec

from protocol.target_like import compile_like
from protocol.target_tree import (
    Always,
    And,
    Compare,
    Field,
    IsNull,
    Leaf,
    Like,
    Node,
    Not,
    OneOf,
    Regex,
    Seen,
)

REGEX_MEMORY_BYTES = 1 << 20  # of each compiled expression; RE2 allows 8 MiB unless told


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a target is matched with.

    `status`, `heartbeattime` and `now` (aware UTC times) are known to the platform only.
    """

    id: str
    name: str
    os: str
    arch: str
    ident: str
    version: str
    tags: Dict[str, str]
    environment: Dict[str, str]
    status: Optional[str] = None
    heartbeattime: Optional[datetime] = None
    now: Optional[datetime] = None


Truth = Optional[bool]
Predicate = Callable[[Endpoint], Truth]
Reader = Callable[[Endpoint], Optional[str]]

_COMPARISONS: Dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compile_node(node: Node) -> Predicate:
    """Compile a tree to a function of an endpoint that says true, false or unknown (None)."""
    if isinstance(node, Not):
        return _compile_not(compile_node(node.term))
    if isinstance(node, And):
        return _compile_joined([compile_node(term) for term in node.terms], decisive=False)
    if isinstance(node, (Always, Compare, Like, Regex, OneOf, IsNull, Seen)):
        return _compile_leaf(node)
    return _compile_joined([compile_node(term) for term in node.terms], decisive=True)


def _compile_not(inner: Predicate) -> Predicate:
    def negate(endpoint: Endpoint) -> Truth:
        truth = inner(endpoint)
        return None if truth is None else not truth

    return negate


def _compile_joined(terms: List[Predicate], *, decisive: bool) -> Predicate:
    """Join by AND (one false decides) or by OR (one true decides); else one unknown makes it unknown."""

    def join(endpoint: Endpoint) -> Truth:
        result: Truth = not decisive
        for term in terms:
            truth = term(endpoint)
            if truth is decisive:
                return decisive
            if truth is None:
                result = None
        return result

    return join


def _compile_leaf(leaf: Leaf) -> Predicate:
    if isinstance(leaf, Always):
        return lambda _endpoint: True
    if isinstance(leaf, Seen):
        return _compile_seen(leaf)
    if isinstance(leaf, IsNull):
        read, negated = _reader(leaf.field), leaf.negated
        return lambda endpoint: (read(endpoint) is None) is not negated
    return _compile_test(leaf.field, _text_test(leaf), negated=not isinstance(leaf, Compare) and leaf.negated)


def _text_test(leaf: Union[Compare, Like, Regex, OneOf]) -> Callable[[str], bool]:
    """Compile what is asked of a text that is there, negation left out."""
    if isinstance(leaf, Compare):
        compare, value = _COMPARISONS[leaf.operator], leaf.value
        return lambda found: compare(found, value)
    if isinstance(leaf, OneOf):
        return frozenset(leaf.values).__contains__
    if isinstance(leaf, Regex):
        return compile_regex(leaf.pattern, ignore_case=leaf.ignore_case)
    return compile_like(leaf.pattern, ignore_case=leaf.ignore_case)


def _compile_test(field: Field, test: Callable[[str], bool], *, negated: bool) -> Predicate:
    read = _reader(field)

    def predicate(endpoint: Endpoint) -> Truth:
        found = read(endpoint)
        return None if found is None else test(found) is not negated

    return predicate


def _reader(field: Field) -> Reader:
    column, key = field.column, field.key
    if key is None:
        return operator.attrgetter(column)
    return lambda endpoint: getattr(endpoint, column).get(key)


def _compile_seen(leaf: Seen) -> Predicate:
    compare, age = _COMPARISONS[leaf.operator], timedelta(seconds=leaf.age_s)

    def predicate(endpoint: Endpoint) -> Truth:
        if endpoint.heartbeattime is None or endpoint.now is None:
            return None
        # The difference of two times cannot overflow, as taking the interval from the time now could.
        return compare(endpoint.heartbeattime - endpoint.now, -age)

    return predicate


def compile_regex(pattern: str, *, ignore_case: bool) -> Callable[[str], bool]:
    """Compile an RE2 expression to a test of one value.

    Raises:
        ValueError: RE2 is not installed here, or does not take the pattern; with what it says.

    """
    try:
        import re2  # noqa: PLC0415  (most targets do without it, and a child that starts pays for each import)
    except ImportError:
        raise ValueError("regular expressions need google-re2, which is not installed here") from None
    options = re2.Options()
    options.max_mem = REGEX_MEMORY_BYTES
    options.case_sensitive = not ignore_case
    options.never_capture = True
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else b""
        problem = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ValueError(f"RE2 does not take the pattern: {problem!r}") from None
    # RE2 raises on text that does not encode, and an endpoint may say anything.
    return lambda value: compiled.search(value.encode("utf-8", "replace")) is not None
