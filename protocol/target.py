"""Targets: the signed condition that says which endpoints an action is for.

A target is a documented subset of an SQL condition (docs/targets.md, docs/adr/0003-target-language.md):
`os = 'linux' AND name LIKE 'web%'`. It is parsed once, to a tree that prints itself back and matches
endpoints. Matching here, in Python, is the only authority: on the endpoint (gate step 7) and on the platform,
where the database is only asked first for a superset (`server.target_sql`).

What only the platform knows, `status` and `heartbeattime`, may stand only as terms of the topmost AND. An
endpoint leaves such terms out (`Target.enforced`); there, they can only ever have narrowed.
"""

from typing import Optional

from protocol.target_match import Endpoint, Predicate, compile_node
from protocol.target_parse import parse_node
from protocol.target_tree import Always, And, Node, is_platform_only, print_node

__all__ = ["Endpoint", "Target", "parse_target", "upgrade_target"]


class Target:
    """A parsed target. `str()` writes it down so that it parses to an equal one."""

    __slots__ = ("_predicate", "tree")

    def __init__(self, tree: Node) -> None:
        self.tree = tree
        self._predicate: Optional[Predicate] = None

    def matches(self, endpoint: Endpoint) -> bool:
        """Tell whether the condition is true of the endpoint; unknown is not true."""
        if self._predicate is None:
            self._predicate = compile_node(self.tree)
        return self._predicate(endpoint) is True

    def enforced(self) -> "Target":
        """Return what endpoints enforce: the terms that only the platform can judge left out, else `TRUE`."""
        terms = self.tree.terms if isinstance(self.tree, And) else (self.tree,)
        kept = tuple(term for term in terms if not is_platform_only(term))
        if len(kept) > 1:
            return Target(And(terms=kept))
        return Target(kept[0] if kept else Always())

    def __str__(self) -> str:
        return print_node(self.tree)

    def __repr__(self) -> str:
        return f"Target({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Target) and self.tree == other.tree

    def __hash__(self) -> int:
        return hash(self.tree)


def parse_target(text: str) -> Target:
    """Parse a target as it stands in a signed action, or after `-t`.

    Raises:
        InvalidInput: `bad-target`, with what is wrong and at which character, counted from 1.

    """
    return Target(parse_node(text))


def upgrade_target(text: str) -> Target:
    """Parse a target, the ancestor's words too: `environment->>'os'`, `queueloc LIKE 'linux.%'`, `mode`.

    For clients, before signing, and for local runs; who receives an action calls `parse_target`, which knows
    none of these.

    Raises:
        InvalidInput: `bad-target`, as `parse_target`.

    """
    return Target(parse_node(text, ancestral=True))
