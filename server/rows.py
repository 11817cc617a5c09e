"""What the store takes and gives: typed rows, never the database's own."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from protocol.action import Action
from protocol.alert import Severity
from protocol.command import CommandState
from protocol.documents import AgentStatus, Campaign, InvestigatorStatus, Pacing, Progress, Right
from protocol.heartbeat import TrustStanding
from protocol.result import Problem
from server.checking import AnswerFacts

ONLINE_S = 150
OFFLINE_S = 20 * 60
REMEMBERED = timedelta(days=1)  # how long a clone, or a name used twice, is shown

Enrolment = Literal["enrolled", "pending", "revoked", "removed"]
EnrolmentPolicy = Literal["open", "approval", "token"]
RIGHTS: tuple[Right, ...] = ("read", "submit", "manage")


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One process that spoke under an agent's id: when it started, its latest heartbeat, by its own clock."""

    started: datetime
    time: datetime
    name: str
    addresses: str


class AgentRow(msgspec.Struct, frozen=True, kw_only=True):
    """One agent; what it says of itself is empty until its first heartbeat."""

    id: str
    public_key: bytes
    enrolment: Enrolment
    enrolled: datetime
    name: str
    os: str
    arch: str
    ident: str
    version: str
    heartbeattime: datetime | None
    clock_skew_s: float | None
    tags: dict[str, str]
    environment: dict[str, str]
    modules: tuple[str, ...]
    trust_version: int | None = None
    trust_expires: datetime | None = None
    trust_state: TrustStanding | None = None
    enrolled_by: str
    decided: datetime | None
    peer: str
    instances: tuple[Instance, ...]
    duplicated: datetime | None
    flooded: datetime | None = None

    def is_duplicate(self, now: datetime) -> bool:
        """Tell whether two processes spoke under this id within the last day."""
        return self.duplicated is not None and now - self.duplicated < REMEMBERED

    def is_flooding(self, now: datetime) -> bool:
        """Tell whether it was cut off for sending too much within the last day."""
        return self.flooded is not None and now - self.flooded < REMEMBERED

    def status(self, now: datetime) -> AgentStatus:
        """Return the status: online below 150 s since the last heartbeat, offline from 20 minutes."""
        if self.enrolment != "enrolled":
            return AgentStatus(self.enrolment)
        if self.heartbeattime is None:
            return AgentStatus.OFFLINE
        age = now - self.heartbeattime
        if age < timedelta(seconds=ONLINE_S):
            return AgentStatus.ONLINE
        return AgentStatus.IDLE if age < timedelta(seconds=OFFLINE_S) else AgentStatus.OFFLINE


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of itself when it asks to take part: hostile text."""

    name: str = ""
    addresses: str = ""


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """One enrolment token, without what makes it one; `uses` is None for any number of agents."""

    id: str
    public_key: bytes
    label: str
    created: datetime
    expires: datetime
    uses: int | None
    used: int
    revoked: bool

    def state(self, now: datetime) -> str:
        """Return `good`, or why the token counts no more."""
        if self.revoked:
            return "revoked"
        if now >= self.expires:
            return "expired"
        return "used up" if self.uses is not None and self.used >= self.uses else "good"


class InvestigatorRow(msgspec.Struct, frozen=True, kw_only=True):
    """One investigator as this server knows them; `public_key` is the certificate as it was given."""

    fingerprint: str
    name: str
    public_key: bytes
    rights: tuple[Right, ...]
    status: InvestigatorStatus
    created: datetime


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is valid now, with the rights that its investigator has now."""

    fingerprint: str
    expires: datetime
    rights: tuple[Right, ...]


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session that was just opened; its token exists here and nowhere else."""

    token: str
    expires: datetime
    fingerprint: str
    rights: tuple[Right, ...]


class ActionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One action and how many of its commands are in each state."""

    id: str
    name: str
    target: str
    validfrom: datetime
    expireafter: datetime
    created: datetime
    digest: str
    signers: tuple[str, ...]
    submitter: str
    counts: Mapping[str, int]
    envelope: bytes
    occurrence: str | None = None  # of a recurring action, the one that was started last
    next_start: datetime | None = None
    cancelled: datetime | None = None
    campaign: Campaign | None = None
    deleted_answers: int = 0


class CommandRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an action's roster."""

    id: str
    action_id: str
    agent_id: str
    agent_name: str
    state: CommandState
    updated: datetime
    problem: Problem | None
    occurrence: str = ""
    wave: int = 1


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """One answer as it came, and who gave it."""

    seq: int
    command_id: str
    action_id: str
    agent_id: str
    agent_name: str
    public_key: bytes
    state: CommandState
    envelope: bytes
    occurrence: str = ""


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How an action is to be sent: whether more agents than usual are meant, and how it is paced, if so."""

    is_wide: bool = False
    pacing: Pacing | None = None


LIKE_ANY_OTHER = Manner()


class CreatedAction(msgspec.Struct, frozen=True, kw_only=True):
    """What `create_action` did: commands that now wait to be sent, and whether the action is new."""

    commands: int
    is_new: bool


class PendingCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A command to publish; `body` is the signed action envelope, shared between commands."""

    id: str
    agent_id: str
    action_id: str
    expireafter: datetime
    body: bytes


class Recurrence(msgspec.Struct, frozen=True, kw_only=True):
    """An action with a schedule, and the occurrence that was started last; empty where none was."""

    action: Action
    occurrence: str


class CancelToSend(msgspec.Struct, frozen=True, kw_only=True):
    """A cancel, as its signers made it, and agents that are to get it."""

    action_id: str
    envelope: bytes
    expireafter: datetime
    agent_ids: tuple[str, ...]


class ReceivedResult(msgspec.Struct, frozen=True, kw_only=True):
    """An answer whose signature, sender and shape the relay has checked; `digest` is of its payload."""

    agent_id: str
    envelope_bytes: bytes
    digest: str
    facts: AnswerFacts


class PublishedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One published trust bundle, without what was signed."""

    version: int
    digest: str
    expires: datetime
    publisher: str
    published: datetime


class TrustRow(PublishedRow, frozen=True, kw_only=True):
    """One published trust bundle; `envelope` is as it came."""

    envelope: bytes


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What the audit log is to say: who did what, in ids, digests and counts."""

    kind: str
    who: tuple[str, ...]
    what: Mapping[str, object]


class WitnessRow(msgspec.Struct, frozen=True, kw_only=True):
    """The heartbeats in which an agent signed heads of logs (`server.store_witnesses`)."""

    agent_id: str
    agent_name: str
    public_key: bytes
    received: datetime
    envelope: bytes
    earlier: bytes | None
    earlier_received: datetime | None
    contradicted: bytes | None
    contradicting: bytes | None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One command that changed its state, for the followers; `seq` is set where an answer came with it.

    With `progress` nothing but that has changed.
    """

    action_id: str
    command_id: str
    agent_id: str
    agent_name: str
    state: CommandState
    seq: int | None = None
    progress: Progress | None = None


class Advanced(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a paced action: commands let out, or cancelled, and when it is to be looked at again."""

    released: int = 0
    changes: list[Change] = []
    look_again: datetime | None = None


class ReceivedAlert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert whose signature, sender and shape the intake has checked; `digest` is of its payload."""

    agent_id: str
    digest: str
    module: str
    severity: Severity
    envelope: bytes


class AlertRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stored alert, and whose it is."""

    seq: int
    digest: str
    agent_id: str
    agent_name: str
    public_key: bytes
    received: datetime
    envelope: bytes


class AlertFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which alerts: all that is given must hold; None and an empty tuple hold always."""

    agents: frozenset[str] | None = None
    modules: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    since: datetime | None = None


class AlertsFound(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts in the order of their `seq`, and behind which `seq` to go on; None where there is no more."""

    rows: list[AlertRow]
    next: int | None


class HookRow(msgspec.Struct, frozen=True, kw_only=True):
    """How far a webhook is."""

    name: str
    position: int
    attempts: int
    next_try: datetime | None
    lease: str
    leased_until: datetime | None
    skipped: int
    problem: str
