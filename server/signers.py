"""Who signed what comes to the API: the investigators that this server knows, under the OpenPGP policy.

This is a courtesy and an audit, not the gate: agents trust only the keys baked into them. An agent counts a
bad signature as nothing; here it is refused, since storing it could help nobody.
"""

from collections.abc import Iterable
from datetime import datetime

from protocol.envelope import Envelope
from protocol.errors import InvalidInput
from protocol.keyring import Keyring
from protocol.openpgp import parse_certificate
from server.rows import InvestigatorRow


def require_signers(
    envelope: Envelope, investigators: Iterable[InvestigatorRow], now: datetime
) -> frozenset[str]:
    """Return who signed the envelope; every signature in it must be by an active investigator and verify.

    Takes milliseconds of computing: not for the event loop.

    Raises:
        InvalidInput: `unsigned` or `bad-signature`.

    """
    if not envelope.signatures:
        raise InvalidInput("unsigned", "the envelope carries no signature")
    named = {signature.keyid for signature in envelope.signatures}
    keyring = Keyring(
        parse_certificate(investigator.public_key)
        for investigator in investigators
        if investigator.status == "active" and investigator.fingerprint in named
    )
    check = keyring.signers(envelope, now)
    for keyid, reason in check.refusals:
        if keyid not in keyring.fingerprints:
            raise InvalidInput("bad-signature", f"{keyid[:64]!r} is no active investigator of this server")
        raise InvalidInput("bad-signature", f"signature by {keyid}: {reason}")
    return check.fingerprints
