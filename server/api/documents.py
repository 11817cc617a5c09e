"""What the API answers. These declarations make the OpenAPI description too."""

import base64
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.command import FINAL_STATES, CommandState
from protocol.heartbeat import TrustStanding
from server.pacing import Campaign
from server.rows import (
    ActionRow,
    AgentRow,
    AgentStatus,
    InvestigatorRow,
    InvestigatorStatus,
    ResultRow,
    Right,
    TrustRow,
    WitnessRow,
)


class EnvelopeSignature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature of an envelope; `sig` is base64."""

    keyid: str
    sig: str


class SignedEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """A DSSE envelope; `payload` is base64."""

    payloadType: str  # noqa: N815  (DSSE's own spelling)
    payload: str
    signatures: tuple[EnvelopeSignature, ...]


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """The server's part of a login: 32 random bytes in hex, good for one login within two minutes."""

    nonce: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session; send the token as `Authorization: Bearer TOKEN` until it expires."""

    token: str
    expires: datetime
    fingerprint: str
    rights: tuple[Right, ...]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether this server can do its work."""

    status: Literal["ok", "degraded"]
    database: Literal["ok", "away"]
    broker: Literal["ok", "away"]
    version: str


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """One agent. What it says of itself is hostile text; `heartbeattime` is the server's clock."""

    id: str
    name: str
    public_key: Annotated[str, Meta(description="raw Ed25519 key, base64; its hash is the id")]
    os: str
    arch: str
    ident: str
    version: str
    status: AgentStatus
    heartbeattime: datetime | None
    clock_skew_s: Annotated[float | None, Meta(description="the agent's clock minus the server's")]
    enrolled: datetime
    tags: dict[str, str]
    environment: dict[str, str]
    modules: tuple[str, ...]
    trust_version: Annotated[
        int | None, Meta(description="trust bundle it holds; 0: what was baked in; null: unknown, or lost")
    ]
    trust_expires: Annotated[
        datetime | None, Meta(description="until when that is good; null: unknown, or ever")
    ]
    trust_state: Annotated[
        TrustStanding | None, Meta(description="it obeys somebody only where this is in-force; null: unknown")
    ]
    enrolled_by: Annotated[str, Meta(description="open, token and its id, operator, or who signed it")]
    peer: Annotated[str, Meta(description="where the broker saw it come from while it waited")]
    duplicate: Annotated[bool, Meta(description="two processes spoke under this id within the last day")]
    warnings: Annotated[tuple[str, ...], Meta(description="what a person should look into, one line each")]


class AgentPage(msgspec.Struct, frozen=True, kw_only=True):
    """How many agents match a target, the target as endpoints enforce it, and one page of them."""

    total: int
    max_agents: Annotated[int, Meta(description="an action for more needs `all=true`")]
    enforced: str
    agents: tuple[Agent, ...]


class Investigator(msgspec.Struct, frozen=True, kw_only=True):
    """One investigator as this server knows them; what agents trust is baked into them."""

    fingerprint: str
    name: str
    status: InvestigatorStatus
    rights: tuple[Right, ...]
    created: datetime


class InvestigatorList(msgspec.Struct, frozen=True, kw_only=True):
    """All investigators."""

    investigators: tuple[Investigator, ...]


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an action that was submitted: how many commands now wait, and whether it is new."""

    id: str
    commands: int
    new: bool


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a cancel: commands that ended at once, and agents that are told."""

    id: str
    cancelled: int
    agents: int


class ActionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One action.

    `active` while a command is open or an occurrence is to come, `cancelled` by one who signed it, `stopped`
    where it was paced and too many answers were failures, `done` when all were answered, `expired` otherwise.
    """

    id: str
    name: str
    target: str
    status: Literal["active", "done", "expired", "cancelled", "stopped"]
    created: datetime
    validfrom: datetime
    expireafter: datetime
    signers: tuple[str, ...]
    submitter: str
    counts: Annotated[dict[str, int], Meta(description="commands by state")]
    digest: Annotated[str, Meta(description="SHA-256 of the signed payload")]
    occurrence: Annotated[str | None, Meta(description="the one started last, of an action with a schedule")]
    next_start: datetime | None
    cancelled: datetime | None
    deleted_answers: Annotated[int, Meta(description="answers that were deleted because of their age")]
    campaign: Annotated[Campaign | None, Meta(description="how an action stands that is paced")]


class StoredAction(ActionSummary, frozen=True, kw_only=True):
    """One action with the envelope that agents get."""

    envelope: SignedEnvelope


class ActionPage(msgspec.Struct, frozen=True, kw_only=True):
    """How many actions there are, and one page of them, the newest first."""

    total: int
    actions: tuple[ActionSummary, ...]


class ResultItem(msgspec.Struct, frozen=True, kw_only=True):
    """One answer; the envelope is as the agent signed it, all else is the server's word."""

    seq: int
    command: str
    agent: str
    agent_name: str
    public_key: str
    state: CommandState
    envelope: SignedEnvelope
    occurrence: str


class ResultPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of answers; `next` is the value of `after` for the next page, null at the end."""

    results: tuple[ResultItem, ...]
    next: int | None


class AuditHead(msgspec.Struct, frozen=True, kw_only=True):
    """The newest entry's number and SHA-256; number 0 of an empty log."""

    seq: int
    sha256: str


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the audit log; `next` is the value of `after` for the next page, null at the end."""

    head: AuditHead
    entries: Annotated[tuple[str, ...], Meta(description="each by its exact text, which is JSON")]
    next: int | None


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's signed heartbeats that name heads: of the audit log, which it has seen, and of its own log.

    `envelope` is the newest, `earlier` one from before it, of up to a week. `contradiction` holds two, in the
    order of their arrival, that cannot be of one log of its own; it stays until the agent is approved again.
    """

    agent: str
    agent_name: str
    public_key: str
    received: datetime
    envelope: SignedEnvelope
    earlier: SignedEnvelope | None
    contradiction: tuple[SignedEnvelope, ...]


class WitnessPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of witnesses; `next` is the value of `after` for the next page, null at the end."""

    witnesses: tuple[Witness, ...]
    next: str | None


class PublishedTrust(msgspec.Struct, frozen=True, kw_only=True):
    """A trust bundle that was taken, and whether it, or a signature of it, is new."""

    version: int
    new: bool


class StoredTrust(msgspec.Struct, frozen=True, kw_only=True):
    """The newest trust bundle; all but the envelope is the server's word."""

    version: int
    digest: str
    expires: datetime
    publisher: str
    published: datetime
    envelope: SignedEnvelope


class ErrorText(msgspec.Struct, frozen=True, kw_only=True):
    """A stable code, and one line that says what and where."""

    code: str
    detail: str


class ErrorDocument(msgspec.Struct, frozen=True, kw_only=True):
    """How every refusal looks."""

    error: ErrorText


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


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a signed decision on agents: ids by what was done; `stale`: a later decision stands."""

    decision: Literal["approve", "revoke"]
    done: tuple[str, ...]
    unknown: tuple[str, ...]
    stale: tuple[str, ...]
    problem: Annotated[str, Meta(description="why connections of revoked agents may still be open, or empty")]


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


def _action_status(row: ActionRow) -> Literal["active", "done", "expired", "cancelled", "stopped"]:
    if any(CommandState(state) not in FINAL_STATES for state in row.counts) or row.next_start is not None:
        return "active"
    if row.cancelled is not None:
        return "cancelled"
    if row.campaign is not None and row.campaign.state == "stopped":
        return "stopped"
    unanswered = {CommandState.EXPIRED.value, CommandState.CANCELLED.value}
    return "expired" if unanswered & set(row.counts) else "done"
