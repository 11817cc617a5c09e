"""Who may read an answer: the investigators to whom it is sealed, and the sealing itself, in the child.

Rules:
1. An answer is sealed to everyone whom the action names in `sealed_to` and everyone whom the build names in
   `seal_to`. Nobody at all: it is not sealed, unless the build says `require_sealed`, which refuses an action
   that names nobody.
2. Each must be a trusted investigator whose certificate holds, now, a key that may be encrypted to
   (`protocol.openpgp_encryption`). One that fails refuses the whole action before anything runs: an answer
   that only some of those can read for whom it was asked is not the answer that was signed for.
3. What is sealed is the complete envelope that the agent signed, padded (`protocol.sealing`).
4. What a refused action is told says no more than the code: details quote parameters and the endpoint.

The mathematics is imported only for an action that is sealed: 2 MiB that other children do not need.
"""

from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, Sequence, Tuple

from protocol.errors import InvalidInput
from protocol.keyring import Keyring
from protocol.sealing import pad

if TYPE_CHECKING:
    from protocol.openpgp_encryption import Recipient


class Sealing(NamedTuple):
    """What the build demands: investigators to whom all is sealed, and whether an action must name some."""

    seal_to: Tuple[str, ...] = ()
    is_required: bool = False

    def readers(self, named: Sequence[str]) -> Tuple[str, ...]:
        """Return the fingerprints of all who are to read an answer, each once."""
        return tuple(dict.fromkeys((*named, *self.seal_to)))


def require_recipients(
    named: Sequence[str], sealing: Sealing, keyring: Keyring, now: datetime
) -> "Tuple[Recipient, ...]":
    """Return the keys that an answer is sealed to; none where it is not sealed (rules 1 and 2).

    Raises:
        InvalidInput: `cannot-seal`, with the first investigator who could not read it, and why.

    """
    if sealing.is_required and not named:
        raise InvalidInput("cannot-seal", "this agent answers only actions with sealed_to")
    readers = sealing.readers(named)
    if not readers:
        return ()
    from protocol.openpgp_encryption import require_recipient  # noqa: PLC0415  (see above)

    recipients = []
    for fingerprint in readers:
        certificate = keyring.find(fingerprint)
        if certificate is None:
            raise InvalidInput("cannot-seal", f"{fingerprint} is not a trusted investigator")
        try:
            recipients.append(require_recipient(certificate, now))
        except InvalidInput as error:
            raise InvalidInput("cannot-seal", f"{fingerprint}: {error.detail}") from None
    return tuple(recipients)


def seal(envelope: bytes, recipients: "Sequence[Recipient]") -> bytes:
    """Return a signed result as an OpenPGP message to the recipients (rule 3).

    Raises:
        InvalidInput: `too-large` or `cannot-seal`.

    """
    from protocol.openpgp_encryption import encrypt  # noqa: PLC0415  (see above)

    return encrypt(pad(envelope), recipients)
