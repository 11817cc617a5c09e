"""Targets that read what people, agents and servers sign, each with whole documents that it accepts.

The keys are fixed bytes, so that the seeds are the same in every run and a finding can be repeated.
"""

import base64
import json
from collections.abc import Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.runtime.trust_state import read_expiry
from protocol.approval import decode_approval
from protocol.audit import NO_HEAD, Chain, Head, Landmarks, compare_heads, decode_entry, encode_entry
from protocol.cancel import decode_cancel
from protocol.enrolment import decode_token, encode_token
from protocol.envelope import HEARTBEAT, TRUST, Envelope, Signature, encode_envelope
from protocol.heartbeat import decode_heartbeat
from protocol.identity import agent_id, decode_broker_password, make_broker_password, sign_envelope
from protocol.login import decode_login
from protocol.notice import open_notice, sign_notice
from protocol.openpgp import parse_certificate
from protocol.result import decode_result, decode_sealed_result
from protocol.trust import decode_bundle, make_keyring
from protocol.witness import open_witness, read_witness
from tests.fuzz.target import FuzzTarget, of_text, vector
from tests.support import documents

_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_PUBLIC_KEY = _KEY.public_key().public_bytes_raw()
_AGENT = agent_id(_PUBLIC_KEY)
_TIME = "2026-12-01T00:00:00Z"
_LATER = "2027-02-01T00:00:00Z"
_TOKEN = encode_token(bytes(range(32, 64)))


def _json(*values: Any) -> tuple[bytes, ...]:
    return tuple(json.dumps(value).encode() for value in values)


def _certificates() -> dict[str, str]:
    texts = [vector(f"good-{kind}-24", "cert.asc") for kind in ("ed25519", "defaultkey")]
    return {parse_certificate(text).fingerprint: text.decode("ascii") for text in texts}


def _bundle() -> dict[str, Any]:
    people = _certificates()
    ada, bob = people
    return {
        "version": 7,
        "created": _TIME,
        "expires": _LATER,
        "investigators": [
            {"fingerprint": fingerprint, "name": "Ada <ada@example.net>", "certificate": text}
            for fingerprint, text in people.items()
        ],
        "acl": {
            "default": {"minimum_weight": 1, "investigators": {ada: 1, bob: 1}},
            "file": {"minimum_weight": 2, "investigators": {ada: 2}, "paths": ["/etc"], "deny": ["/etc/ssh"]},
        },
        "manage": [ada],
    }


def _signed_bundle() -> bytes:
    payload = json.dumps(_bundle()).encode()
    return encode_envelope(Envelope(TRUST, payload, (Signature(next(iter(_certificates())), b"sig"),)))


def _log(length: int) -> tuple[list[bytes], list[Head]]:
    """Return a log and what it repeats of itself."""
    lines: list[bytes] = []
    head, landmarks = NO_HEAD, Landmarks()
    for number in range(length):
        line, head = encode_entry(head, time=_TIME, kind="read", who=("A" * 40,), what={"answers": number})
        lines.append(line)
        landmarks.add(head)
    return lines, landmarks.heads()


def _heartbeat() -> dict[str, Any]:
    *before, newest = map(list, _log(21)[1])
    return {
        **documents.HEARTBEAT,
        "agent": _AGENT,
        "commands": [documents.AGENT],
        "trust_version": 7,
        "trust_expires": _LATER,
        "trust_state": "in-force",
        "server_heads": [[9, "ab" * 32], [12, "cd" * 32]],
        "log_head": newest,
        "log_heads": before,
    }


def _witness() -> bytes:
    return encode_envelope(sign_envelope(_KEY, HEARTBEAT, json.dumps(_heartbeat()).encode()))


def _sealed_result() -> dict[str, Any]:
    members = ("action", "action_sha256", "occurrence", "agent", "status")
    return {
        **{name: documents.RESULT[name] for name in members},
        "sealed_to": list(_certificates()),
        "sealed": base64.b64encode(b"\xc1\x8c\x03" + bytes(200)).decode("ascii"),
    }


def _read_bundle(data: bytes) -> None:
    make_keyring(decode_bundle(data))


def _read_log(data: bytes) -> None:
    chain = Chain()
    for line in data.split(b"\n"):
        chain.add(line)
    chain.require_complete()


def _compare(data: bytes) -> None:
    first, _, second = data.partition(b"\n")
    compare_heads(decode_heartbeat(first).own_heads, decode_heartbeat(second).own_heads)


def _password(**more: Any) -> bytes:
    made = make_broker_password(
        _KEY, broker="mig", vhost="mig", time=1796083200, nonce=bytes(16), name="web1", **more
    )
    return made.encode("ascii")


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"\n".join(lines)


SIGNED: dict[str, FuzzTarget] = {
    "cancel": FuzzTarget(
        decode_cancel,
        _json(
            {
                "action": documents.ACTION_ID,
                "action_sha256": "ab" * 32,
                "expireafter": _LATER,
                "time": _TIME,
                "reason": "no longer needed",
            }
        ),
    ),
    "trust": FuzzTarget(_read_bundle, _json(_bundle())),
    "trust-expiry": FuzzTarget(read_expiry, (_signed_bundle(),)),
    "approval": FuzzTarget(
        decode_approval,
        _json(
            {"server": "http://u", "decision": "approve", "agents": [documents.AGENT, _AGENT], "time": _TIME}
        ),
    ),
    "enrolment-token": FuzzTarget(of_text(decode_token), (_TOKEN.encode("ascii"),)),
    "heartbeat": FuzzTarget(decode_heartbeat, _json(_heartbeat(), documents.HEARTBEAT)),
    "witness": FuzzTarget(lambda data: open_witness(data, _PUBLIC_KEY, _AGENT), (_witness(),)),
    "kept-witness": FuzzTarget(read_witness, (_witness(),)),
    "own-heads": FuzzTarget(_compare, (_joined(_json(_heartbeat(), _heartbeat())),)),
    "notice": FuzzTarget(
        open_notice,
        (encode_envelope(sign_notice(_KEY, server="mig", time=_TIME, head=Head(7, "ab" * 32))),),
    ),
    "audit-entry": FuzzTarget(decode_entry, tuple(_log(2)[0])),
    "audit-log": FuzzTarget(_read_log, (_joined(_log(5)[0]),)),
    "result": FuzzTarget(decode_result, _json(documents.RESULT)),
    "sealed-result": FuzzTarget(decode_sealed_result, _json(_sealed_result())),
    "login": FuzzTarget(
        decode_login,
        _json({"server": "u", "fingerprint": "A" * 40, "nonce": "5a" * 32, "time": _TIME}),
    ),
    "broker-password": FuzzTarget(
        of_text(decode_broker_password), (_password(), _password(token=decode_token(_TOKEN)))
    ),
}
