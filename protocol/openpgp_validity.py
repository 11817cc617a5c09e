"""Whether a certificate's key may sign, or be encrypted to, now: rules 9 to 13 of `protocol.openpgp`.

A positive signature (self-signature, binding, back-signature) needs everything in order; what is not counts
for nothing, and without one that counts the key is refused. A revocation needs only to verify.
"""

from typing import Container, List, Optional, Sequence, Tuple

from protocol.openpgp_certificate import (
    CERTIFICATION_REVOCATION,
    KEY_REVOCATION,
    SUBKEY_REVOCATION,
    Certificate,
    Subkey,
)
from protocol.openpgp_keys import (
    ALL_HASHES,
    STRONG_HASHES,
    PublicKey,
    is_signed_at_all,
    is_strongly_signed,
    load_key,
)
from protocol.openpgp_packets import KeyPacket, Refusal, SignaturePacket, parse_signature
from protocol.openpgp_statement import (
    ENCRYPT_FLAGS,
    KEY_ID_BYTES,
    SIGN_FLAG,
    Statement,
    claimed_issuers,
    read_key_statement,
)

_CERTIFICATIONS = range(0x10, 0x14)
_SUBKEY_BINDING = (0x18,)
_BACK_SIGNATURE = (0x19,)
_DIRECT_KEY = (0x1F,)
_NEVER = -1
_FOR_EVER = 1 << 32  # beyond every time that OpenPGP can state


class Judge:
    """Judges one certificate at one time, in Unix seconds."""

    def __init__(self, certificate: Certificate, now_s: int) -> None:
        self._certificate = certificate
        self._now_s = now_s
        self._key = certificate.primary
        self._primary = load_key(certificate.primary)

    def require_signer(self, subkey: Optional[Subkey]) -> PublicKey:
        """Return the key that signs, of a subkey or, without one, the primary key.

        Raises:
            Refusal: the key may not sign now.

        """
        current = self._require_primary()
        if subkey is None:
            _require_use(current, SIGN_FLAG, "the primary key is not allowed to sign")
            return self._primary
        public = load_key(subkey.key)
        current = self._require_subkey(subkey)
        _require_use(current, SIGN_FLAG, "the subkey is not allowed to sign")
        self._require_back_signature(subkey.key, public, self._subject(subkey), current)
        return public

    def require_reader(self, subkey: Optional[Subkey]) -> None:
        """Require that a subkey or, without one, the primary key may be encrypted to now.

        Raises:
            Refusal: it may not.

        """
        current = self._require_primary()
        if subkey is not None:
            current = self._require_subkey(subkey)
        what = "the primary key" if subkey is None else "the subkey"
        _require_use(current, ENCRYPT_FLAGS, f"{what} is not for encryption")

    def _require_primary(self) -> List[Statement]:
        """Rules 9 to 11: what the primary key's current self-signatures say, where it may be used at all."""
        self._require_not_revoked(KEY_REVOCATION, self._key.subject, "the primary key")
        statements = self._require_self_signed()
        self._require_no_designated_revocation(statements)
        current = _latest(statements, "the primary key")
        self._require_not_expired(self._key, current, "the primary key")
        return current

    def _require_subkey(self, subkey: Subkey) -> List[Statement]:
        """Rule 12, but for the back-signature, which only signing needs."""
        subject = self._subject(subkey)
        self._require_not_revoked(SUBKEY_REVOCATION, subject, "the subkey")
        current = _latest(self._require_bound(subkey, subject), "the subkey")
        self._require_not_expired(subkey.key, current, "the subkey")
        return current

    def _subject(self, subkey: Subkey) -> bytes:
        return self._key.subject + subkey.key.subject

    def _require_not_revoked(self, kind: int, subject: bytes, what: str) -> None:
        """Rules 9 and 12: revocations count wherever in the certificate they stand."""
        for signature in self._certificate.signatures:
            if signature.type == kind and self._is_revocation(signature, subject):
                raise Refusal(f"{what} is revoked")

    def _is_revocation(self, signature: SignaturePacket, subject: bytes) -> bool:
        """Tell whether the primary key made this revocation; its subpackets do not matter."""
        if signature.algorithm != self._key.algorithm:
            return False
        if signature.hash_algorithm not in ALL_HASHES:
            issuers = claimed_issuers(signature)
            if not issuers or any(_names(issuer, self._key.fingerprint) for issuer in issuers):
                raise Refusal(
                    f"a revocation with hash algorithm {signature.hash_algorithm} cannot be checked"
                )
        return is_signed_at_all(self._primary, signature, subject)

    def _require_no_designated_revocation(self, statements: Sequence[Statement]) -> None:
        """Rule 9: a revocation by a key that the owner named for it cannot be checked without that key."""
        revokers = {revoker for statement in statements for revoker in statement.revokers}
        for signature in self._certificate.signatures:
            if signature.type == KEY_REVOCATION and any(
                _names(issuer, revoker) for issuer in claimed_issuers(signature) for revoker in revokers
            ):
                raise Refusal("a revocation by a designated revoker cannot be checked")

    def _require_self_signed(self) -> List[Statement]:
        """Rule 10: what the self-signatures that count say."""
        key = self._key
        parts: List[Tuple[Container[int], bytes, Sequence[SignaturePacket]]] = [
            (_DIRECT_KEY, key.subject, self._certificate.direct)
        ]
        parts += [
            (_CERTIFICATIONS, key.subject + user_id.subject, user_id.signatures)
            for user_id in self._certificate.ids
        ]
        statements: List[Statement] = []
        reasons: List[str] = []
        for types, subject, signatures in parts:
            revoked_at = self._revoked_at(subject, signatures)
            for statement in self._statements(types, subject, signatures, key.created, reasons):
                if statement.created > revoked_at:
                    statements.append(statement)
                else:
                    reasons.append("its user id is revoked")
        if not statements:
            raise Refusal(f"the primary key has no self-signature that counts{_because(reasons)}")
        return statements

    def _revoked_at(self, subject: bytes, signatures: Sequence[SignaturePacket]) -> int:
        """Return when a user id was last revoked; what is certified later stands (RFC 4880, 5.2.1, 0x30)."""
        revoked_at = _NEVER
        for signature in signatures:
            if signature.type == CERTIFICATION_REVOCATION and self._is_revocation(signature, subject):
                try:
                    statement = read_key_statement(signature, self._key.fingerprint, self._now_s)
                except Refusal:
                    return _FOR_EVER
                revoked_at = max(revoked_at, statement.created)
        return revoked_at

    def _require_bound(self, subkey: Subkey, subject: bytes) -> List[Statement]:
        """Rule 12: what the bindings that count say."""
        reasons: List[str] = []
        not_before = max(self._key.created, subkey.key.created)
        statements = self._statements(_SUBKEY_BINDING, subject, subkey.signatures, not_before, reasons)
        if not statements:
            raise Refusal(f"the subkey has no binding signature that counts{_because(reasons)}")
        return statements

    def _statements(
        self,
        types: Container[int],
        subject: bytes,
        signatures: Sequence[SignaturePacket],
        not_before: int,
        reasons: List[str],
    ) -> List[Statement]:
        """Read the signatures by the primary key that count; say of the others in `reasons` why not."""
        statements: List[Statement] = []
        for signature in signatures:
            if signature.type in types and self._is_by_primary(signature):
                try:
                    statements.append(
                        _read_positive(
                            signature,
                            self._key,
                            self._primary,
                            subject,
                            not_before=not_before,
                            now_s=self._now_s,
                        )
                    )
                except Refusal as refusal:
                    reasons.append(str(refusal))
        return statements

    def _is_by_primary(self, signature: SignaturePacket) -> bool:
        """Tell whether it may be the primary key's, which spares the check of others' signatures."""
        issuers = claimed_issuers(signature)
        return not issuers or any(_names(issuer, self._key.fingerprint) for issuer in issuers)

    def _require_not_expired(self, key: KeyPacket, current: Sequence[Statement], what: str) -> None:
        """Rule 11."""
        for statement in current:
            lifetime = statement.key_lifetime_s
            if lifetime is not None and key.created + lifetime <= self._now_s:
                raise Refusal(f"{what} has expired")

    def _require_back_signature(
        self, key: KeyPacket, public: PublicKey, subject: bytes, current: Sequence[Statement]
    ) -> None:
        """Rule 12: without it anybody could claim another's subkey as their own."""
        reasons: List[str] = []
        for body in (body for statement in current for body in statement.back_signatures):
            try:
                signature = parse_signature(body)
                if signature.type in _BACK_SIGNATURE:
                    _read_positive(signature, key, public, subject, not_before=key.created, now_s=self._now_s)
                    return
            except Refusal as refusal:
                reasons.append(str(refusal))
        raise Refusal(f"the subkey has no back-signature that counts{_because(reasons)}")


