"""The target's tree: what a condition says, and how it is written down again.

A tree prints to text that parses to the same tree. AND and OR hold two terms or more, and never hold their
own kind; the parser sees to both, and so must who builds a tree by hand.
"""

from typing import Optional, Tuple, Union

import msgspec

TEXT_COLUMNS = ("id", "name", "os", "arch", "ident", "version", "status")
MAP_COLUMNS = ("tags", "environment")
PLATFORM_COLUMNS = ("status", "heartbeattime")  # known to the platform only; endpoints do not see them


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One value of an endpoint: a column of text, or one key of `tags` or `environment`."""

    column: str
    key: Optional[str] = None


class Always(msgspec.Struct, frozen=True, kw_only=True):
    """`TRUE`: every endpoint."""


class Compare(msgspec.Struct, frozen=True, kw_only=True):
    """`field = 'value'`; `operator` is one of `= <> < <= > >=`, by code point."""

    field: Field
    operator: str
    value: str


class Like(msgspec.Struct, frozen=True, kw_only=True):
    """`field [NOT] LIKE 'pattern'`, or ILIKE where `ignore_case`."""

    field: Field
    pattern: str
    ignore_case: bool = False
    negated: bool = False


class Regex(msgspec.Struct, frozen=True, kw_only=True):
    """`field ~ 'pattern'`, with `~*`, `!~` and `!~*` for `ignore_case` and `negated`."""

    field: Field
    pattern: str
    ignore_case: bool = False
    negated: bool = False


class OneOf(msgspec.Struct, frozen=True, kw_only=True):
    """`field [NOT] IN ('a', 'b')`."""

    field: Field
    values: Tuple[str, ...]
    negated: bool = False


class IsNull(msgspec.Struct, frozen=True, kw_only=True):
    """`field IS [NOT] NULL`; the field may be `heartbeattime`."""

    field: Field
    negated: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """`heartbeattime > NOW() - INTERVAL '5 minutes'`; `age_s` is the interval."""

    operator: str
    age_s: int


class Not(msgspec.Struct, frozen=True, kw_only=True):
    """`NOT term`."""

    term: "Node"


class And(msgspec.Struct, frozen=True, kw_only=True):
    """Terms joined by AND."""

    terms: Tuple["Node", ...]


class Or(msgspec.Struct, frozen=True, kw_only=True):
    """Terms joined by OR."""

    terms: Tuple["Node", ...]


Leaf = Union[Always, Compare, Like, Regex, OneOf, IsNull, Seen]
Node = Union[Leaf, Not, And, Or]

INTERVAL_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_PRINTED_UNITS = ("day", "hour", "minute", "second")


def is_platform_only(node: Node) -> bool:
    """Tell whether the node is a comparison of what only the platform knows."""
    if isinstance(node, Seen):
        return True
    return isinstance(node, (Compare, Like, Regex, OneOf, IsNull)) and node.field.column in PLATFORM_COLUMNS


def quote(text: str) -> str:
    """Return the text as a quoted string of the target language."""
    return "'" + text.replace("'", "''") + "'"


def _print_field(field: Field) -> str:
    return field.column if field.key is None else f"{field.column}->>{quote(field.key)}"


def _print_interval(age_s: int) -> str:
    unit = next(unit for unit in _PRINTED_UNITS if age_s % INTERVAL_UNITS[unit] == 0)
    count = age_s // INTERVAL_UNITS[unit]
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _print_leaf(leaf: Leaf) -> str:
    if isinstance(leaf, Always):
        return "TRUE"
    if isinstance(leaf, Seen):
        since = f" - INTERVAL '{_print_interval(leaf.age_s)}'" if leaf.age_s else ""
        return f"heartbeattime {leaf.operator} NOW(){since}"
    return f"{_print_field(leaf.field)} {_print_test(leaf)}"


def _print_test(leaf: Union[Compare, Like, Regex, OneOf, IsNull]) -> str:
    if isinstance(leaf, Compare):
        return f"{leaf.operator} {quote(leaf.value)}"
    if isinstance(leaf, Regex):
        operator = ("!~" if leaf.negated else "~") + ("*" if leaf.ignore_case else "")
        return f"{operator} {quote(leaf.pattern)}"
    negation = "NOT " if leaf.negated else ""
    if isinstance(leaf, IsNull):
        return f"IS {negation}NULL"
    if isinstance(leaf, OneOf):
        return f"{negation}IN ({', '.join(map(quote, leaf.values))})"
    return f"{negation}{'ILIKE' if leaf.ignore_case else 'LIKE'} {quote(leaf.pattern)}"


def print_node(node: Node) -> str:
    """Write the condition down, with parentheses only where they are needed."""
    if isinstance(node, Or):
        return " OR ".join(print_node(term) for term in node.terms)
    if isinstance(node, And):
        return " AND ".join(_print_inner(term, Or) for term in node.terms)
    if isinstance(node, Not):
        return f"NOT {_print_inner(node.term, (And, Or))}"
    return _print_leaf(node)


def _print_inner(node: Node, looser: Union[type, Tuple[type, ...]]) -> str:
    text = print_node(node)
    return f"({text})" if isinstance(node, looser) else text
