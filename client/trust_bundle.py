"""Composes trust bundles, and says what is in one: what its signers are to see before they sign."""

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from client.keys import load_key_directory
from client.render import time_text
from client.screen import printable
from protocol.acl import AclEntry, convert_acl
from protocol.envelope import TRUST, Envelope, decode_envelope
from protocol.errors import InvalidInput
from protocol.openpgp import parse_certificate, require_usable_certificate
from protocol.trust import TrustBundle, TrustedInvestigator, decode_bundle, encode_bundle, make_keyring

_MAX_FILE_BYTES = 2 << 20


class ReadBundle(NamedTuple):
    """A bundle of a file or of the server, whose signatures nobody has checked yet."""

    bundle: TrustBundle
    envelope: Envelope


def decode_bundle_file(data: bytes) -> ReadBundle:
    """Decode a bundle in its envelope, signed or not yet.

    Raises:
        InvalidInput: as an envelope or a bundle is refused.

    """
    envelope = decode_envelope(data, TRUST)
    bundle = decode_bundle(envelope.payload)
    make_keyring(bundle)
    return ReadBundle(bundle, envelope)


def read_file(path: Path) -> bytes:
    """Read a small file.

    Raises:
        InvalidInput: `not-found` or `too-large`.

    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput("not-found", f"{path}: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise InvalidInput("too-large", f"{path} has more than {_MAX_FILE_BYTES} bytes")
    return data


def read_certificates(paths: Iterable[Path]) -> list[bytes]:
    """Return the certificates of files and directories."""
    found: list[bytes] = []
    for path in paths:
        found += load_key_directory(path).values() if path.is_dir() else [read_file(path)]
    return found


class Draft:
    """A bundle that is being composed: whom to trust, and with what.

    Args:
        now: aware; keys that cannot be used now are refused.

    """

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._investigators: dict[str, TrustedInvestigator] = {}
        self._acl: dict[str, AclEntry] = {}
        self._manage: set[str] = set()

    def start_from(self, bundle: TrustBundle) -> None:
        """Take everything over from another bundle."""
        self._investigators = {one.fingerprint: one for one in bundle.investigators}
        self._acl = dict(bundle.acl)
        self._manage = set(bundle.manage)

    def add_certificate(self, data: bytes) -> None:
        """Add an investigator, or take a newer certificate of one.

        Raises:
            InvalidInput: `bad-key`.

        """
        certificate = parse_certificate(data)
        require_usable_certificate(certificate, self._now)
        try:
            text = data.decode("ascii")
        except UnicodeDecodeError:
            raise InvalidInput("bad-key", f"{certificate.fingerprint}: not armoured") from None
        name = certificate.user_ids[0] if certificate.user_ids else ""
        self._investigators[certificate.fingerprint] = TrustedInvestigator(
            fingerprint=certificate.fingerprint, name=name, certificate=text
        )

    def read_rights(self, config: Path) -> None:
        """Take ACL and `manage` from the table `[agent]` of a configuration, as the builder does.

        Raises:
            InvalidInput: `bad-config`.

        """
        try:
            table: Any = tomllib.loads(read_file(config).decode("utf-8")).get("agent", {})
        except ValueError as error:
            raise InvalidInput("bad-config", f"{config}: {error}") from None
        self._acl = convert_acl(table.get("acl")).entries
        try:
            self._manage = set(msgspec.convert(table.get("trust", {}).get("manage", []), tuple[str, ...]))
        except msgspec.ValidationError as error:
            raise InvalidInput("bad-config", f"trust.manage: {error}") from None

    def allow_manage(self, fingerprint: str) -> None:
        """Let somebody cancel what others signed."""
        self._manage.add(fingerprint)

    def revoke(self, fingerprint: str) -> None:
        """Take somebody out, everywhere.

        Raises:
            InvalidInput: `usage`, where they are not in it, or were the only ones who may run something.

        """
        if self._investigators.pop(fingerprint, None) is None:
            raise InvalidInput("usage", f"{fingerprint} is not in the bundle")
        self._manage.discard(fingerprint)
        for name, entry in self._acl.items():
            left = {one: weight for one, weight in entry.investigators.items() if one != fingerprint}
            if sum(left.values()) < entry.minimum_weight:
                raise InvalidInput("usage", f"without {fingerprint} nobody could run {name}: give a new ACL")
            self._acl[name] = msgspec.structs.replace(entry, investigators=left)

    def finish(self, version: int, expires: datetime) -> Envelope:
        """Return the bundle, not signed yet.

        Raises:
            InvalidInput: `bad-trust`.

        """
        bundle = TrustBundle(
            version=version,
            created=self._now,
            expires=expires,
            investigators=tuple(one for _, one in sorted(self._investigators.items())),
            acl=self._acl,
            manage=tuple(sorted(self._manage)),
        )
        payload = encode_bundle(bundle)
        make_keyring(decode_bundle(payload))
        return Envelope(TRUST, payload, ())


def describe_bundle(read: ReadBundle, now: datetime) -> Iterator[str]:
    """Yield the lines that say who may run what, from the bytes that are signed; safe to print."""
    bundle = read.bundle
    state = "EXPIRED" if now >= bundle.expires else f"{(bundle.expires - now).days} days left"
    yield f"trust bundle {bundle.version}  sha256 {read.envelope.digest}"
    yield f"created {time_text(bundle.created)}, expires {time_text(bundle.expires)} ({state})"
    names = {}
    for one in bundle.investigators:
        names[one.fingerprint] = printable(one.name, 80)
        manages = "  may cancel what others signed" if one.fingerprint in bundle.manage else ""
        yield f"trusts {one.fingerprint}  {names[one.fingerprint]}{manages}"
    for name, entry in sorted(bundle.acl.items()):
        yield f"{printable(name, 64)}: {_describe_entry(entry, names)}"


def _describe_entry(entry: AclEntry, names: dict[str, str]) -> str:
    weights = ", ".join(f"{names[one]} ({weight})" for one, weight in sorted(entry.investigators.items()))
    parts = [f"needs weight {entry.minimum_weight} of {weights}"]
    if entry.paths is not None:
        parts.append(f"only below {_paths(entry.paths)}")
    if entry.deny is not None:
        parts.append(f"never below {_paths(entry.deny)}")
    if entry.fields:
        parts.append("may give matched text")
    return "; ".join(parts)


def _paths(paths: Sequence[str]) -> str:
    return ", ".join(printable(path, 200) for path in paths)