def _read_positive(
    signature: SignaturePacket,
    key: KeyPacket,
    public: PublicKey,
    subject: bytes,
    *,
    not_before: int,
    now_s: int,
) -> Statement:
    """Return what a signature by `key` says, where everything about it is in order (rule 10)."""
    if signature.algorithm != key.algorithm:
        raise Refusal("it was made with another algorithm than the key's")
    if signature.hash_algorithm not in STRONG_HASHES:
        raise Refusal(f"hash algorithm {signature.hash_algorithm} is too weak")
    statement = read_key_statement(signature, key.fingerprint, now_s)
    if statement.created < not_before:
        raise Refusal("it was created before the key")
    if not is_strongly_signed(public, signature, subject):
        raise Refusal("it does not verify")
    return statement


def _names(issuer: str, fingerprint: str) -> bool:
    """Tell whether a claimed issuer, a fingerprint or key id, is the key with this fingerprint."""
    return len(issuer) >= 2 * KEY_ID_BYTES and fingerprint.endswith(issuer)


def _because(reasons: Sequence[str]) -> str:
    return f" (the last one: {reasons[-1]})" if reasons else ""


def _latest(statements: Sequence[Statement], what: str) -> List[Statement]:
    """Return the latest statement that says what the key is for, and all that are not older.

    A direct-key signature that only names a revoker (gpg's addrevoker) is later than the certification that
    gives the flags, and says nothing of them; of two in one second both hold.
    """
    speaking = [statement.created for statement in statements if statement.flags is not None]
    if not speaking:
        raise Refusal(f"no signature says what {what} is for (key flags)")
    return [statement for statement in statements if statement.created >= max(speaking)]


def _require_use(current: Sequence[Statement], wanted: int, problem: str) -> None:
    """Rule 13: all that is said of the key's use now has one of the wanted flags."""
    if not all(statement.flags is None or statement.flags & wanted for statement in current):
        raise Refusal(f"{problem} (key flags)")
