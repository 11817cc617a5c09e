"""Trust bundles: whom agents obey and how far, signed by the root keys that were baked into them.

Rules:
1. A bundle counts only with valid signatures by at least `threshold` distinct roots, over its exact bytes and
   type, under the OpenPGP policy. They are verified before a byte of the payload is parsed.
2. It is complete: it replaces all keys, ACL and rights of the one before. Who is not in it is revoked.
3. Its version is greater than that of the one in force: an older one, or another one of the same version, is
   refused (`require_newer`). A bundle that has expired is no bundle.
4. Every certificate parses and has the fingerprint under which it stands; ACL and rights name only those who
   stand in the bundle, and every entry of the ACL can be satisfied.

What was baked in at build time is version 0. There is no I/O and the time is the caller's.
"""

from datetime import datetime
from typing import Annotated, Dict, FrozenSet, NamedTuple, Sequence, Tuple

import msgspec
from msgspec import Meta

from protocol.acl import Acl, AclEntry, Fingerprint
from protocol.action import UtcTime, require_utc
from protocol.envelope import TRUST, Envelope, decode_envelope
from protocol.errors import InvalidInput
from protocol.keyring import Keyring
from protocol.openpgp import parse_certificate
from protocol.strictjson import decode_json

MAX_INVESTIGATORS = 256
MAX_VERSION = 2**31 - 1


class TrustedInvestigator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One investigator: the armoured certificate under its primary fingerprint; the name is for people."""

    fingerprint: Fingerprint
    name: Annotated[str, Meta(max_length=1024)]
    certificate: Annotated[str, Meta(min_length=1, max_length=1 << 19)]


class TrustBundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A complete bundle. `manage`: who may cancel others' actions and approve agents."""

    version: Annotated[int, Meta(ge=1, le=MAX_VERSION)]
    created: UtcTime
    expires: UtcTime
    investigators: Annotated[
        Tuple[TrustedInvestigator, ...], Meta(min_length=1, max_length=MAX_INVESTIGATORS)
    ]
    acl: Annotated[Dict[str, AclEntry], Meta(min_length=1)]
    manage: Tuple[Fingerprint, ...] = ()

    def __post_init__(self) -> None:
        """Refuse times that are not UTC, and a bundle that is never in force."""
        require_utc(self.created, self.expires)
        if self.created >= self.expires:
            raise ValueError("created is not before expires")


class Roots(NamedTuple):
    """Who may sign bundles, and how many of them must; without any, no bundle is ever accepted."""

    keyring: Keyring
    threshold: int


class OpenedBundle(NamedTuple):
    """A bundle whose signatures and contents are good, made ready; `digest` names its exact bytes."""

    bundle: TrustBundle
    digest: str
    keyring: Keyring
    acl: Acl
    signers: FrozenSet[str]


def make_roots(certificates: Sequence[bytes], fingerprints: Sequence[str], threshold: int) -> Roots:
    """Return the roots, once their certificates are those that the configuration names.

    Raises:
        InvalidInput: `bad-key` or `bad-config`.

    """
    keyring = Keyring(parse_certificate(data) for data in certificates)
    if keyring.fingerprints != set(fingerprints):
        odd = sorted(keyring.fingerprints.symmetric_difference(fingerprints))
        raise InvalidInput("bad-config", f"trust.roots and the roots' certificates differ by {odd[0]}")
    if fingerprints and not 1 <= threshold <= len(keyring.fingerprints):
        raise InvalidInput("bad-config", f"trust.threshold is {threshold}, roots {len(fingerprints)}")
    return Roots(keyring, threshold)


def open_bundle(body: bytes, roots: Roots, now: datetime) -> OpenedBundle:
    """Verify a bundle's envelope, then decode those same bytes; its expiry is for `require_current`.

    Raises:
        InvalidInput: `too-large`, `bad-json`, `bad-envelope`, `wrong-type`, `unsigned`, `bad-trust`.

    """
    envelope = decode_envelope(body, TRUST)
    signers = _require_signers(envelope, roots, now)
    bundle = decode_bundle(envelope.payload)
    return OpenedBundle(bundle, envelope.digest, make_keyring(bundle), Acl(entries=bundle.acl), signers)


def _require_signers(envelope: Envelope, roots: Roots, now: datetime) -> FrozenSet[str]:
    if not roots.keyring.fingerprints:
        raise InvalidInput("unsigned", "this agent was built without roots: it accepts no trust bundle")
    check = roots.keyring.signers(envelope, now)
    if len(check.fingerprints) < max(1, roots.threshold):
        reasons = "".join(f"; {keyid[:40]}: {reason}" for keyid, reason in check.refusals)
        raise InvalidInput(
            "unsigned", f"signed by {len(check.fingerprints)} of {roots.threshold} roots needed{reasons}"
        )
    return check.fingerprints


def decode_bundle(payload: bytes) -> TrustBundle:
    """Decode a bundle's payload; the caller has verified its signatures, or says that nobody has.

    Raises:
        InvalidInput: `too-large`, `bad-json` or `bad-trust`.

    """
    try:
        bundle = msgspec.convert(decode_json(payload), TrustBundle)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-trust", str(error)) from None
    known = {investigator.fingerprint for investigator in bundle.investigators}
    acl = Acl(entries=bundle.acl)
    strangers = sorted((acl.fingerprints | set(bundle.manage)) - known)
    if strangers:
        raise InvalidInput("bad-trust", f"ACL or manage name {strangers[0]}, who is not in the bundle")
    try:
        acl.require_satisfiable()
    except InvalidInput as error:
        raise InvalidInput("bad-trust", error.detail) from None
    return bundle


def make_keyring(bundle: TrustBundle) -> Keyring:
    """Read a bundle's certificates.

    Raises:
        InvalidInput: `bad-trust`, where one does not parse, is another's, or stands there twice.

    """
    certificates = []
    for investigator in bundle.investigators:
        try:
            certificate = parse_certificate(investigator.certificate.encode("utf-8"))
        except InvalidInput as error:
            raise InvalidInput("bad-trust", f"{investigator.fingerprint}: {error.detail}") from None
        if certificate.fingerprint != investigator.fingerprint:
            raise InvalidInput(
                "bad-trust", f"{investigator.fingerprint}: the certificate is of {certificate.fingerprint}"
            )
        certificates.append(certificate)
    try:
        return Keyring(certificates)
    except InvalidInput as error:
        raise InvalidInput("bad-trust", error.detail) from None


def require_current(bundle: TrustBundle, now: datetime) -> None:
    """Raise where a bundle has expired.

    Raises:
        InvalidInput: `trust-expired`.

    """
    if now >= bundle.expires:
        raise InvalidInput(
            "trust-expired", f"bundle {bundle.version} expired at {bundle.expires.isoformat()}"
        )


def require_newer(version: int, digest: str, held_version: int, held_digest: str) -> None:
    """Raise unless a bundle is newer than the newest that was ever held; that very one may come again.

    Raises:
        InvalidInput: `stale-trust`.

    """
    if version < held_version or (version == held_version and digest != held_digest):
        raise InvalidInput("stale-trust", f"version {version}; version {held_version} is known")


def encode_bundle(bundle: TrustBundle) -> bytes:
    """Encode to the payload bytes that roots sign."""
    return msgspec.json.encode(bundle)
