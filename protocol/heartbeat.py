"""Heartbeats: what an agent says of itself, signed, once a minute.

The encoder lives with the agent (`agent.runtime.heartbeat`) and does without msgspec; this is the decoder.
"""

from typing import Annotated, Dict, Literal, Optional, Tuple, Union

import msgspec
from msgspec import Meta

from protocol.action import MAX_OPERATIONS, UtcTime, require_utc
from protocol.audit import Head
from protocol.errors import InvalidInput
from protocol.result import AgentId
from protocol.strictjson import decode_json

MAX_HEARTBEAT_BYTES = 65536
MAX_LANDMARKS = 64
MAX_TRUST_VERSION = 2**31 - 1  # of protocol.trust, which needs OpenPGP
SeenHead = Tuple[Annotated[int, Meta(ge=1)], Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]]
TrustStanding = Literal["in-force", "expired", "missing"]
CounterName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}\Z")]
Counter = Union[Annotated[int, Meta(ge=0)], Annotated[float, Meta(ge=0)]]
FactText = Annotated[str, Meta(max_length=1024)]


class RunningCommand(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command that runs: for how long, in which operation (from 0), and what that has counted so far."""

    command: AgentId
    elapsed_s: Annotated[float, Meta(ge=0, le=1e9)]
    operation: Annotated[int, Meta(ge=0, lt=MAX_OPERATIONS)] = 0
    statistics: Annotated[Dict[CounterName, Counter], Meta(max_length=16)] = {}


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One heartbeat.

    `environment` holds `init`, `kernel`, `addresses` and the like; `tags` come from the agent's
    configuration; `modules` are the names built in; `time` is the agent's own clock, UTC; `commands` are the
    ids of the commands that stand in the agent's journal unanswered, so the server need not send them again;
    `trust_version` is that of the trust bundle held (0: what was baked in; None: it is lost), `trust_expires`
    until when it is good, by the agent's clock; it obeys somebody only where `trust_state` is `in-force`.
    `running` says how far those are that run, as their modules count; nothing of it is proof of anything.
    `server_heads` are heads of the server's audit log that the agent was told, `log_head` is that of its own,
    and `log_heads` are those at the landmarks before it (`protocol.audit`), in the order of their numbers.
    With `leaving` it is the last one: the agent removes itself.
    """

    agent: AgentId
    name: Annotated[str, Meta(min_length=1, max_length=255)]
    os: Annotated[str, Meta(max_length=64)]
    arch: Annotated[str, Meta(max_length=64)]
    ident: Annotated[str, Meta(max_length=255)]
    version: Annotated[str, Meta(max_length=128)]
    time: UtcTime
    started: UtcTime
    tags: Annotated[Dict[Annotated[str, Meta(max_length=128)], FactText], Meta(max_length=128)]
    environment: Annotated[Dict[Annotated[str, Meta(max_length=128)], FactText], Meta(max_length=128)]
    modules: Annotated[Tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=256)]
    commands: Annotated[Tuple[AgentId, ...], Meta(max_length=256)] = ()
    trust_version: Optional[Annotated[int, Meta(ge=0, le=MAX_TRUST_VERSION)]] = None
    trust_expires: Optional[UtcTime] = None
    trust_state: Optional[TrustStanding] = None
    server_heads: Annotated[Tuple[SeenHead, ...], Meta(max_length=24)] = ()
    log_head: Optional[SeenHead] = None
    running: Annotated[Tuple[RunningCommand, ...], Meta(max_length=4)] = ()
    log_heads: Annotated[Tuple[SeenHead, ...], Meta(max_length=MAX_LANDMARKS)] = ()
    leaving: bool = False

    def __post_init__(self) -> None:
        """Refuse times that are not UTC."""
        require_utc(self.time, self.started)
        if self.trust_expires is not None:
            require_utc(self.trust_expires)
        numbers = [seq for seq, _ in self.own_heads]
        if any(later <= earlier for earlier, later in zip(numbers, numbers[1:])):
            raise ValueError("log_heads and log_head do not rise")
        if self.log_heads and self.log_head is None:
            raise ValueError("log_heads without a log_head")

    @property
    def own_heads(self) -> Tuple[Head, ...]:
        """The heads of the agent's own log that it names, the newest last."""
        newest = () if self.log_head is None else (self.log_head,)
        return tuple(Head(*head) for head in (*self.log_heads, *newest))


def decode_heartbeat(payload: bytes) -> Heartbeat:
    """Decode a heartbeat's payload; the caller has verified the agent's signature over it.

    Raises:
        InvalidInput: `too-large`, `bad-json` or `bad-document`.

    """
    try:
        return msgspec.convert(decode_json(payload, max_bytes=MAX_HEARTBEAT_BYTES), Heartbeat)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-document", str(error)) from None
