"""What the server's API answers: one declaration for who writes it, who reads it, and its description.

Whoever reads ignores members that it does not know, so that a client works with a newer server; members that
came later, or that a client can do without, have defaults. Nothing of this is signed but the envelopes in it,
and nothing of it is believed that a signature can tell (`client.answers`). What agents say is hostile text.
"""

from datetime import datetime
from enum import Enum
from typing import Annotated, Dict, Literal, Optional, Tuple, Union

import msgspec
from msgspec import Meta

from protocol.command import CommandState
from protocol.heartbeat import TrustStanding
from protocol.result import Problem

# What an agent may say (`protocol.heartbeat`); a longer one would fill what the client remembers of names.
MAX_AGENT_NAME = 255
AgentName = Annotated[str, Meta(max_length=MAX_AGENT_NAME)]
# It goes back in a header: no line break, nothing that a header cannot hold. Source: RFC 6750, section 2.1.
Token = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~+/=-]{1,1024}\Z")]
PublicKey = Annotated[str, Meta(description="raw Ed25519 key, base64; its hash is the agent's id")]
Right = Literal["read", "submit", "manage"]
InvestigatorStatus = Literal["active", "disabled"]
DEFAULT_WAVE_WAIT_S = 60
MAX_WAVES = 16
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Rate = Annotated[float, Meta(gt=0, le=10_000)]
Percent = Annotated[float, Meta(gt=0, le=100)]
WaitS = Annotated[int, Meta(ge=1, le=7 * 86400)]
CampaignState = Literal["running", "ended", "stopped"]
ActionStatus = Literal["active", "done", "expired", "cancelled", "stopped"]


class AgentStatus(str, Enum):
    """What the platform says of an agent: from enrolment, else from the age of its last heartbeat."""

    ONLINE = "online"
    IDLE = "idle"
    OFFLINE = "offline"
    PENDING = "pending"
    REVOKED = "revoked"
    REMOVED = "removed"

    def __str__(self) -> str:
        """Return the value, so that formatting gives it too, with every Python."""
        return str(self.value)


class EnvelopeSignature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature of an envelope; `sig` is base64."""

    keyid: str
    sig: str


class SignedEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """A DSSE envelope; `payload` is base64. Nothing of it is checked here."""

    payloadType: str  # noqa: N815  (DSSE's own spelling)
    payload: str
    signatures: Tuple[EnvelopeSignature, ...]

    def encode(self) -> bytes:
        """Return it as bytes, for who decodes and verifies it."""
        return msgspec.json.encode(self)


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """The server's part of a login: 32 random bytes in hex, good for one login within two minutes."""

    nonce: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session; send the token as `Authorization: Bearer TOKEN` until it expires."""

    token: Token
    expires: datetime
    fingerprint: str
    rights: Tuple[Right, ...] = ()


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether this server can do its work: `silent` is what does not answer, `full` has no room to write."""

    status: Literal["ok", "degraded"]
    database: Literal["ok", "away", "silent", "full"]
    broker: Literal["ok", "away", "silent", "full"]
    version: str


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """One agent. What it says of itself is hostile text; `heartbeattime` is the server's clock."""

    id: str
    name: AgentName
    public_key: PublicKey = ""
    os: str = ""
    arch: str = ""
    ident: str = ""
    version: str = ""
    status: AgentStatus
    heartbeattime: Optional[datetime] = None
    clock_skew_s: Annotated[Optional[float], Meta(description="the agent's clock minus the server's")] = None
    enrolled: Optional[datetime] = None
    tags: Dict[str, str] = {}
    environment: Dict[str, str] = {}
    modules: Tuple[str, ...] = ()
    trust_version: Annotated[
        Optional[int],
        Meta(description="trust bundle it holds; 0: what was baked in; null: unknown, or lost"),
    ] = None
    trust_expires: Annotated[
        Optional[datetime], Meta(description="until when that is good; null: unknown, or ever")
    ] = None
    trust_state: Annotated[
        Optional[TrustStanding],
        Meta(description="it obeys somebody only where this is in-force; null: unknown"),
    ] = None
    enrolled_by: Annotated[str, Meta(description="open, token and its id, operator, or who signed it")] = ""
    peer: Annotated[str, Meta(description="where the broker saw it come from while it waited")] = ""
    duplicate: Annotated[bool, Meta(description="two processes spoke under this id within the last day")] = (
        False
    )
    warnings: Annotated[
        Tuple[str, ...], Meta(description="what a person should look into, one line each")
    ] = ()


