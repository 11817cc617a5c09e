"""Opens sealed answers with the investigator's own gpg, and sees to it that asked-for seals can be opened.

Rules:
1. What gpg is given is exactly what agents make: at most so many session keys, then one integrity-protected
   packet; nothing else reaches gpg's parsers.
2. gpg must say that it decrypted, that the integrity code is good, and that there was one plaintext; what it
   writes is bounded, and so is its time. It follows no signature and asks no key server.
3. What comes out is believed no more than any other answer: `client.answers` verifies it from the start.
"""

from datetime import datetime
from typing import Any

from client.gpg import Gpg
from client.options import Choices
from client.signing import Signer
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.names import is_fingerprint
from protocol.openpgp_packets import Refusal, split_packets
from protocol.sealing import MAX_READERS, SIZE_CLASSES_BYTES

_TIMEOUT_S = 120.0  # a person may have to type a PIN, once: gpg-agent remembers it
_SESSION_KEY, _PROTECTED = 1, 18


class Unsealer:
    """Opens what is sealed to one investigator."""

    def __init__(self, gpg: Gpg, fingerprint: str) -> None:
        self._gpg = gpg
        self.fingerprint = fingerprint

    def open(self, sealed: bytes) -> bytes:
        """Return the plaintext.

        Raises:
            EnvironmentFailure: `gpg-missing`, `key-missing` or `gpg-failed`: it cannot be read here, and may
                be in order.
            InvalidInput: `hostile-answer`.

        """
        _require_framing(sealed)
        # gpg cuts off what is more and calls it good: the byte too many is seen here.
        limit = SIZE_CLASSES_BYTES[-1] + 1
        try:
            run = self._gpg.run(
                *("--no-auto-key-retrieve", "--skip-verify", "--max-output", str(limit)),
                *("--decrypt", "--output", "-"),
                data=sealed,
                max_output_bytes=SIZE_CLASSES_BYTES[-1],
                timeout_s=_TIMEOUT_S,
            )
        except InvalidInput as error:
            raise InvalidInput("hostile-answer", f"what is sealed cannot be read: {error.detail}") from None
        # Without this line gpg had no session key, so that nothing of the data was looked at.
        if not run.count("DECRYPTION_INFO"):
            if run.count("NO_SECKEY") >= run.count("ENC_TO"):
                text = f"sealed to {self.fingerprint}, whose secret key is not in {self._gpg.where}"
                raise EnvironmentFailure("key-missing", text)
            raise EnvironmentFailure("gpg-failed", f"gpg did not decrypt: {run.prose or 'no reason given'}")
        wanted = ("DECRYPTION_OKAY", "GOODMDC", "PLAINTEXT")
        if any(run.count(keyword) != 1 for keyword in wanted) or run.count("DECRYPTION_FAILED"):
            raise InvalidInput("hostile-answer", "what is sealed is damaged or not as agents make it")
        return run.output


def _require_framing(sealed: bytes) -> None:
    """Rule 1."""
    try:
        tags = [packet.tag for packet in split_packets(sealed, MAX_READERS + 1)]
    except Refusal as refusal:
        raise InvalidInput("hostile-answer", f"what is sealed is no OpenPGP message: {refusal}") from None
    if len(tags) < 2 or tags != [_SESSION_KEY] * (len(tags) - 1) + [_PROTECTED]:  # noqa: PLR2004  (key and data)
        raise InvalidInput("hostile-answer", "what is sealed is not an OpenPGP message as agents make it")


def name_readers(template: Any, choices: Choices, own: str) -> Any:
    """Return a template with the readers that the command line asks for; the investigator is always one.

    Raises:
        InvalidInput: `usage`.

    """
    if not choices.is_sealed or not isinstance(template, dict):
        return template
    given = [_parse_fingerprint(text) for text in choices.sealed_to]
    listed = template.get("sealed_to", [])
    named = listed if isinstance(listed, list) else [listed]  # what is no list is refused as any action's
    return {**template, "sealed_to": list(dict.fromkeys([*named, own, *given]))}


def _parse_fingerprint(text: str) -> str:
    # gpg prints fingerprints in groups of four; people paste them so.
    fingerprint = "".join(text.split()).upper().removeprefix("0X")
    if not is_fingerprint(fingerprint):
        raise InvalidInput("usage", f"{text!r} is not the fingerprint of a primary key, 40 hex digits")
    return fingerprint


def require_openable(signer: Signer, sealed_to: tuple[str, ...], now: datetime) -> None:
    """Raise where an agent would refuse to seal to one of these, as far as gpg's own keys tell.

    Raises:
        InvalidInput: `cannot-seal`.
        EnvironmentFailure: `gpg-missing`.

    """
    if not sealed_to:
        return
    from protocol.openpgp import parse_certificate  # noqa: PLC0415  (slow)
    from protocol.openpgp_encryption import require_recipient  # noqa: PLC0415  (slow)

    for fingerprint in sealed_to:
        exported = signer.export(fingerprint)
        if not exported:
            continue  # agents have their own list
        try:
            require_recipient(parse_certificate(exported), now)
        except InvalidInput as error:
            raise InvalidInput("cannot-seal", f"{fingerprint}: {error.detail}") from None
