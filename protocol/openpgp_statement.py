"""What a signature says of itself and of a key: its subpackets, read strictly.

Rules:
1. Both subpacket areas are well formed; only the hashed one is believed, but for back-signatures, which
   prove themselves (gpg puts them into the unhashed area).
2. A critical subpacket that is not in the list for its purpose refuses, in either area; so does every
   critical notation, since none is known.
3. Creation time, expiries, key flags and issuer fingerprint stand at most once.
4. The creation time is there, at most `MAX_AHEAD_S` ahead of now, and the signature has not expired.
5. Hashed issuers, by fingerprint and by key id, agree with the key that is said to have signed.

Source: RFC 4880, 5.2.3; RFC 9580, 5.2.3 (issuer fingerprint).
"""

from typing import Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Set, Tuple

from protocol.openpgp_packets import VERSION, Refusal, SignaturePacket, Subpacket, parse_subpackets

MAX_AHEAD_S = 300  # design: 5 minutes, the same as between clocks elsewhere
SIGN_FLAG = 0x02
ENCRYPT_FLAGS = 0x0C  # communications and storage, which gpg sets together (RFC 4880, 5.2.3.21)

KEY_ID_BYTES = 8
FINGERPRINT_BYTES = 20
_TIME_BYTES = 4

_CREATED = 2
_EXPIRES = 3
_KEY_LIFETIME = 9
_REVOKER = 12
_ISSUER_KEY_ID = 16
_NOTATION = 20
_KEY_FLAGS = 27
_SIGNER_USER_ID = 28
_BACK_SIGNATURE = 32
_ISSUER_FINGERPRINT = 33

_UNIQUE = (_CREATED, _EXPIRES, _KEY_LIFETIME, _KEY_FLAGS, _ISSUER_FINGERPRINT)
# Critical subpackets whose meaning is honoured here, or void for the purpose.
_KNOWN_IN_DOCUMENT: FrozenSet[int] = frozenset(
    {_CREATED, _EXPIRES, _ISSUER_KEY_ID, _SIGNER_USER_ID, _ISSUER_FINGERPRINT}
)
# 4 exportable, 7 revocable, 11 21 22 34 39 preferred algorithms, 23 24 key server, 25 primary user id,
# 29 reason for revocation, 30 features.
_KNOWN_IN_CERTIFICATE: FrozenSet[int] = _KNOWN_IN_DOCUMENT | {
    *(4, 7, 11, 21, 22, 23, 24, 25, 29, 30, 34, 39),
    *(_KEY_LIFETIME, _REVOKER, _KEY_FLAGS, _BACK_SIGNATURE),
}


class Statement(NamedTuple):
    """What a signature says: `created` in Unix seconds; `key_lifetime_s` from the key's creation on.

    A lifetime of None is for ever; flags of None say nothing of what the key is for.
    """

    created: int
    key_lifetime_s: Optional[int]
    flags: Optional[int]
    issuer: Optional[str]
    revokers: Tuple[str, ...]
    back_signatures: Tuple[bytes, ...]


def read_document_statement(signature: SignaturePacket, now: int) -> Statement:
    """Read a document signature's subpackets; its issuer's fingerprint must be there.

    Raises:
        Refusal: one of the rules is broken.

    """
    statement = _read_statement(signature, _KNOWN_IN_DOCUMENT, None, now)
    if statement.issuer is None:
        raise Refusal("no issuer fingerprint in the hashed area of the signature")
    return statement


def read_key_statement(signature: SignaturePacket, issuer: str, now: int) -> Statement:
    """Read the subpackets of a signature on a key, made by the key with fingerprint `issuer`.

    Raises:
        Refusal: one of the rules is broken.

    """
    return _read_statement(signature, _KNOWN_IN_CERTIFICATE, issuer, now)


