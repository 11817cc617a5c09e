"""The investigators' certificates that are trusted, and who of them signed an envelope.

Rules:
1. A signature's `keyid` selects one certificate by its primary key's full fingerprint, 40 upper-case hex
   digits; a key id, a subkey's fingerprint or another spelling selects none.
2. The signature must be one that `protocol.openpgp` believes, of that certificate, over the envelope's bytes.
3. Signers are distinct primary keys: who signs twice counts once, also with two subkeys.
4. What selects no certificate, or does not verify, counts zero and is named with its reason.
"""

from datetime import datetime
from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple

from protocol.envelope import Envelope
from protocol.errors import InvalidInput
from protocol.openpgp import Certificate, require_detached_signature


class SignerCheck(NamedTuple):
    """Who signed: primary fingerprints, each once; and (keyid, reason) of every signature that counts zero.

    A keyid is hostile text.
    """

    fingerprints: FrozenSet[str]
    refusals: Tuple[Tuple[str, str], ...]


class Keyring:
    """Trusted certificates by primary fingerprint. An empty one trusts nobody."""

    def __init__(self, certificates: Iterable[Certificate]) -> None:
        self._certificates: Dict[str, Certificate] = {}
        for certificate in certificates:
            # Two versions of one key may differ in a revocation: which of them is meant would be a guess.
            if certificate.fingerprint in self._certificates:
                raise InvalidInput("bad-key", f"two certificates of {certificate.fingerprint}")
            self._certificates[certificate.fingerprint] = certificate

    @property
    def fingerprints(self) -> FrozenSet[str]:
        """The primary fingerprints that are trusted."""
        return frozenset(self._certificates)

    def find(self, fingerprint: str) -> Optional[Certificate]:
        """Return the trusted certificate with this primary fingerprint, or None."""
        return self._certificates.get(fingerprint)

    def signers(self, envelope: Envelope, now: datetime) -> SignerCheck:
        """Tell who signed the envelope; it is for the caller to refuse where that is not enough."""
        signers: Set[str] = set()
        refusals: List[Tuple[str, str]] = []
        message = envelope.signed_bytes
        for signature in envelope.signatures:
            certificate = self._certificates.get(signature.keyid)
            if certificate is None:
                refusals.append((signature.keyid, "not the fingerprint of a trusted key"))
                continue
            try:
                require_detached_signature(certificate, signature.sig, message, now)
            except InvalidInput as refusal:
                refusals.append((signature.keyid, refusal.detail))
            else:
                signers.add(certificate.fingerprint)
        return SignerCheck(frozenset(signers), tuple(refusals))
