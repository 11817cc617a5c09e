"""Decisions on agents, signed by investigators or made at the server's shell, and what follows from them."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from protocol.approval import Approval, Decision, decode_approval
from protocol.envelope import APPROVAL, decode_envelope
from protocol.errors import InvalidInput
from server.rows import InvestigatorRow
from server.signers import require_signers
from server.store import Store


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a decision: ids by what was done with them; `stale`: a later decision stands."""

    decision: Decision
    done: tuple[str, ...]
    unknown: tuple[str, ...]
    stale: tuple[str, ...]


def check_approval(
    body: bytes, investigators: Sequence[InvestigatorRow], server: str, now: datetime
) -> tuple[Approval, frozenset[str]]:
    """Return a signed decision and who signed it. Takes milliseconds of computing: not for the event loop.

    Raises:
        InvalidInput: what is wrong with envelope, signatures, document or time; `forbidden` where no signer
            has the right `manage`, or it is for another server.

    """
    envelope = decode_envelope(body, APPROVAL)
    signers = require_signers(envelope, investigators, now)
    if not any(row.fingerprint in signers and "manage" in row.rights for row in investigators):
        raise InvalidInput("forbidden", "no signer of the approval has the right 'manage'")
    approval = decode_approval(envelope.payload)
    approval.require_meant(server, now)
    return approval, signers


def apply_approval(store: Store, approval: Approval, signers: Iterable[str], now: datetime) -> Decided:
    """Carry a checked decision out in the store."""
    by = sorted(signers)
    return decide(store, approval.decision, approval.agents, now, by=by, signed=approval.time)


def decide(
    store: Store,
    decision: Decision,
    agents: Iterable[str],
    now: datetime,
    *,
    by: Sequence[str] = ("operator",),
    signed: datetime | None = None,
) -> Decided:
    """Approve or revoke agents in the store, one transaction each."""
    method = store.approve_agent if decision == "approve" else store.revoke_agent
    found: dict[str, list[str]] = {"done": [], "unknown": [], "stale": []}
    for agent_id in dict.fromkeys(agents):
        try:
            method(agent_id, now, by, signed)
            found["done"].append(agent_id)
        except InvalidInput as error:
            found["unknown" if error.code == "not-found" else "stale"].append(agent_id)
    return Decided(decision=decision, **{name: tuple(ids) for name, ids in found.items()})
