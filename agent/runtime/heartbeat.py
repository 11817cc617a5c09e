"""Encodes what the agent says of itself once a minute. The decoder is `protocol.heartbeat`.

Standard library only: the resident agent imports this module.
"""

from datetime import datetime, timezone
from typing import Any, Mapping, Optional, Sequence

from protocol.audit import NO_HEAD, Head
from protocol.strictjson import encode_json

_FIELDS = ("name", "os", "arch", "ident", "version", "tags", "environment", "modules")
MAX_COMMANDS = 256


def format_time(time: datetime) -> str:
    """Format an aware time as RFC 3339 in UTC, with microseconds."""
    return time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def encode_heartbeat(
    facts: Mapping[str, Any],
    *,
    now: datetime,
    started: datetime,
    commands: Sequence[str],
    trust_version: Optional[int] = None,
    server_heads: Sequence[Head] = (),
    log_head: Head = NO_HEAD,
) -> bytes:
    """Return the payload of one heartbeat.

    Args:
        facts: as `agent.facts.collect_facts` returns them.
        now: the agent's own clock.
        started: when the resident agent started.
        commands: ids of the commands that stand in the journal unanswered; the first 256 are told.
        trust_version: of the trust bundle in force, 0 for what was baked in; None where nobody is obeyed.
        server_heads: heads of the server's audit log that this agent has seen.
        log_head: the head of the agent's own log.

    """
    fields = {name: facts[name] for name in _FIELDS}
    return encode_json(
        {
            **fields,
            "agent": facts["id"],
            "time": format_time(now),
            "started": format_time(started),
            "commands": list(commands[:MAX_COMMANDS]),
            "trust_version": trust_version,
            "server_heads": [list(head) for head in server_heads],
            "log_head": list(log_head) if log_head.seq else None,
        }
    )