class AgentPage(msgspec.Struct, frozen=True, kw_only=True):
    """How many agents match a target, the target as endpoints enforce it, and one page of them."""

    total: int
    max_agents: Annotated[
        Optional[int], Meta(description="an action for more needs `all=true`; null: any number")
    ] = None
    enforced: str
    agents: Tuple[Agent, ...]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a signed decision on agents: ids by what was done; `stale`: a later decision stands."""

    decision: Literal["approve", "revoke"]
    done: Tuple[str, ...]
    unknown: Tuple[str, ...] = ()
    stale: Tuple[str, ...] = ()
    problem: Annotated[
        str, Meta(description="why connections of revoked agents may still be open, or empty")
    ] = ""


class Investigator(msgspec.Struct, frozen=True, kw_only=True):
    """One investigator as this server knows them; what agents trust is baked into them."""

    fingerprint: str
    name: str
    status: InvestigatorStatus
    rights: Tuple[Right, ...] = ()
    created: Optional[datetime] = None


class InvestigatorList(msgspec.Struct, frozen=True, kw_only=True):
    """All investigators."""

    investigators: Tuple[Investigator, ...]


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


class Pacing(msgspec.Struct, frozen=True, kw_only=True):
    """What an investigator asked for: `rate` in commands a second, `stop_at` in percent of the answers."""

    waves: Annotated[Tuple[Count, ...], Meta(max_length=MAX_WAVES)] = ()
    concurrency: Optional[Count] = None
    rate: Optional[Rate] = None
    stop_at: Optional[Percent] = None
    wave_wait_s: WaitS = DEFAULT_WAVE_WAIT_S

    @property
    def holds_back(self) -> bool:
        """Tell whether anything at all is held back."""
        return bool(self.waves) or self.concurrency is not None or self.rate is not None


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """How a paced action stands: `running` while something is held back, `stopped` for a `reason`."""

    pacing: Pacing = Pacing()
    state: CampaignState
    wave: Annotated[int, Meta(description="the one that goes out, from 1")] = 1
    held: Annotated[int, Meta(description="commands that are held back")] = 0
    reason: Annotated[str, Meta(description="why it was stopped")] = ""


class ActionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One action.

    `active` while a command is open or an occurrence is to come, `cancelled` by one who signed it, `stopped`
    where it was paced and too many answers were failures, `done` when all were answered, `expired` otherwise.
    """

    id: str
    name: str
    target: str
    status: ActionStatus
    created: datetime
    validfrom: datetime
    expireafter: datetime
    signers: Tuple[str, ...]
    submitter: str
    counts: Annotated[Dict[str, int], Meta(description="commands by state")]
    digest: Annotated[str, Meta(description="SHA-256 of the signed payload")]
    occurrence: Annotated[
        Optional[str], Meta(description="the one started last, of an action with a schedule")
    ] = None
    next_start: Optional[datetime] = None
    cancelled: Optional[datetime] = None
    deleted_answers: Annotated[int, Meta(description="answers that were deleted because of their age")] = 0
    campaign: Annotated[Optional[Campaign], Meta(description="how an action stands that is paced")] = None


class StoredAction(ActionSummary, frozen=True, kw_only=True):
    """One action with the envelope that agents get."""

    envelope: SignedEnvelope


class ActionPage(msgspec.Struct, frozen=True, kw_only=True):
    """How many actions there are, and one page of them, the newest first."""

    total: int
    actions: Tuple[ActionSummary, ...]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a command is: its operation from 0, for how long it runs, and what it has counted so far.

    All of it is the agent's word; `told` is when it came, by the server's clock.
    """

    operation: int = 0
    elapsed_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    statistics: Dict[str, Union[int, float]] = {}
    told: Optional[datetime] = None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an action's roster; `problem` says why a command did not run."""

    id: str
    agent: str
    agent_name: AgentName
    state: CommandState
    updated: Optional[datetime] = None
    problem: Optional[Problem] = None
    occurrence: str = ""
    wave: Annotated[
        int, Meta(description="of a paced action: it went out with it; 0 while it is held back")
    ] = 1
    progress: Annotated[
        Optional[Progress], Meta(description="of a command that runs, where its agent says so")
    ] = None


class Roster(msgspec.Struct, frozen=True, kw_only=True):
    """Everyone who was asked, and how far each is."""

    commands: Tuple[Command, ...]


class CommandEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A command that changed its state without an answer."""

    id: str
    agent: str
    agent_name: AgentName
    state: CommandState


class ProgressEvent(Progress, frozen=True, kw_only=True):
    """How far a command is that runs; `id` and `agent` are of the roster, or it counts for nothing."""

    id: str
    agent: str
    agent_name: AgentName = ""


class DoneEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a stream of events: no command is open."""

    counts: Dict[str, int]


class ResultItem(msgspec.Struct, frozen=True, kw_only=True):
    """One answer; the envelope is as the agent signed it, all else is the server's word."""

    seq: int
    command: str
    agent: str
    agent_name: AgentName
    public_key: PublicKey
    state: CommandState
    envelope: SignedEnvelope
    occurrence: str = ""


class ResultPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of answers; `next` is the value of `after` for the next page, null at the end."""

    results: Tuple[ResultItem, ...]
    next: Optional[int] = None


class AuditHead(msgspec.Struct, frozen=True, kw_only=True):
    """The newest entry's number and SHA-256; number 0 of an empty log."""

    seq: int
    sha256: str


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the audit log; `next` is the value of `after` for the next page, null at the end."""

    head: AuditHead
    entries: Annotated[Tuple[str, ...], Meta(description="each by its exact text, which is JSON")]
    next: Optional[int] = None


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's signed heartbeats that name heads: of the audit log, which it has seen, and of its own log.

    `envelope` is the newest, `earlier` one from before it, of up to a week. `contradiction` holds two, in the
    order of their arrival, that cannot be of one log of its own; it stays until the agent is approved again.
    """

    agent: str
    agent_name: AgentName
    public_key: PublicKey
    received: datetime
    envelope: SignedEnvelope
    earlier: Optional[SignedEnvelope] = None
    contradiction: Tuple[SignedEnvelope, ...] = ()


class WitnessPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of witnesses; `next` is the value of `after` for the next page, null at the end."""

    witnesses: Tuple[Witness, ...]
    next: Optional[str] = None


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
    detail: str = ""


class ErrorDocument(msgspec.Struct, frozen=True, kw_only=True):
    """How every refusal looks."""

    error: ErrorText
