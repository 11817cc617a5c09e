"""The database's part in finding a target's endpoints: a prefilter, never an answer.

Rules:
1. The condition is true at least for every row that `Target.matches`; the caller matches these in Python.
2. NOT is pushed down to the leaves, so that below there is only AND and OR, which keep rule 1. A leaf that
   this dialect does not judge exactly as Python does is loosened: to a wider one, or to TRUE.
3. Everything that comes from the target is a bound parameter.

Where dialects differ, and what is done: SQLite's LIKE ignores the case of ASCII letters (wider: fine, but NOT
LIKE is loosened), and PostgreSQL's ILIKE depends on the locale (here: `lower` in the C collation, all other
letters left open); order depends on the collation (C and BINARY are code point order); regular expressions
are other languages there (only NULL is excluded); SQLite's LIKE and `json_extract` stop at a NUL character
(such rows are let through), and its JSON paths know no escapes (only plain keys are looked up).
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from protocol.documents import AgentStatus
from protocol.target import Endpoint, Target
from protocol.target_like import Wildcard, fold, parse_like
from protocol.target_match import compile_node
from protocol.target_tree import (
    Always,
    And,
    Compare,
    Field,
    IsNull,
    Like,
    Node,
    Not,
    OneOf,
    Or,
    Regex,
    Seen,
    is_platform_only,
)
from server.rows import OFFLINE_S, ONLINE_S

Condition = sa.ColumnElement[bool]
Text = sa.ColumnElement[str]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.:-]+\Z")
_ESCAPE = "!"  # not the backslash, which PostgreSQL and its drivers may read twice
_SLACK = timedelta(seconds=1)  # above any rounding of a time that is stored
_NEGATED = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_COMPARISONS: dict[str, Callable[[Any, Any], Condition]] = {
    "=": lambda found, value: found == value,
    "<>": lambda found, value: found != value,
    "<": lambda found, value: found < value,
    "<=": lambda found, value: found <= value,
    ">": lambda found, value: found > value,
    ">=": lambda found, value: found >= value,
}


def prefilter(
    target: Target, table: sa.FromClause, dialect_name: str, now: datetime | None = None
) -> Condition:
    """Return a condition on `table` that is true at least for the rows that the target matches.

    Args:
        target: the target, with its platform-only terms.
        table: has the columns `id name os arch ident version` (text), `tags environment` (JSON, JSONB on
            PostgreSQL) and `heartbeattime` (UTC).
        dialect_name: `sqlite` or `postgresql`; anything else gets TRUE.
        now: the time that the rows' status is derived with, and that stands for NOW() (aware UTC); without it
            these terms are not used.

    """
    if dialect_name not in {"sqlite", "postgresql"}:
        return sa.true()
    builder = _Prefilter(table, dialect_name == "sqlite", now)
    condition = builder.on(target.tree, negated=False)
    return sa.or_(condition, *builder.cut_short.values())


class _Prefilter:
    def __init__(self, table: sa.FromClause, is_sqlite: bool, now: datetime | None) -> None:  # noqa: FBT001  (private)
        self._columns = table.c
        self._is_sqlite = is_sqlite
        self._now = now
        self.cut_short: dict[str, Condition] = {}
        """By column: rows of which SQLite reads a text only up to a NUL; they are all let through."""

    def on(self, node: Node, *, negated: bool) -> Condition:
        """Return a condition that is true at least where the node (or its negation) is."""
        if isinstance(node, Not):
            return self.on(node.term, negated=not negated)
        if isinstance(node, (And, Or)):
            terms = [self.on(term, negated=negated) for term in node.terms]
            return sa.and_(*terms) if isinstance(node, And) is not negated else sa.or_(*terms)
        if isinstance(node, Always):
            return sa.false() if negated else sa.true()
        if isinstance(node, Seen) or is_platform_only(node):
            return sa.true() if negated else self._on_platform(node)
        return self._on_text(node, negated=negated)

    def _on_text(self, leaf: Compare | Like | Regex | OneOf | IsNull, *, negated: bool) -> Condition:
        text = self._text(leaf.field)
        if text is None:
            return sa.true()
        if isinstance(leaf, IsNull):
            return text.is_(None) if leaf.negated is negated else text.is_not(None)
        self._note_cut_short(leaf)
        return self._on_found(leaf, text, negated=negated)

    def _on_found(self, leaf: Compare | Like | Regex | OneOf, text: Text, *, negated: bool) -> Condition:
        if isinstance(leaf, Compare):
            operator = _NEGATED[leaf.operator] if negated else leaf.operator
            ordered = text if operator in {"=", "<>"} else sa.collate(text, self._collation)
            return _COMPARISONS[operator](ordered, leaf.value)
        negated = leaf.negated is not negated
        if isinstance(leaf, OneOf):
            return text.not_in(leaf.values) if negated else text.in_(leaf.values)
        if isinstance(leaf, Regex) or negated:
            return text.is_not(None)
        compared = sa.func.lower(sa.collate(text, self._collation)) if leaf.ignore_case else text
        return compared.like(_like_pattern(leaf), escape=_ESCAPE)

    @property
    def _collation(self) -> str:
        return "BINARY" if self._is_sqlite else "C"

    def _text(self, field: Field) -> Text | None:
        """Return what a field is in this dialect, or None where that is not certain to be the same."""
        column = self._columns[field.column]
        if field.key is None:
            return column
        if self._is_sqlite:
            if not _PLAIN_KEY.match(field.key):
                return None
            return sa.func.json_extract(sa.type_coerce(column, sa.Text), f'$."{field.key}"', type_=sa.Text)
        # ->> on the type JSON fails on escapes that are not text; JSONB refused them when they were stored.
        dialect = sa.make_url("postgresql+psycopg://").get_dialect()()
        if isinstance(column.type.dialect_impl(dialect), postgresql.JSONB):
            return sa.func.jsonb_extract_path_text(column, field.key, type_=sa.Text)
        return None

    def _note_cut_short(self, leaf: Compare | Like | Regex | OneOf) -> None:
        name, is_json = leaf.field.column, leaf.field.key is not None
        if self._is_sqlite and (is_json or isinstance(leaf, Like)):
            nul = "\\u0000" if is_json else sa.func.char(0)
            self.cut_short[name] = sa.func.instr(sa.type_coerce(self._columns[name], sa.Text), nul) > 0

    def _on_platform(self, node: Node) -> Condition:
        seen = self._columns["heartbeattime"]
        if isinstance(node, IsNull) and node.field.column == "heartbeattime":
            return seen.is_not(None) if node.negated else seen.is_(None)
        if isinstance(node, Seen):
            return seen.is_not(None) if self._now is None else self._on_seen(node, self._now)
        statuses = {status for status in AgentStatus if _has_status(node, status)}
        if self._now is None or not statuses or statuses - {AgentStatus.ONLINE, AgentStatus.IDLE}:
            return sa.true()
        age_s = OFFLINE_S if AgentStatus.IDLE in statuses else ONLINE_S
        return seen >= self._now - timedelta(seconds=age_s) - _SLACK

    def _on_seen(self, leaf: Seen, now: datetime) -> Condition:
        seen = self._columns["heartbeattime"]
        bound = now - timedelta(seconds=leaf.age_s)
        conditions: list[Condition] = [seen.is_not(None)]
        if leaf.operator in {"<", "<=", "="}:
            conditions.append(seen <= bound + _SLACK)
        if leaf.operator in {">", ">=", "="}:
            conditions.append(seen >= bound - _SLACK)
        return sa.and_(*conditions)


def _has_status(node: Node, status: AgentStatus) -> bool:
    endpoint = Endpoint(
        id="", name="", os="", arch="", ident="", version="", tags={}, environment={}, status=status.value
    )
    return compile_node(node)(endpoint) is True


def _like_pattern(leaf: Like) -> str:
    """Return the pattern with our escape; for ILIKE, letters that `lower` does not fold stay open."""
    items = parse_like(fold(leaf.pattern) if leaf.ignore_case else leaf.pattern)
    written = []
    for item in items:
        if isinstance(item, Wildcard):
            written.append(item.value)
        elif leaf.ignore_case and not item.isascii():
            written.append(Wildcard.RUN.value)
        else:
            written.append(_ESCAPE + item if item in {"%", "_", _ESCAPE} else item)
    return "".join(written)
