"""Makes the documents that the API answers (`protocol.documents`) of what the store gives."""

import base64
from datetime import datetime

import msgspec

from protocol.command import FINAL_STATES, CommandState
from protocol.documents import (
    ActionStatus,
    ActionSummary,
    Agent,
    Investigator,
    ResultItem,
    SignedEnvelope,
    StoredAction,
    StoredTrust,
    Witness,
)
from server.rows import ActionRow, AgentRow, InvestigatorRow, ResultRow, TrustRow, WitnessRow


def agent_document(row: AgentRow, now: datetime, warnings: tuple[str, ...]) -> Agent:
    """Show an agent, with what is odd about it (`server.oddities`)."""
    return Agent(
        id=row.id,
        name=row.name,
        public_key=base64.b64encode(row.public_key).decode("ascii"),
        os=row.os,
        arch=row.arch,
        ident=row.ident,
        version=row.version,
        status=row.status(now),
        heartbeattime=row.heartbeattime,
        clock_skew_s=row.clock_skew_s,
        enrolled=row.enrolled,
        tags=row.tags,
        environment=row.environment,
        modules=row.modules,
        trust_version=row.trust_version,
        trust_expires=row.trust_expires,
        trust_state=row.trust_state,
        enrolled_by=row.enrolled_by,
        peer=row.peer,
        duplicate=row.is_duplicate(now),
        warnings=warnings,
    )


def investigator_document(row: InvestigatorRow) -> Investigator:
    """Show an investigator."""
    return Investigator(
        fingerprint=row.fingerprint, name=row.name, status=row.status, rights=row.rights, created=row.created
    )


def stored_trust_document(row: TrustRow) -> StoredTrust:
    """Show a trust bundle."""
    return StoredTrust(
        version=row.version,
        digest=row.digest,
        expires=row.expires,
        publisher=row.publisher,
        published=row.published,
        envelope=msgspec.json.decode(row.envelope, type=SignedEnvelope),
    )


def action_document(row: ActionRow) -> ActionSummary:
    """Show an action without its envelope."""
    return msgspec.convert({**msgspec.structs.asdict(row), "status": _action_status(row)}, ActionSummary)


def stored_action_document(row: ActionRow) -> StoredAction:
    """Show an action with its envelope."""
    envelope = msgspec.json.decode(row.envelope, type=SignedEnvelope)
    members = {**msgspec.structs.asdict(row), "status": _action_status(row), "envelope": envelope}
    return msgspec.convert(members, StoredAction)


def result_document(row: ResultRow) -> ResultItem:
    """Show an answer."""
    return ResultItem(
        seq=row.seq,
        command=row.command_id,
        agent=row.agent_id,
        agent_name=row.agent_name,
        public_key=base64.b64encode(row.public_key).decode("ascii"),
        state=row.state,
        envelope=msgspec.json.decode(row.envelope, type=SignedEnvelope),
        occurrence=row.occurrence,
    )


def witness_document(row: WitnessRow) -> Witness:
    """Show what an agent has signed of the audit log."""
    return Witness(
        agent=row.agent_id,
        agent_name=row.agent_name,
        public_key=base64.b64encode(row.public_key).decode("ascii"),
        received=row.received,
        envelope=msgspec.json.decode(row.envelope, type=SignedEnvelope),
        earlier=None if row.earlier is None else msgspec.json.decode(row.earlier, type=SignedEnvelope),
        contradiction=tuple(
            msgspec.json.decode(one, type=SignedEnvelope)
            for one in (row.contradicted, row.contradicting)
            if one is not None
        ),
    )


def _action_status(row: ActionRow) -> ActionStatus:
    if any(CommandState(state) not in FINAL_STATES for state in row.counts) or row.next_start is not None:
        return "active"
    if row.cancelled is not None:
        return "cancelled"
    if row.campaign is not None and row.campaign.state == "stopped":
        return "stopped"
    unanswered = {CommandState.EXPIRED.value, CommandState.CANCELLED.value}
    return "expired" if unanswered & set(row.counts) else "done"
