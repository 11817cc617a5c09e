"""What the resident tells of whom it obeys, to platform and owner: version, expiry, state.

It only tells. Whether anybody is obeyed is decided by a child for each action (`agent.runtime.trust`), by the
same rules. Standard library only: the resident agent imports this module.
"""

import re
from datetime import datetime, timezone
from typing import NamedTuple, Optional

from agent.config import Baked
from agent.runtime.trust_store import Held
from protocol.envelope import TRUST, decode_envelope
from protocol.errors import InvalidInput
from protocol.strictjson import decode_json

IN_FORCE, EXPIRED, MISSING = "in-force", "expired", "missing"
# What `protocol.trust` takes for a time: RFC 3339, section 5.6, in UTC. Fractions of seconds are not told.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.\d+)?(?:[Zz]|[+-]00:?00)\Z")
_FIRST_YEAR, _LAST_YEAR = 1970, 2999  # what a heartbeat may tell (`protocol.action.require_utc`)


class TrustState(NamedTuple):
    """The bundle that is held (0: what was baked in; None: lost), until when it is good, and what is wrong.

    `expires` is None where it never does, and of a bundle that is lost. `problem` says why nobody is obeyed.
    """

    version: Optional[int]
    expires: Optional[datetime]
    state: str
    problem: str = ""

    def describe(self) -> str:
        """Say it in one line, for the machine's owner."""
        if self.problem:
            return f"nobody is obeyed: {self.problem}"
        origin = f"bundle {self.version}" if self.version else "bundle 0, built in"
        return origin if self.expires is None else f"{origin}, good until {self.expires.isoformat()}"


def read_expiry(bundle: bytes) -> Optional[datetime]:
    """Return when a stored bundle expires; None where there is none, or none that says so."""
    if not bundle:
        return None
    try:
        payload = decode_json(decode_envelope(bundle, TRUST).payload)
    except InvalidInput:
        return None
    return parse_expiry(payload.get("expires") if isinstance(payload, dict) else None)


def parse_expiry(text: object) -> Optional[datetime]:
    """Return the time that a bundle or the configuration names, to the second; None where it is none."""
    match = _TIME.match(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        time = datetime.fromisoformat(f"{match[1]}T{match[2]}+00:00")
    except ValueError:
        return None
    return time.astimezone(timezone.utc) if _FIRST_YEAR <= time.year <= _LAST_YEAR else None


def state_of_trust(
    baked: Baked, held: Held, bundle_expires: Optional[datetime], refusal: str, now: datetime
) -> TrustState:
    """Say how it stands with trust.

    Args:
        baked: what was built in.
        held: what is stored.
        bundle_expires: of the stored bundle, as `read_expiry` says.
        refusal: why nobody is obeyed, as the last child said; empty where it did not.
        now: aware UTC, the endpoint's own clock.

    """
    version: Optional[int] = 0
    expires = parse_expiry(baked.config.trust.expires)
    if baked.config.trust.roots:
        if refusal or held.mark is None or (held.mark.version and not held.bundle):
            return TrustState(None, None, MISSING, refusal or "waiting for a bundle")
        if held.bundle:
            version, expires = held.mark.version, bundle_expires
    if expires is not None and now >= expires:
        return TrustState(version, expires, EXPIRED, f"bundle {version} expired at {expires.isoformat()}")
    return TrustState(version, expires, IN_FORCE)