def _read_statement(
    signature: SignaturePacket, known: FrozenSet[int], signer: Optional[str], now: int
) -> Statement:
    hashed = parse_subpackets(signature.hashed_area)
    unhashed = parse_subpackets(signature.unhashed_area)
    for subpacket in (*hashed, *unhashed):
        if subpacket.is_critical and subpacket.type not in known:
            what = "notation" if subpacket.type == _NOTATION else f"subpacket of type {subpacket.type}"
            raise Refusal(f"an unknown critical {what}")
    single = _single_values(hashed)
    created = _read_time(single, _CREATED)
    if created is None:
        raise Refusal("no creation time in the hashed area of the signature")
    if created > now + MAX_AHEAD_S:
        raise Refusal("a signature from the future")
    lifetime = _read_time(single, _EXPIRES)
    if lifetime and created + lifetime <= now:
        raise Refusal("the signature has expired")
    issuer = _read_fingerprint(single.get(_ISSUER_FINGERPRINT))
    _require_one_issuer(hashed, issuer, signer)
    flags = single.get(_KEY_FLAGS)
    return Statement(
        created=created,
        key_lifetime_s=_read_time(single, _KEY_LIFETIME) or None,
        flags=None if flags is None else int.from_bytes(flags[:1], "big"),
        issuer=issuer,
        revokers=tuple(body[2:].hex().upper() for body in _bodies(hashed, _REVOKER)),
        back_signatures=tuple(_bodies((*hashed, *unhashed), _BACK_SIGNATURE)),
    )


def _require_one_issuer(hashed: List[Subpacket], issuer: Optional[str], signer: Optional[str]) -> None:
    """Rule 5; `signer` is the key that is known to have signed, else `issuer` has to say it."""
    expected = signer or issuer or ""
    if issuer is not None and issuer != expected:
        raise Refusal("it names another issuer")
    for key_id in _bodies(hashed, _ISSUER_KEY_ID):
        if len(key_id) != KEY_ID_BYTES or not expected.endswith(key_id.hex().upper()):
            raise Refusal("its key id is not that of its issuer")


def _bodies(subpackets: Iterable[Subpacket], kind: int) -> List[bytes]:
    return [subpacket.body for subpacket in subpackets if subpacket.type == kind]


def _single_values(hashed: List[Subpacket]) -> Dict[int, bytes]:
    """Return the bodies of the subpackets that may stand only once."""
    values: Dict[int, bytes] = {}
    for subpacket in hashed:
        if subpacket.type in _UNIQUE:
            if subpacket.type in values:
                raise Refusal(f"two subpackets of type {subpacket.type}")
            values[subpacket.type] = subpacket.body
    return values


def _read_time(values: Dict[int, bytes], kind: int) -> Optional[int]:
    body = values.get(kind)
    if body is None:
        return None
    if len(body) != _TIME_BYTES:
        raise Refusal(f"a subpacket of type {kind} with {len(body)} octets, not {_TIME_BYTES}")
    return int.from_bytes(body, "big")


def _read_fingerprint(body: Optional[bytes]) -> Optional[str]:
    """Read an issuer fingerprint: version 4 and 20 octets (RFC 9580, 5.2.3.35)."""
    if body is None:
        return None
    if len(body) != 1 + FINGERPRINT_BYTES or body[0] != VERSION:
        raise Refusal("an issuer fingerprint that is not of a version 4 key")
    return body[1:].hex().upper()


def claimed_issuers(signature: SignaturePacket) -> Set[str]:
    """Return the fingerprints and key ids that the signature names anywhere: a hint, never proof."""
    issuers: Set[str] = set()
    for area in (signature.hashed_area, signature.unhashed_area):
        try:
            subpackets = parse_subpackets(area)
        except Refusal:
            continue
        for subpacket in subpackets:
            if subpacket.type == _ISSUER_KEY_ID:
                issuers.add(subpacket.body.hex().upper())
            elif subpacket.type == _ISSUER_FINGERPRINT:
                issuers.add(subpacket.body[1:].hex().upper())
    return issuers
