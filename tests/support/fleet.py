"""Agents that exist in the store only, with real keys, and documents that they and investigators make."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.action import Action, Operation, encode_action
from protocol.documents import Pacing
from protocol.envelope import ACTION, ALERT, HEARTBEAT, RESULT, Envelope, Signature, encode_envelope
from protocol.heartbeat import Heartbeat
from protocol.identity import agent_id, sign_envelope
from protocol.names import command_id
from protocol.result import Result, decode_result
from server.checking import facts_of
from server.rows import Manner, ReceivedAlert, ReceivedResult
from server.store import Store

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
ADA = "A" * 40


class FleetAgent:
    """An agent that is enrolled and has sent one heartbeat."""

    def __init__(
        self, store: Store, name: str = "web1", *, now: datetime = NOW, policy: Any = "open"
    ) -> None:
        self.name = name
        self.key = Ed25519PrivateKey.generate()
        self.public_key = self.key.public_key().public_bytes_raw()
        self.id = agent_id(self.public_key)
        store.enrol_agent(self.id, self.public_key, policy, now)
        store.save_heartbeat(self.heartbeat(now), now)

    def heartbeat(self, time: datetime = NOW, **changed: Any) -> Heartbeat:
        """Return a heartbeat, with the members that the test names."""
        members: dict[str, Any] = {
            "agent": self.id,
            "name": self.name,
            "os": "linux",
            "arch": "amd64",
            "ident": "Debian 12",
            "version": "0.1.0",
            "time": time,
            "started": time,
            "tags": {"operator": "it"},
            "environment": {"init": "systemd"},
            "modules": ("agentinfo", "file"),
        }
        return Heartbeat(**{**members, **changed})

    def signed(self, heartbeat: Heartbeat) -> bytes:
        """Return a heartbeat's envelope."""
        return encode_envelope(sign_envelope(self.key, HEARTBEAT, msgspec.json.encode(heartbeat)))

    def alert(self, seq: int = 1, **changed: Any) -> ReceivedAlert:
        """Return a signed alert, with the members that the test names."""
        members: dict[str, Any] = {
            "agent": self.id,
            "seq": seq,
            "time": NOW.isoformat(),
            "module": "fswatch",
            "kind": "changed",
            "severity": "critical",
            "count": 1,
            "first": NOW.isoformat(),
            "last": NOW.isoformat(),
            "record": {"path": "/etc/passwd"},
            **changed,
        }
        envelope = sign_envelope(self.key, ALERT, json.dumps(members).encode())
        return ReceivedAlert(
            agent_id=self.id,
            digest=envelope.digest,
            module=members["module"],
            severity=members["severity"],
            envelope=encode_envelope(envelope),
        )

    def command(self, action: Action) -> str:
        """Return the id of this agent's command of an action."""
        return command_id(action.id, self.id, "")

    def answer(self, action: Action, **changed: Any) -> ReceivedResult:
        """Return a signed answer to an action."""
        members: dict[str, Any] = {
            "action": action.id,
            "action_sha256": digest(action),
            "occurrence": "",
            "agent": self.id,
            "started": NOW.isoformat(),
            "finished": NOW.isoformat(),
            "status": "done",
            "results": [{"found": True, "status": "ok", "records": [{"path": "/etc/passwd"}]}],
        }
        payload = json.dumps({**members, **changed}).encode()
        result: Result = decode_result(payload)
        envelope = sign_envelope(self.key, RESULT, payload)
        return ReceivedResult(
            agent_id=self.id,
            envelope_bytes=encode_envelope(envelope),
            digest=envelope.digest,
            facts=facts_of(result),
        )


def make_action(
    *, name: str = "look", target: str = "os = 'linux'", now: datetime = NOW, minutes: int = 5
) -> Action:
    """Return a complete action."""
    return Action(
        id=str(uuid.uuid4()),
        name=name,
        target=target,
        validfrom=now - timedelta(minutes=1),
        expireafter=now + timedelta(minutes=minutes),
        operations=(Operation(module="agentinfo", parameters={}),),
        syntaxversion=2,
    )


def unsigned(action: Action, *signers: str) -> Envelope:
    """Return an envelope as the store keeps it; the store checks no signature."""
    return Envelope(
        ACTION, encode_action(action), tuple(Signature(signer, b"sig") for signer in signers or (ADA,))
    )


def digest(action: Action) -> str:
    """Return the digest of an action's payload."""
    return unsigned(action).digest


def create(
    store: Store,
    action: Action,
    *agents: FleetAgent,
    signers: tuple[str, ...] = (ADA,),
    now: datetime = NOW,
    pacing: Pacing | None = None,
) -> Any:
    """Store an action for these agents."""
    envelope = encode_envelope(unsigned(action, *signers))
    ids = [agent.id for agent in agents]
    manner = Manner(pacing=pacing)
    return store.create_action(action, envelope, digest(action), signers, signers[0], ids, now, manner=manner)


def states(store: Store, action: Action) -> dict[str, str]:
    """Return the roster as the agents' names and states."""
    return {row.agent_name: row.state.value for row in store.list_commands(action.id)}
