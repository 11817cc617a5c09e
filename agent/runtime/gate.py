"""The gate: the only way into an agent.

A signed action passes ten steps in this order; the first that fails ends it with a coded refusal, and nothing
that the action asks for has run by then.

 1. size        no larger than an envelope may be
 2. envelope    strict JSON, exactly the members of an envelope, of the type `action`, its base64 valid
 3. signatures  the trust bundle is there and has not expired; at least one signature, over these very bytes,
                by a key that it trusts; each primary key counts once; one that does not verify or whose key
                is unknown counts nothing
 4. decoding    the payload is strict JSON of exactly an action's shape; only bytes that passed 3 come here
 5. validity    now lies within [validfrom, expireafter), and that span is at most `max_validity_s`; with a
                schedule at most `max_schedule_s`, and an occurrence of it is due: now lies within its grace,
                and none is later. Which one, is computed here; what a server says of it is not read
 6. replay      it was not run before, this occurrence nor a later one, and none of its signers cancelled it
 7. target      the signed target matches this endpoint, the terms that only the platform can judge left out
 8. modules     each is built in, under its canonical name, and works on this platform; its parameters decode
                by the module's declaration; no code of a module runs
 9. ACL         for every operation the weights of the signers reach what its module needs, and the paths that
                its parameters name are allowed, and so is asking for matched text; everyone to whom the
                answer is sealed is trusted and can be encrypted to now (`agent.runtime.readers`)
10. limits      no more operations than this agent allows

Nothing here knows aliases or the ancestor's spellings: the client rewrites them before signing. Step 9 judges
paths as they are written; what is really opened is held to the same rules by whoever opens it
(`agent.scan.fence`).

Step 6 is decided by who writes the journal. A child passes no `require_not_run`: there the step comes last,
as the insert with which the resident permits it to run, since that cannot be taken back
(`agent.runtime.child`).
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable, Dict, FrozenSet, Iterator, NamedTuple, Optional, Tuple

import msgspec

from agent.module import asks_for_fields, decode_params, named_paths
from agent.registry import Module, load_module
from agent.runtime.answers import NO_OCCURRENCE
from agent.runtime.readers import require_recipients
from agent.runtime.trust import Trust
from protocol.acl import PathRules
from protocol.action import Action, convert_action
from protocol.envelope import ACTION, MAX_ENVELOPE_BYTES, Envelope, decode_envelope
from protocol.errors import InvalidInput
from protocol.names import ACTION_ID
from protocol.schedule import format_occurrence
from protocol.strictjson import decode_json
from protocol.target import Endpoint, parse_target

if TYPE_CHECKING:
    from protocol.openpgp_encryption import Recipient

RequireNotRun = Callable[[str, str, datetime, FrozenSet[str]], None]
_NAMES_SHOWN = 8


class Refusal(InvalidInput):
    """The gate's no: the step that failed, the code, one line, and id and occurrence where they are known."""

    def __init__(
        self, step: int, code: str, detail: str, action_id: str = "", occurrence: str = NO_OCCURRENCE
    ) -> None:
        super().__init__(code, detail)
        self.step = step
        self.action_id = action_id
        self.occurrence = occurrence


class Admission(NamedTuple):
    """An action that passed, with the digest of the very bytes that were signed and who signed them.

    `occurrence` is the one that is due, `expires` the time from which it may not be started any more;
    `recipients` are the keys that its answer is sealed to; none where it is not. `paths` are the rules to
    which each operation, in order, is to be held.
    """

    action: Action
    digest: str
    signers: FrozenSet[str]
    occurrence: str
    expires: datetime
    recipients: "Tuple[Recipient, ...]" = ()
    paths: Tuple[PathRules, ...] = ()


# What each step checks, in order; step numbers count from 1.
STEPS = (
    "size",
    "envelope",
    "signatures",
    "decoding",
    "validity",
    "replay",
    "target",
    "modules",
    "ACL",
    "limits",
)


