"""Reads the signed heartbeats in which agents name heads: of the server's audit log, and of their own.

Whoever audits verifies each with the agent's key, whose hash is the agent's id; the server only keeps them.
"""

from protocol.envelope import HEARTBEAT, decode_envelope
from protocol.errors import InvalidInput
from protocol.heartbeat import MAX_HEARTBEAT_BYTES, Heartbeat, decode_heartbeat
from protocol.identity import require_agent_signature


def open_witness(envelope: bytes, public_key: bytes, agent_id: str) -> Heartbeat:
    """Return what an agent signed.

    Raises:
        InvalidInput: where it did not, or where it is no heartbeat.

    """
    decoded = decode_envelope(envelope, HEARTBEAT, max_payload_bytes=MAX_HEARTBEAT_BYTES)
    require_agent_signature(decoded, public_key, agent_id)
    heartbeat = decode_heartbeat(decoded.payload)
    if heartbeat.agent != agent_id:
        raise InvalidInput("bad-signature", "it speaks for another agent")
    return heartbeat


def read_witness(envelope: bytes) -> Heartbeat:
    """Return what stands in a heartbeat whose signature the caller has verified when it took it.

    Raises:
        InvalidInput: where it is no heartbeat.

    """
    return decode_heartbeat(
        decode_envelope(envelope, HEARTBEAT, max_payload_bytes=MAX_HEARTBEAT_BYTES).payload
    )
