"""Strategies: targets and endpoints that often have something to do with each other."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from protocol.target import Endpoint, Target
from protocol.target_tree import (
    MAP_COLUMNS,
    TEXT_COLUMNS,
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

NOW = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
STATUSES = ("online", "idle", "offline", "pending", "revoked")
COMPARISONS = ("=", "<>", "<", "<=", ">", ">=")

# What quoting, LIKE, JSON paths, case folding and collations are known to stumble over.
NASTY = (
    "", "a", "A", "b", "ab", "aB", "web1", "WEB1", "web-01", "'", "''", "a'b", '"', "%", "%%", "_", "a_b",
    "axb", "\\", "\\\\", "a\\b", "\\%", "a%b", "!", "!%", "\n", "a\nb", "é", "É", "e\u0301", "ß", "ẞ", "ss",
    "İ", "i", "\u0131", "\u212a", "k", "K", "\u03c3", "ς", "Σ", "日本", "\U0001f600", "\ue000", "\ufffd",
    "$", "$.a", "a.b", "[0]", "{}", "null", "1", "01", "10", "9", " ", "a ", " a", "-- x",
    "; DROP TABLE agents", "?", ":a", "%s", "%(a)s", "linux", "Linux", "ops", "it",
)  # fmt: skip
KEYS = ("operator", "a", "A", "a.b", "a b", "a'b", 'a"b', "$", "$.a", "", "é", "0", "a\\b", "a/b")

_unicode = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
texts = st.one_of(st.sampled_from(NASTY), st.sampled_from(NASTY), _unicode)
# What an endpoint says may hold NUL too.
endpoint_texts = st.one_of(texts, texts, texts, st.builds("{}\0{}".format, texts, texts))
text_fields = st.one_of(
    st.sampled_from([column for column in TEXT_COLUMNS if column != "status"]).map(lambda c: Field(column=c)),
    st.builds(Field, column=st.sampled_from(MAP_COLUMNS), key=st.sampled_from(KEYS)),
)
_pieces = st.one_of(texts, st.sampled_from(["%", "_", "\\%", "\\_", "\\\\"]))
like_patterns = st.lists(_pieces, max_size=5).map("".join).filter(lambda p: not _ends_escaped(p))
regexes = st.sampled_from(["", "a", "^a", "b$", "^[a-z]+[0-9]*$", "é", "(?i)web", "\\.", "^.$", "\\bit\\b"])


def _ends_escaped(pattern: str) -> bool:
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1


def _leaves_on(fields: st.SearchStrategy[Field], values: st.SearchStrategy[str]) -> st.SearchStrategy[Node]:
    flag = st.booleans()
    return st.one_of(
        st.builds(Compare, field=fields, operator=st.sampled_from(COMPARISONS), value=values),
        st.builds(Like, field=fields, pattern=like_patterns, ignore_case=flag, negated=flag),
        st.builds(Regex, field=fields, pattern=regexes, ignore_case=flag, negated=flag),
        st.builds(
            OneOf, field=fields, values=st.lists(values, min_size=1, max_size=4).map(tuple), negated=flag
        ),
        st.builds(IsNull, field=fields, negated=flag),
    )


leaves = st.one_of(_leaves_on(text_fields, texts), st.just(Always()))
_ages = st.one_of(st.sampled_from([0, 1, 60, 150, 300, 1200, 3600, 86400]), st.integers(0, 10**6))
platform_leaves = st.one_of(
    _leaves_on(st.just(Field(column="status")), st.sampled_from(STATUSES)),
    st.builds(Seen, operator=st.sampled_from(COMPARISONS), age_s=_ages),
    st.builds(IsNull, field=st.just(Field(column="heartbeattime")), negated=st.booleans()),
)


def _join(kind: Any, terms: list[Node]) -> Node:
    flat: list[Node] = []
    for term in terms:
        flat.extend(term.terms if isinstance(term, kind) else (term,))
    joined: Node = kind(terms=tuple(flat))
    return joined


def _grow(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    several = st.lists(inner, min_size=2, max_size=4)
    return st.one_of(
        st.builds(lambda term: Not(term=term), inner),
        several.map(lambda terms: _join(And, terms)),
        several.map(lambda terms: _join(Or, terms)),
    )


conditions = st.recursive(leaves, _grow, max_leaves=8)
"""Trees without platform-only terms."""

trees = st.one_of(
    conditions,
    platform_leaves,
    st.lists(st.one_of(conditions, platform_leaves), min_size=2, max_size=4).map(lambda ts: _join(And, ts)),
)
"""Any tree that the parser could make."""

targets = trees.map(Target)

_maps = st.dictionaries(st.sampled_from(KEYS), endpoint_texts, max_size=4)


@st.composite
def endpoints(draw: st.DrawFn, *, with_nul: bool = True) -> Endpoint:
    """An endpoint as the platform knows it: its status agrees with its last heartbeat."""
    values = endpoint_texts if with_nul else texts
    maps = _maps if with_nul else st.dictionaries(st.sampled_from(KEYS), texts, max_size=4)
    age_s = draw(st.one_of(st.none(), st.sampled_from([-5, 0, 149.9, 150, 151, 1199.5, 1200, 10**6])))
    enrolment = draw(st.sampled_from(["enrolled", "enrolled", "pending", "revoked"]))
    if enrolment != "enrolled":
        status = enrolment
    elif age_s is None or age_s >= 1200:
        status = "offline"
    else:
        status = "online" if age_s < 150 else "idle"
    return Endpoint(
        **{column: draw(values) for column in TEXT_COLUMNS if column != "status"},
        tags=draw(maps),
        environment=draw(maps),
        status=status,
        heartbeattime=None if age_s is None else NOW - timedelta(seconds=age_s),
        now=NOW,
    )


WEB = Endpoint(
    id="0" * 32,
    name="web1.example.net",
    os="linux",
    arch="amd64",
    ident="Debian GNU/Linux 12",
    version="0.1.0",
    tags={"operator": "ops", "empty": "", "büro": "Köln"},
    environment={"init": "systemd", "it's": "100%"},
    status="online",
    heartbeattime=NOW - timedelta(seconds=100),
    now=NOW,
)
"""A web server with the facts that the tests ask for."""


def has_platform_terms(node: Node) -> bool:
    """Tell whether the topmost AND has a term that only the platform knows."""
    return any(map(is_platform_only, node.terms if isinstance(node, And) else (node,)))
