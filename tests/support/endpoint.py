"""An endpoint for the tests: an agent that trusts given investigators, and signed actions for it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from agent.config import AgentLimits, Baked, decode_config
from protocol.envelope import ACTION, TRUST, Envelope, encode_envelope
from tests.support.gpg import Investigator

AGENT_ID = "0123456789abcdef0123456789abcdef"
FACTS: dict[str, Any] = {
    "id": AGENT_ID,
    "name": "web1.example.net",
    "os": "linux",
    "arch": "amd64",
    "ident": "Debian GNU/Linux 12 (bookworm)",
    "version": "1",
    "tags": {"operator": "it"},
    "environment": {"init": "systemd"},
    "modules": ["agentinfo", "file"],
}


def utc_now() -> datetime:
    """Return the real time."""
    return datetime.now(UTC)


def make_baked(
    investigators: Sequence[Investigator],
    *,
    limits: AgentLimits | None = None,
    roots: Sequence[Investigator] = (),
    **config: Any,
) -> Baked:
    """Return what an agent carries that lets any of these investigators run everything.

    `roots` may sign trust bundles; the table `trust` may say how many of them must.
    """
    weights = {investigator.fingerprint: 1 for investigator in investigators}
    table = {
        "relay": "amqp://127.0.0.1:5672/mig",
        "broker": "mig",
        "acl": {"default": {"minimum_weight": 1, "investigators": weights}},
        "limits": (limits or AgentLimits())._asdict(),
        **config,
        "trust": {"roots": [root.fingerprint for root in roots], **config.get("trust", {})},
    }
    decoded = decode_config(table)
    keys = tuple(investigator.public_key for investigator in investigators)
    return Baked(decoded, keys, "1", "test", decoded.acl, tuple(root.public_key for root in roots))


def make_bundle(
    version: int, /, *investigators: Investigator, expires_s: float = 3600, **changes: Any
) -> dict[str, Any]:
    """Return a trust bundle that lets any of these run everything, with some members changed."""
    now = utc_now()
    weights = {investigator.fingerprint: 1 for investigator in investigators}
    return {
        "version": version,
        "created": (now - timedelta(days=2)).isoformat(),
        "expires": (now + timedelta(seconds=expires_s)).isoformat(),
        "investigators": [
            {
                "fingerprint": investigator.fingerprint,
                "name": investigator.name,
                "certificate": investigator.public_key.decode("ascii"),
            }
            for investigator in investigators
        ],
        "acl": {"default": {"minimum_weight": 1, "investigators": weights}},
        "manage": [],
        **changes,
    }


def sign_bundle(bundle: dict[str, Any], *roots: Investigator) -> bytes:
    """Return the envelope of a trust bundle that each of these roots signed."""
    data = json.dumps(bundle).encode()
    return encode_envelope(
        Envelope(TRUST, data, tuple(root.sign(TRUST, data).signatures[0] for root in roots))
    )


def make_action(**changes: Any) -> dict[str, Any]:
    """Return a complete action for every endpoint, valid from a minute ago, with some members changed."""
    now = utc_now()
    action = {
        "id": f"018f0000-0000-7000-8000-{uuid4().hex[:12]}",
        "name": "What are you?",
        "target": "os = 'linux'",
        "validfrom": (now - timedelta(seconds=60)).isoformat(),
        "expireafter": (now + timedelta(minutes=5)).isoformat(),
        "operations": [{"module": "agentinfo", "parameters": {}}],
        "syntaxversion": 2,
        **changes,
    }
    return {name: value for name, value in action.items() if value is not None}


def sign_action(*signers: Investigator, payload: bytes | None = None, **changes: Any) -> bytes:
    """Return the envelope, as delivered, of an action that each of these investigators signed."""
    data = json.dumps(make_action(**changes)).encode() if payload is None else payload
    signatures = tuple(signer.sign(ACTION, data).signatures[0] for signer in signers)
    return encode_envelope(Envelope(ACTION, data, signatures))
