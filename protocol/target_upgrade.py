"""The ancestor's spellings in targets, rewritten by clients before signing.

MIG kept `os`, `arch` and `ident` in `environment`, told systems apart by the first part of an agent's queue
(`queueloc LIKE 'linux.%'`) and daemons from check-ins by `mode`. Its published actions name endpoints so.
"""

import re

import msgspec

from protocol.target_tree import Always, Compare, Field, Leaf, Like, Seen

ANCESTRAL_COLUMNS = ("queueloc", "mode")
_MOVED_KEYS = ("os", "arch", "ident")
_ONE_SYSTEM = re.compile(r"([a-z]+)\.%\Z")


def upgrade_leaf(leaf: Leaf) -> Leaf:
    """Return the condition in today's words; one that has none of the ancestor's comes back as it is.

    Raises:
        ValueError: there are no words for it today.

    """
    if isinstance(leaf, (Always, Seen)):
        return leaf
    field = leaf.field
    if field.column == "environment" and field.key in _MOVED_KEYS:
        return _move(leaf, Field(column=field.key))
    if field.column == "mode":
        if leaf == Compare(field=field, operator="=", value="daemon"):
            return Always()
        raise ValueError("only mode = 'daemon' has a meaning today")
    if field.column == "queueloc":
        system = _ONE_SYSTEM.match(leaf.pattern) if isinstance(leaf, Like) and not leaf.negated else None
        if system:
            return Compare(field=Field(column="os"), operator="=", value=system.group(1))
        raise ValueError("only queueloc LIKE 'system.%' has a meaning today")
    return leaf


def _move(leaf: Leaf, field: Field) -> Leaf:
    return msgspec.structs.replace(leaf, field=field)
