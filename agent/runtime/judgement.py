"""Judges a cancel, in a child: whether its signatures hold and what it takes back.

 1. size, envelope of the type `cancel`
 2. signatures  as for actions: at least one, over these very bytes, by a trusted key, under the full policy
 3. decoding    the payload is strict JSON of exactly a cancel's shape
 4. time        not signed in the future, not expired, and its tombstone would not outlive any action

Whether its signers may take back this action is decided where both are known: `agent.runtime.journal`.
"""

from datetime import datetime

from agent.runtime.journal import expiry_seconds
from agent.runtime.trust import Trust
from agent.runtime.verdict import CancelVerdict
from protocol.cancel import MAX_SKEW, decode_cancel
from protocol.envelope import CANCEL, decode_envelope
from protocol.errors import InvalidInput


def judge_cancel(body: bytes, trust: Trust, now: datetime) -> CancelVerdict:
    """Return the verdict on one delivery.

    Args:
        body: what was delivered, byte for byte.
        trust: whom this agent obeys.
        now: aware UTC time.

    """
    try:
        trust.require_in_force(now)
        envelope = decode_envelope(body, CANCEL)
        signers = frozenset(trust.keyring.signers(envelope, now).fingerprints)
        if not signers:
            return CancelVerdict("unsigned")
        cancel = decode_cancel(envelope.payload)
    except InvalidInput as error:
        return CancelVerdict(error.code)
    if cancel.time > now + MAX_SKEW:
        return CancelVerdict("not-yet-valid")
    if cancel.expireafter <= now:
        return CancelVerdict("expired")
    if cancel.expireafter - now > max(trust.max_validity, trust.max_schedule):
        return CancelVerdict("validity-too-long")
    return CancelVerdict(
        "",
        action_id=cancel.action,
        digest=cancel.action_sha256,
        signers=tuple(sorted(signers)),
        expireafter=expiry_seconds(cancel.expireafter),
        manages=bool(signers & trust.managers),
    )
