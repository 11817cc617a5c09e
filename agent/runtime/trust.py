"""Whom this agent obeys: what was baked in, or the stored bundle that the roots signed; for the child.

Rules:
1. An agent without roots obeys what was baked in, for ever or until that expires, and takes no bundle.
2. With roots, the stored bundle is verified again before each use; it replaces what was baked in. Baked in is
   version 0, good as long as the agent's mark, which remembers the newest version that it ever held, is 0.
3. Where the bundle is missing, damaged or older than the mark, or where there is no mark beside an identity,
   nobody is obeyed until a bundle arrives.
4. What has expired obeys nobody: the gate asks `Trust.require_in_force` with the time of now.
"""

from datetime import datetime, timedelta
from typing import Any, Dict, FrozenSet, NamedTuple, Optional, Tuple

import msgspec

from agent.config import MAX_SCHEDULE_S, AgentLimits
from agent.module import UNBOUNDED, Budget
from agent.runtime.readers import Sealing
from protocol.acl import Acl, convert_acl
from protocol.action import UtcTime
from protocol.envelope import MAX_ENVELOPE_BYTES
from protocol.errors import InvalidInput
from protocol.keyring import Keyring
from protocol.openpgp import parse_certificate
from protocol.trust import OpenedBundle, Roots, make_roots, open_bundle, require_current, require_newer


class ToldMark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest bundle that this agent ever held; version 0 and no digest where it held none."""

    version: int
    sha256: str


class ToldTrust(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the resident tells its child, as `agent.runtime.trust_store.encode_trust` writes it."""

    now: UtcTime
    keys: Tuple[bytes, ...]
    acl: Dict[str, Any]
    manage: Tuple[str, ...]
    expires: Optional[UtcTime]
    roots: Tuple[bytes, ...]
    root_fingerprints: Tuple[str, ...]
    threshold: int
    mark: Optional[ToldMark]
    bundle: bytes
    limits: Dict[str, int]
    max_validity_s: int
    max_schedule_s: int
    seal_to: Tuple[str, ...]
    require_sealed: bool
    budget: Dict[str, int]
    digest_cache: Optional[int] = None


class ToldCandidate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle that has arrived, and what it is to be judged by."""

    now: UtcTime
    roots: Tuple[bytes, ...]
    root_fingerprints: Tuple[str, ...]
    threshold: int
    mark: Optional[ToldMark]
    candidate: bytes
    limits: Dict[str, int]


class Trust(NamedTuple):
    """Whom this agent obeys, and how far.

    `version` is that of the bundle, None where there is none to obey; `refusal` then says why. `managers` may
    cancel what others signed. `digest_cache` is the descriptor of what was lent to keep digests in; `budget`
    is what a scan may take.
    """

    keyring: Keyring
    acl: Acl
    max_validity: timedelta
    limits: AgentLimits
    sealing: Sealing = Sealing()
    max_schedule: timedelta = timedelta(seconds=MAX_SCHEDULE_S)
    version: Optional[int] = 0
    expires: Optional[datetime] = None
    managers: FrozenSet[str] = frozenset()
    refusal: str = ""
    digest_cache: Optional[int] = None
    budget: Budget = UNBOUNDED

    def require_in_force(self, now: datetime) -> None:
        """Raise unless there is somebody to obey now.

        Raises:
            InvalidInput: `trust-missing` or `trust-expired`.

        """
        if self.version is None:
            raise InvalidInput("trust-missing", self.refusal)
        if self.expires is not None and now >= self.expires:
            raise InvalidInput(
                "trust-expired", f"bundle {self.version} expired at {self.expires.isoformat()}"
            )

    def describe(self) -> str:
        """Say in a few words what judges, for people."""
        if self.version is None:
            return f"none: {self.refusal}"
        origin = f"bundle {self.version}" if self.version else "bundle 0, built in"
        return origin if self.expires is None else f"{origin}, good until {self.expires.isoformat()}"


def make_trust(
    keys: Tuple[bytes, ...],
    acl: Dict[str, Any],
    max_validity_s: int,
    limits: AgentLimits,
    sealing: Sealing = Sealing(),  # noqa: B008  (immutable)
) -> Trust:
    """Read certificates and ACL as they were baked in, as bundle 0 without an end.

    Raises:
        InvalidInput: `bad-key` or `bad-config`.

    """
    keyring = Keyring(tuple(parse_certificate(key) for key in keys))
    return Trust(keyring, convert_acl(acl), timedelta(seconds=max_validity_s), limits, sealing)


def decode_told_trust(data: bytes) -> ToldTrust:
    """Decode what the resident tells; it is the resident's word, so that this is no border of trust."""
    return msgspec.json.decode(data, type=ToldTrust)


def decode_told_candidate(data: bytes) -> ToldCandidate:
    """Decode what the resident tells of a bundle that has arrived."""
    return msgspec.json.decode(data, type=ToldCandidate)


def resolve_trust(told: ToldTrust) -> Trust:
    """Decide whom to obey, by the rules above.

    Raises:
        InvalidInput: `bad-key` or `bad-config`, of what was baked in.

    """
    limits = AgentLimits(**told.limits)
    sealing = Sealing(told.seal_to, told.require_sealed)
    baked = make_trust(told.keys, told.acl, told.max_validity_s, limits, sealing)
    baked = baked._replace(
        expires=told.expires,
        managers=frozenset(told.manage),
        max_schedule=timedelta(seconds=told.max_schedule_s),
        digest_cache=told.digest_cache,
        budget=Budget(**told.budget),
    )
    roots = make_roots(told.roots, told.root_fingerprints, told.threshold)
    if not roots.keyring.fingerprints:
        return baked
    if told.mark is None:
        return _nobody(baked, "this agent no longer knows which bundle it held; it waits for one")
    if told.mark.version == 0 and not told.bundle:
        return baked
    try:
        opened = open_bundle(told.bundle, roots, told.now)
        require_newer(opened.bundle.version, opened.digest, told.mark.version, told.mark.sha256)
    except InvalidInput as error:
        return _nobody(baked, f"bundle {told.mark.version} is not there or not good ({error})")
    return baked._replace(
        keyring=opened.keyring,
        acl=opened.acl,
        version=opened.bundle.version,
        expires=opened.bundle.expires,
        managers=frozenset(opened.bundle.manage),
    )


def _nobody(baked: Trust, refusal: str) -> Trust:
    return baked._replace(
        keyring=Keyring(()), acl=Acl(entries={}), version=None, managers=frozenset(), refusal=refusal
    )


def judge_candidate(told: ToldCandidate) -> OpenedBundle:
    """Judge a bundle that has arrived; what is returned may be stored and obeyed.

    Raises:
        InvalidInput: `unsigned`, `bad-trust`, `stale-trust`, `trust-expired`, or as an envelope is refused.

    """
    if len(told.candidate) > MAX_ENVELOPE_BYTES:
        raise InvalidInput("too-large", f"{len(told.candidate)} bytes")
    roots: Roots = make_roots(told.roots, told.root_fingerprints, told.threshold)
    opened = open_bundle(told.candidate, roots, told.now)
    if told.mark is not None:
        require_newer(opened.bundle.version, opened.digest, told.mark.version, told.mark.sha256)
    require_current(opened.bundle, told.now)
    return opened
