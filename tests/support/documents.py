"""Valid documents of every type, to be changed by tests, and hostile bytes of every kind."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st

from protocol.errors import InvalidInput

Decoded = TypeVar("Decoded")
ACTION_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
AGENT = "0123456789abcdef" * 2

ACTION: dict[str, Any] = {
    "id": ACTION_ID,
    "name": "a question",
    "target": "os = 'linux'",
    "validfrom": "2026-12-01T00:00:00Z",
    "expireafter": "2026-12-01T00:05:00Z",
    "operations": [{"module": "agentinfo", "parameters": {}}],
    "syntaxversion": 2,
}
HEARTBEAT: dict[str, Any] = {
    "agent": AGENT,
    "name": "web1.example.net",
    "os": "linux",
    "arch": "amd64",
    "ident": "Debian 12",
    "version": "0.1.0",
    "time": "2026-12-01T00:00:00Z",
    "started": "2026-11-01T00:00:00Z",
    "tags": {"operator": "it"},
    "environment": {"init": "systemd"},
    "modules": ["agentinfo"],
}
RESULT: dict[str, Any] = {
    "action": ACTION_ID,
    "action_sha256": "ab" * 32,
    "occurrence": "",
    "agent": AGENT,
    "started": "2026-12-01T00:00:00Z",
    "finished": "2026-12-01T00:00:01Z",
    "status": "done",
    "results": [{"found": True, "status": "ok", "records": [{"name": "x"}], "notes": [], "statistics": {}}],
}
# Times that a calendar knows and nobody can handle, and other spellings that are refused.
BAD_TIMES = [
    "2026-12-01T00:00:00+05:00",
    "2026-12-01T00:00:00",
    "2026-12-01",
    "0001-01-01T00:00:00+23:59",
    "1969-12-31T23:59:59Z",
    "3000-01-01T00:00:00Z",
    "9999-12-31T23:59:59-23:59",
    "2026-13-01T00:00:00Z",
    "",
    1796083200,
    None,
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def encode(value: Any) -> bytes:
    """Encode as `json` does, which is laxer than our own encoder: NaN and lone surrogates pass."""
    return json.dumps(value).encode()


def changed(document: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Make documents in which one or two members were replaced, added or taken away."""
    members = st.sampled_from(list(document)) | st.text(max_size=8)
    changes = st.dictionaries(members, json_values, max_size=2)
    removals = st.sets(st.sampled_from(list(document)), max_size=1)
    return st.builds(
        lambda new, gone: encode({k: v for k, v in {**document, **new}.items() if k not in gone}),
        changes,
        removals,
    )


def hostile(document: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Make bytes of every kind: random, JSON of any shape, and nearly right documents."""
    return st.one_of(st.binary(), json_values.map(encode), changed(document))


def decode_or_refuse(decode: Callable[[Any], Decoded], data: Any, *codes: str) -> Decoded | None:
    """Return what `data` decodes to; None where it is refused with one of the codes; else raise."""
    try:
        return decode(data)
    except InvalidInput as refusal:
        if refusal.code not in codes:
            raise
        return None
