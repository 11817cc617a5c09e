"""Judges the signatures of an action for its reader: who signed, and would an agent believe it."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from client.screen import printable
from protocol.envelope import Envelope
from protocol.errors import InvalidInput
from protocol.names import is_fingerprint
from protocol.openpgp import Certificate, parse_certificate, require_detached_signature

_MAX_KEY_FILE_BYTES = 1 << 19


class SignerVerdict(NamedTuple):
    """What is to be said of one signature: `reason` is empty where it is accepted."""

    keyid: str
    user_id: str
    reason: str


def judge_signatures(
    envelope: Envelope, find_certificate: Callable[[str], bytes], now: datetime
) -> list[SignerVerdict]:
    """Return a verdict for each signature, in the envelope's order.

    Args:
        envelope: an action's.
        find_certificate: gives the certificate of a fingerprint; empty where there is none.
        now: aware.

    """
    verdicts = []
    for signature in envelope.signatures:
        keyid, user_id, reason = printable(signature.keyid, 64), "", ""
        try:
            certificate = _require_certificate(signature.keyid, find_certificate)
            user_id = printable(certificate.user_ids[0], 120) if certificate.user_ids else ""
            require_detached_signature(certificate, signature.sig, envelope.signed_bytes, now)
        except InvalidInput as error:
            reason = error.detail
        verdicts.append(SignerVerdict(keyid, user_id, reason))
    return verdicts


def _require_certificate(fingerprint: str, find_certificate: Callable[[str], bytes]) -> Certificate:
    data = find_certificate(fingerprint) if is_fingerprint(fingerprint) else b""
    if not data:
        raise InvalidInput("bad-key", "there is no such key")
    certificate = parse_certificate(data)
    if certificate.fingerprint != fingerprint:
        raise InvalidInput("bad-key", f"names a subkey of {certificate.fingerprint}")
    return certificate


def load_key_directory(directory: Path) -> dict[str, bytes]:
    """Return the certificates in a directory, one a file, by primary fingerprint.

    Raises:
        InvalidInput: `bad-key`, with the file, where one cannot be read as a certificate.

    """
    found = {}
    try:
        for path in sorted(directory.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                with path.open("rb") as file:
                    data = file.read(_MAX_KEY_FILE_BYTES)
                try:
                    found[parse_certificate(data).fingerprint] = data
                except InvalidInput as error:
                    raise InvalidInput("bad-key", f"{path}: {error.detail}") from None
    except OSError as error:
        raise InvalidInput("bad-key", f"{directory}: {error.strerror}") from None
    return found
