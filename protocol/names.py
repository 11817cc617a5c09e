"""Names of exchanges, queues and routing keys, and identifiers' shapes. Standard library only."""

import hashlib
import re

COMMANDS_EXCHANGE = "mig.commands"  # direct; routing key: the agent's id
AGENTS_EXCHANGE = "mig.agents"  # topic; `heartbeat.<id>`, `result.<id>` and `alert.<id>`
RESULTS_QUEUE = "mig.results"
HEARTBEATS_QUEUE = "mig.heartbeats"
ALERTS_QUEUE = "mig.alerts"
SERVERS_EXCHANGE = "mig.servers"  # fanout; what servers tell each other
DEAD_EXCHANGE = "mig.dead"
DEAD_QUEUE = "mig.dead"

AGENT_ID = re.compile(r"[0-9a-f]{32}\Z")
FINGERPRINT = re.compile(r"[0-9A-F]{40}\Z")
DIGEST = re.compile(r"[0-9a-f]{64}\Z")
OCCURRENCE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
TOKEN_SHAPE = re.compile(r"mig-token-[A-Za-z0-9_-]{43}\Z")
ACTION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def agent_queue(agent_id: str) -> str:
    """Return the name of the queue that holds one agent's commands."""
    return f"mig.agent.{agent_id}"


def server_queue(name: str) -> str:
    """Return the name of the queue in which one running server hears of the others."""
    return f"mig.server.{name}"


def heartbeat_key(agent_id: str) -> str:
    """Return the routing key of one agent's heartbeats."""
    return f"heartbeat.{agent_id}"


def result_key(agent_id: str) -> str:
    """Return the routing key of one agent's answers."""
    return f"result.{agent_id}"


def alert_key(agent_id: str) -> str:
    """Return the routing key of one agent's alerts."""
    return f"alert.{agent_id}"


def is_agent_id(text: str) -> bool:
    """Tell whether `text` has the shape of an agent's id: 32 lower-case hex digits."""
    return AGENT_ID.match(text) is not None


def is_fingerprint(text: str) -> bool:
    """Tell whether `text` has the shape of a v4 OpenPGP fingerprint: 40 upper-case hex digits."""
    return FINGERPRINT.match(text) is not None


def is_occurrence(text: str) -> bool:
    """Tell whether `text` has the shape of an occurrence's id: RFC 3339, whole seconds, UTC."""
    return OCCURRENCE.match(text) is not None


def command_id(action_id: str, agent_id: str, occurrence: str) -> str:
    """Return a command's id: the first 32 hex digits of SHA-256 over action, agent and occurrence.

    The parts are joined by a newline, which none of them can hold.
    """
    return hashlib.sha256(f"{action_id}\n{agent_id}\n{occurrence}".encode()).hexdigest()[:32]