class Verdict(NamedTuple):
    """What one step says: `refusal` is None where it passed."""

    step: int
    refusal: Optional[Refusal]


def make_endpoint(facts: Dict[str, Any]) -> Endpoint:
    """Return what targets are matched with, of the endpoint's facts."""
    names = ("id", "name", "os", "arch", "ident", "version", "tags", "environment")
    return msgspec.convert({name: facts[name] for name in names}, Endpoint)


def require_allowed_paths(rules: PathRules, module: Module, parameters: Any) -> None:
    """Raise unless every path that the parameters name is allowed, as it is written.

    Raises:
        InvalidInput: `acl-refused`, also where rules are to hold a module that does not say what it reads.

    """
    if rules.is_open:
        return
    if module.paths is None:
        raise InvalidInput("acl-refused", "its ACL entry limits paths, and the module cannot be held to any")
    rules.require(named_paths(module.paths, parameters))


def require_allowed_fields(module: Module, parameters: Any, *, is_allowed: bool) -> None:
    """Raise where the parameters ask for matched text itself, and that is not allowed.

    Raises:
        InvalidInput: `acl-refused`.

    """
    if not is_allowed and asks_for_fields(module.fields, parameters):
        names = ", ".join(module.fields)
        raise InvalidInput("acl-refused", f"{names}: its ACL entry does not say fields = true")


