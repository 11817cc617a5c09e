"""OpenPGP certificates taken apart: keys, user ids and the signatures that follow them, none of them judged.

Rules: one version 4 certificate, no secrets, only packets that have a place in it, within the sizes below.
`protocol.openpgp` judges it, for every signature anew, since that needs a time.
"""

from typing import List, NamedTuple, Optional, Tuple

from protocol import openpgp_packets as packets
from protocol.openpgp_packets import KeyPacket, Packet, Refusal, SignaturePacket

# A key with a hundred signatures of others by RSA-4096 is 60 KiB; more than this is no investigator's key.
MAX_CERTIFICATE_BYTES = 1 << 18
_MAX_ARMOURED_BYTES = 2 * MAX_CERTIFICATE_BYTES  # base64 adds 35 %, headers little
_MAX_PACKETS = 1024  # bounds what a hostile certificate can cost: a few tenths of a second
_MAX_USER_ID_BYTES = 2048  # gpg's own limit

KEY_REVOCATION = 0x20
SUBKEY_REVOCATION = 0x28
CERTIFICATION_REVOCATION = 0x30
_REVOCATIONS = (KEY_REVOCATION, SUBKEY_REVOCATION, CERTIFICATION_REVOCATION)

_CARRIERS = (packets.USER_ID, packets.USER_ATTRIBUTE, packets.PUBLIC_SUBKEY)
_IGNORED = (packets.MARKER, packets.TRUST, packets.PADDING)
_SECRETS = (packets.SECRET_KEY, packets.SECRET_SUBKEY)


class UserId(NamedTuple):
    """A user id and the signatures that follow it."""

    octets: bytes
    signatures: Tuple[SignaturePacket, ...]

    @property
    def subject(self) -> bytes:
        """The octets by which a certification covers it, after those of the key (RFC 4880, 5.2.4)."""
        return b"\xb4%b%b" % (len(self.octets).to_bytes(4, "big"), self.octets)


class Subkey(NamedTuple):
    """A subkey and the signatures that follow it."""

    key: KeyPacket
    signatures: Tuple[SignaturePacket, ...]


class Certificate(NamedTuple):
    """A certificate: `direct` are the signatures right after the primary key, `signatures` all there are."""

    primary: KeyPacket
    direct: Tuple[SignaturePacket, ...]
    ids: Tuple[UserId, ...]
    subkeys: Tuple[Subkey, ...]
    signatures: Tuple[SignaturePacket, ...]

    @property
    def fingerprint(self) -> str:
        """The primary key's, 40 upper-case hex digits."""
        return self.primary.fingerprint

    @property
    def user_ids(self) -> Tuple[str, ...]:
        """What the user ids say, for people to read; hostile text."""
        return tuple(user_id.octets.decode("utf-8", "replace") for user_id in self.ids)


class _Group(NamedTuple):
    packet: Packet
    signatures: List[SignaturePacket]


def read_certificate(data: bytes) -> Certificate:
    """Take one certificate apart, armoured or binary.

    Raises:
        Refusal: one of the rules is broken.

    """
    if len(data) > _MAX_ARMOURED_BYTES:
        raise Refusal(f"a certificate of {len(data)} bytes, at most {MAX_CERTIFICATE_BYTES} are read")
    binary = packets.remove_armour(data, "PUBLIC KEY BLOCK")
    if len(binary) > MAX_CERTIFICATE_BYTES:
        raise Refusal(f"a certificate of {len(binary)} bytes, at most {MAX_CERTIFICATE_BYTES} are read")
    found = packets.split_packets(binary, _MAX_PACKETS)
    if not found or found[0].tag != packets.PUBLIC_KEY:
        is_secret = bool(found) and found[0].tag == packets.SECRET_KEY
        raise Refusal("a secret key" if is_secret else "it does not begin with a public key")
    primary = packets.parse_key(found[0].body)
    return _assemble(primary, _group(found, primary))


def _group(found: List[Packet], primary: KeyPacket) -> List[_Group]:
    """Put each signature to the key or user id that it follows."""
    groups = [_Group(found[0], [])]
    for packet in found[1:]:
        if packet.tag == packets.SIGNATURE:
            signature = _read_signature(packet, primary)
            if signature is not None:
                groups[-1].signatures.append(signature)
        elif packet.tag in _CARRIERS:
            groups.append(_Group(packet, []))
        elif packet.tag == packets.PUBLIC_KEY:
            raise Refusal("more than one certificate")
        elif packet.tag in _SECRETS:
            raise Refusal("a secret key")
        elif packet.tag not in _IGNORED:
            raise Refusal(f"a packet of tag {packet.tag}, which has no place in a certificate")
    return groups


def _read_signature(packet: Packet, primary: KeyPacket) -> Optional[SignaturePacket]:
    """Parse a signature in a certificate; one of another version is made by others and counts for nothing."""
    if packet.body[:1] == b"\x04":
        return packets.parse_signature(packet.body)
    old = packets.old_signature_key(packet.body)
    if old is not None and old[0] in _REVOCATIONS and primary.fingerprint.endswith(old[1]):
        raise Refusal("a revocation of version 3, which cannot be checked")
    return None


def _assemble(primary: KeyPacket, groups: List[_Group]) -> Certificate:
    ids: List[UserId] = []
    subkeys: List[Subkey] = []
    for packet, signatures in groups[1:]:
        if packet.tag == packets.USER_ID:
            if len(packet.body) > _MAX_USER_ID_BYTES:
                raise Refusal(f"a user id of {len(packet.body)} bytes, at most {_MAX_USER_ID_BYTES} are read")
            ids.append(UserId(packet.body, tuple(signatures)))
        # A subkey of another version cannot sign for us; a user attribute (a picture) says nothing of use.
        elif packet.tag == packets.PUBLIC_SUBKEY and packet.body[:1] == b"\x04":
            subkeys.append(Subkey(packets.parse_key(packet.body), tuple(signatures)))
    return Certificate(
        primary=primary,
        direct=tuple(groups[0].signatures),
        ids=tuple(ids),
        subkeys=tuple(subkeys),
        signatures=tuple(signature for group in groups for signature in group.signatures),
    )
