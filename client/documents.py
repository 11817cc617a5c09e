"""What the server answers, as far as the client reads it.

Unknown members are ignored here, so that a client works with a newer server: nothing of this is signed, and
nothing of it is believed that a signature can tell (see `client.answers`).
"""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

# What an agent may say (`protocol.heartbeat`); a longer one would fill what the client remembers of names.
AgentName = Annotated[str, Meta(max_length=255)]
# It goes back in a header: no line break, nothing that a header cannot hold. Source: RFC 6750, section 2.1.
Token = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._~+/=-]{1,1024}\Z")]


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """One agent as the server knows it."""

    id: str
    name: AgentName
    status: str
    os: str = ""
    arch: str = ""
    ident: str = ""
    version: str = ""
    heartbeattime: datetime | None = None
    clock_skew_s: float | None = None
    enrolled: datetime | None = None
    tags: dict[str, str] = {}
    environment: dict[str, str] = {}
    modules: tuple[str, ...] = ()
    trust_version: int | None = None
    trust_expires: datetime | None = None
    trust_state: str | None = None
    enrolled_by: str = ""
    peer: str = ""
    duplicate: bool = False
    warnings: tuple[str, ...] = ()


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a signed decision on agents."""

    done: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    problem: str = ""


class AgentPage(msgspec.Struct, frozen=True, kw_only=True):
    """Agents that match a target, and the target as endpoints enforce it."""

    total: int
    enforced: str
    agents: tuple[Agent, ...]
    max_agents: int | None = None


class Investigator(msgspec.Struct, frozen=True, kw_only=True):
    """One investigator as the server knows them."""

    fingerprint: str
    name: str
    status: str
    rights: tuple[str, ...] = ()
    created: datetime | None = None


class InvestigatorList(msgspec.Struct, frozen=True, kw_only=True):
    """All investigators."""

    investigators: tuple[Investigator, ...]


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A submission taken: how many commands it made."""

    id: str
    commands: int
    new: bool


class PublishedTrust(msgspec.Struct, frozen=True, kw_only=True):
    """A trust bundle taken, and whether it was new."""

    version: int
    new: bool


class StoredTrust(msgspec.Struct, frozen=True, kw_only=True):
    """The newest trust bundle, as it was signed."""

    version: int
    envelope: msgspec.Raw


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """A cancel taken: commands that ended at once, and agents that are told."""

    id: str
    cancelled: int
    agents: int


class Pacing(msgspec.Struct, frozen=True, kw_only=True):
    """How an action was to be paced."""

    waves: tuple[int, ...] = ()


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """How a paced action stands: which wave goes out, what is held back, why it was stopped."""

    state: str
    wave: int = 1
    held: int = 0
    reason: str = ""
    pacing: Pacing = Pacing()


class ActionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One stored action."""

    id: str
    name: str
    target: str
    status: str
    created: datetime
    validfrom: datetime
    expireafter: datetime
    signers: tuple[str, ...]
    submitter: str
    counts: dict[str, int]
    digest: str
    occurrence: str | None = None
    next_start: datetime | None = None
    cancelled: datetime | None = None
    campaign: Campaign | None = None
    deleted_answers: int = 0


class ActionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Stored actions, newest first."""

    total: int
    actions: tuple[ActionSummary, ...]


class StoredAction(ActionSummary, frozen=True, kw_only=True):
    """One stored action with the signed envelope."""

    envelope: msgspec.Raw


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a command is, as its agent says: which operation from 0, for how long, what it has counted."""

    operation: int = 0
    elapsed_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    statistics: dict[str, Any] = {}


class ProgressEvent(Progress, frozen=True, kw_only=True):
    """News of a command that runs; `id` and `agent` are of the roster, or it counts for nothing."""

    id: str
    agent: str


class CommandProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a command did not run, by the server's word."""

    code: str
    detail: str = ""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the roster: where an agent's command stands."""

    id: str
    agent: str
    agent_name: AgentName
    state: str
    occurrence: str = ""
    wave: int = 1
    problem: CommandProblem | None = None
    progress: Progress | None = None


class Roster(msgspec.Struct, frozen=True, kw_only=True):
    """All commands of an action."""

    commands: tuple[Command, ...]


class ResultItem(msgspec.Struct, frozen=True, kw_only=True):
    """One answer as the server relays it: the envelope is the agent's, all else the server's word."""

    seq: int
    command: str
    agent: str
    agent_name: AgentName
    public_key: str
    state: str
    envelope: msgspec.Raw
    occurrence: str = ""


class ResultPage(msgspec.Struct, frozen=True, kw_only=True):
    """Answers in the order of their arrival; `next` continues after the last one."""

    results: tuple[ResultItem, ...]
    next: int | None = None


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """The server's half of a login: 32 random bytes, in hex."""

    nonce: str


class AuditHead(msgspec.Struct, frozen=True, kw_only=True):
    """The newest entry of the audit log, as the server says."""

    seq: int
    sha256: str


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the audit log, each entry by its exact text."""

    head: AuditHead
    entries: tuple[str, ...]
    next: int | None


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent signed of logs, as the server shows it."""

    agent: str
    agent_name: str
    public_key: str
    envelope: msgspec.Raw
    earlier: msgspec.Raw = msgspec.Raw(b"null")
    contradiction: tuple[msgspec.Raw, ...] = ()


class WitnessPage(msgspec.Struct, frozen=True, kw_only=True):
    """One page of witnesses."""

    witnesses: tuple[Witness, ...]
    next: str | None


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session token and when it ends."""

    token: Token
    expires: datetime
    fingerprint: str
    rights: tuple[str, ...] = ()


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The server's refusal: a code of `protocol.errors` and one line."""

    code: str
    detail: str = ""


class ErrorDocument(msgspec.Struct, frozen=True, kw_only=True):
    """How the server wraps a refusal."""

    error: ErrorBody
