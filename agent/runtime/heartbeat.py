"""Encodes what the agent says of itself once a minute. The decoder is `protocol.heartbeat`.

Standard library only: the resident agent imports this module.
"""

from datetime import datetime, timezone
from typing import Any, Dict, Mapping, Optional, Sequence

from agent.progress import Progress, RunningCommand
from agent.runtime.trust_state import IN_FORCE, TrustState
from protocol.audit import Head
from protocol.strictjson import encode_json

_FIELDS = ("name", "os", "arch", "ident", "version", "tags", "environment", "modules")
MAX_COMMANDS = 256
_BAKED = TrustState(0, None, IN_FORCE)


def format_time(time: datetime) -> str:
    """Format an aware time as RFC 3339 in UTC, with microseconds."""
    return time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def encode_heartbeat(
    facts: Mapping[str, Any],
    *,
    now: datetime,
    started: datetime,
    commands: Sequence[str],
    trust: TrustState = _BAKED,
    server_heads: Sequence[Head] = (),
    log_heads: Sequence[Head] = (),
    running: Optional[RunningCommand] = None,
    leaving: bool = False,
) -> bytes:
    """Return the payload of one heartbeat.

    Args:
        facts: as `agent.facts.collect_facts` returns them.
        now: the agent's own clock.
        started: when the resident agent started.
        commands: ids of the commands that stand in the journal unanswered; the first 256 are told.
        trust: the trust bundle that is held, until when, and whether anybody is obeyed by it.
        server_heads: heads of the server's audit log that this agent has seen.
        log_heads: what the agent repeats of its own log (`protocol.audit.Landmarks`), its head last.
        running: the command that runs.
        leaving: it is the last one: the agent removes itself.

    """
    fields = {name: facts[name] for name in _FIELDS}
    return encode_json(
        {
            **fields,
            "agent": facts["id"],
            "time": format_time(now),
            "started": format_time(started),
            "commands": list(commands[:MAX_COMMANDS]),
            "trust_version": trust.version,
            "trust_expires": None if trust.expires is None else format_time(trust.expires),
            "trust_state": trust.state,
            "server_heads": [list(head) for head in server_heads],
            "log_head": list(log_heads[-1]) if log_heads else None,
            "log_heads": [list(head) for head in log_heads[:-1]],
            # Left out where there is none: a server that does not know the member hears from idle agents.
            **({} if running is None else {"running": [_running_members(running)]}),
            **({"leaving": True} if leaving else {}),
        }
    )


def _running_members(running: RunningCommand) -> Dict[str, Any]:
    progress = running.progress or Progress(0, {})
    elapsed_s = round(running.elapsed_s, 3)
    return {"command": running.command_id, "elapsed_s": elapsed_s, **progress._asdict()}