class Gate:
    """Judges one delivery.

    Args:
        body: what was delivered, byte for byte.
        trust: whom this agent obeys.
        endpoint: what the target is matched with.
        now: aware UTC time.
        require_not_run: raises `replayed`, `cancelled` or `journal-closed` for (digest, occurrence, when it
            expires, signers); None leaves step 6 to the resident.

    """

    def __init__(
        self,
        body: bytes,
        *,
        trust: Trust,
        endpoint: Endpoint,
        now: datetime,
        require_not_run: Optional[RequireNotRun] = None,
    ) -> None:
        self._body = body
        self._trust = trust
        self._endpoint = endpoint
        self._now = now
        self._require_not_run = require_not_run
        self._action_id = ""
        self._occurrence = NO_OCCURRENCE
        # Each is set by the step that establishes it and read by later ones only.
        self._envelope: Envelope
        self._signers: FrozenSet[str]
        self._action: Action
        self._recipients: Tuple[Recipient, ...] = ()
        self._is_sealed = False
        self._expires: datetime

    def admit(self) -> Admission:
        """Take all steps and return the admitted action.

        Raises:
            Refusal: by the first step that fails.

        """
        for verdict in self.judge():
            if verdict.refusal is not None:
                raise verdict.refusal
        return Admission(
            self._action,
            self._envelope.digest,
            self._signers,
            self._occurrence,
            self._expires,
            self._recipients,
            tuple(self._trust.acl.path_rules(one.module) for one in self._action.operations),
        )

    def tell(self, refusal: Refusal) -> str:
        """Return what the platform may know of a refusal: of a sealed action, what its code means."""
        is_public = not self._is_sealed or refusal.code == "cannot-seal"
        return refusal.detail if is_public else refusal.info.text

    def judge(self) -> Iterator[Verdict]:
        """Take the steps one by one; the first refusal is the last verdict."""
        checks = (
            self._check_size,
            self._check_envelope,
            self._check_signatures,
            self._check_decoding,
            self._check_validity,
            self._check_replay,
            self._check_target,
            self._check_modules,
            self._check_acl,
            self._check_limits,
        )
        for step, check in enumerate(checks, start=1):
            try:
                check()
            except InvalidInput as error:
                yield Verdict(
                    step, Refusal(step, error.code, error.detail, self._action_id, self._occurrence)
                )
                return
            yield Verdict(step, None)

    def _check_size(self) -> None:
        if len(self._body) > MAX_ENVELOPE_BYTES:
            raise InvalidInput("too-large", f"{len(self._body)} bytes, at most {MAX_ENVELOPE_BYTES} allowed")

    def _check_envelope(self) -> None:
        self._envelope = decode_envelope(self._body, ACTION)

    def _check_signatures(self) -> None:
        self._trust.require_in_force(self._now)
        check = self._trust.keyring.signers(self._envelope, self._now)
        if not check.fingerprints:
            reasons = "; ".join(f"{keyid[:40]}: {reason}" for keyid, reason in check.refusals[:_NAMES_SHOWN])
            raise InvalidInput("unsigned", reasons or "the envelope carries no signature")
        self._signers = frozenset(check.fingerprints)

    def _check_decoding(self) -> None:
        value = decode_json(self._envelope.payload)
        claimed = value.get("id") if isinstance(value, dict) else None
        # Signed by someone trusted, so that a refusal from here on may be answered where there is an id.
        if isinstance(claimed, str) and ACTION_ID.match(claimed):
            self._action_id = claimed
        self._action = convert_action(value)
        self._is_sealed = bool(self._trust.sealing.readers(self._action.sealed_to))

    def _check_validity(self) -> None:
        validfrom, expireafter = self._action.validfrom, self._action.expireafter
        if self._now < validfrom:
            raise InvalidInput("not-yet-valid", f"valid from {validfrom}, here it is {self._now}")
        if self._now >= expireafter:
            raise InvalidInput("expired", f"expired at {expireafter}, here it is {self._now}")
        trust = self._trust
        allowed = trust.max_validity if self._action.schedule is None else trust.max_schedule
        if expireafter - validfrom > allowed:
            raise InvalidInput("validity-too-long", f"valid for {expireafter - validfrom}, allowed {allowed}")
        self._expires = expireafter
        self._check_due()

    def _check_due(self) -> None:
        calendar = self._action.calendar
        if calendar is None:
            return
        latest = calendar.latest(self._now)
        if latest is None:
            raise InvalidInput("not-due", f"here it is {self._now}, before the first occurrence")
        self._occurrence = format_occurrence(latest)
        self._expires = latest + calendar.grace
        if self._now >= self._expires:
            raise InvalidInput(
                "not-due", f"the latest occurrence was due until {self._expires}, here it is {self._now}"
            )

    def _check_replay(self) -> None:
        if self._require_not_run is not None:
            self._require_not_run(self._envelope.digest, self._occurrence, self._expires, self._signers)

    def _check_target(self) -> None:
        enforced = parse_target(self._action.target).enforced()
        if not enforced.matches(self._endpoint):
            raise InvalidInput("not-targeted", f"{str(enforced)[:512]} does not match {self._endpoint.name}")

    def _check_modules(self) -> None:
        for number, operation in enumerate(self._action.operations, start=1):
            module = load_module(operation.module)
            if not module.is_supported():
                raise InvalidInput("unsupported", f"operation {number}: {module.name} on this platform")
            try:
                decode_params(module.params, operation.parameters)
            except InvalidInput as error:
                raise InvalidInput(error.code, f"operation {number}, {module.name}: {error.detail}") from None

    def _check_acl(self) -> None:
        for number, operation in enumerate(self._action.operations, start=1):
            module = load_module(operation.module)
            self._trust.acl.require(module.name, self._signers, module.minimum_weight)
            rules = self._trust.acl.path_rules(module.name)
            try:
                require_allowed_paths(rules, module, operation.parameters)
                allowed = self._trust.acl.allows_fields(module.name)
                require_allowed_fields(module, operation.parameters, is_allowed=allowed)
            except InvalidInput as error:
                detail = f"operation {number}, {operation.module}: {error.detail}"
                raise InvalidInput(error.code, detail) from None
        self._recipients = require_recipients(
            self._action.sealed_to, self._trust.sealing, self._trust.keyring, self._now
        )

    def _check_limits(self) -> None:
        count, allowed = len(self._action.operations), self._trust.limits.max_operations
        if count > allowed:
            raise InvalidInput("over-limit", f"{count} operations, at most {allowed} allowed")
