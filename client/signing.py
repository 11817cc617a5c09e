"""Signs with the investigator's own gpg, so that keys, smartcards and passphrases never enter this process.

Rules:
1. gpg is run with fixed arguments and without a shell (`client.gpg`); what is signed goes through its
   standard input.
2. Only its status lines count, never its exit code or its prose (GnuPG, doc/DETAILS).
3. A signature is used only after our own OpenPGP policy accepted it for the configured certificate: a key or
   a setting that every agent would refuse is seen at once, where it can be put right.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from client.gpg import Gpg, Run
from protocol.envelope import Envelope, Signature, pae
from protocol.errors import EnvironmentFailure, InvalidInput

if TYPE_CHECKING:
    from protocol.openpgp import Certificate

# Not --digest-algo SHA256: gpg 2.2 and 2.4 then fail on P-384 and P-521, which need a longer digest.
_DIGESTS = "SHA256 SHA384 SHA512"
_INVALID_SIGNER = {
    "1": "there is no such key",
    "4": "the key is revoked",
    "5": "the key has expired",
    "9": "there is no such secret key",
    "10": "the key is disabled",
    "13": "the key may not sign",
}
_MISSING = frozenset({"0", "1", "9"})


class Signer:
    """Signs as one investigator.

    Args:
        fingerprint: the primary key's, 40 upper-case digits.
        program: gpg, by name or path.
        home: GnuPG's home directory; empty for its default.
        is_interactive: whether a person at a terminal may be asked for a passphrase.

    """

    def __init__(
        self, *, fingerprint: str, program: str = "gpg", home: str = "", is_interactive: bool | None = None
    ) -> None:
        self.fingerprint = fingerprint
        self.gpg = Gpg(program=program, home=home, is_interactive=is_interactive)
        self._certificate: Certificate | None = None

    def sign(self, kind: str, payload: bytes, *, now: datetime | None = None) -> Envelope:
        """Return the envelope of type `kind` (a media type) over `payload`, with this one signature.

        Raises:
            EnvironmentFailure: `gpg-missing`, `key-missing` or `gpg-failed`.
            InvalidInput: `bad-key` or `bad-signature` where agents would refuse the key or the signature.

        """
        return self.add_signature(Envelope(kind, payload, ()), now=now)

    def add_signature(self, envelope: Envelope, *, now: datetime | None = None) -> Envelope:
        """Return the envelope with this investigator's signature added; one made before is replaced.

        Raises:
            EnvironmentFailure, InvalidInput: as `sign`.

        """
        message = pae(envelope.payload_type, envelope.payload)
        run = self.gpg.run(
            *("--personal-digest-preferences", _DIGESTS, "--no-armor", "--no-textmode"),
            *("--local-user", self.fingerprint, "--detach-sign", "--output", "-"),
            data=message,
            meanwhile=_load_policy,
        )
        self._require_created(run)
        self._require_accepted(run.output, message, now or datetime.now(UTC))
        others = tuple(entry for entry in envelope.signatures if entry.keyid != self.fingerprint)
        return envelope._replace(signatures=(*others, Signature(self.fingerprint, run.output)))

    def export(self, fingerprint: str) -> bytes:
        """Return the certificate that gpg holds under a fingerprint, binary; empty where it has none.

        Raises:
            EnvironmentFailure: `gpg-missing`.

        """
        return self.gpg.run("--export", fingerprint, data=b"").output

    def _require_created(self, run: Run) -> None:
        for words in run.status:
            if words[0] == "INV_SGNR":
                reason = words[1] if len(words) > 1 else "0"
                text = _INVALID_SIGNER.get(reason, "gpg cannot use the key")
                code = "key-missing" if reason in _MISSING else "gpg-failed"
                raise EnvironmentFailure(code, f"{self.fingerprint} in {self.gpg.where}: {text}")
        created = [words for words in run.status if words[0] == "SIG_CREATED"]
        # "SIG_CREATED <type> <pk_algo> <hash_algo> <class> <timestamp> <keyfpr>", D for detached
        if len(created) != 1 or created[0][1:2] != ("D",) or not run.output:
            raise EnvironmentFailure(
                "gpg-failed", f"gpg made no signature: {run.prose or 'it gave no reason'}"
            )

    def _require_accepted(self, signature: bytes, message: bytes, now: datetime) -> None:
        from protocol.openpgp import parse_certificate, require_detached_signature  # noqa: PLC0415  (slow)

        if self._certificate is None:
            certificate = parse_certificate(self.export(self.fingerprint))
            if certificate.fingerprint != self.fingerprint:
                raise InvalidInput(
                    "bad-key",
                    f"{self.fingerprint} is a subkey: configure its primary key {certificate.fingerprint}",
                )
            self._certificate = certificate
        require_detached_signature(self._certificate, signature, message, now)


def _load_policy() -> None:
    import protocol.openpgp  # noqa: F401, PLC0415  (some 30 ms, while gpg starts)
