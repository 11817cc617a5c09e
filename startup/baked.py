"""What goes into a zip beside the wheels: our own sources, and what is baked into the agent.

An agent trusts the keys and obeys the ACL that it was built with, and nothing else. So what could not be used
safely is refused here: no key, a key that the OpenPGP policy refuses, an ACL that nobody can satisfy, a
fingerprint in the ACL without its key, a reader of all answers to whom nothing can be encrypted.
"""

import json
import ssl
import tomllib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from startup.archive import BuildFailure


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, or stop the build with one line."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BuildFailure(f"{path}: {error}") from None


def load_baked(config: Path, keys_directory: Path, now: datetime) -> dict[str, bytes]:
    """Check configuration and keys and return what is baked into the agent, by path in the zip.

    Raises:
        BuildFailure: nothing that an agent could use safely.

    """
    # Imported here: a build of the server or the client needs neither configuration nor keys.
    from agent.config import decode_config, with_relay_ca  # noqa: PLC0415
    from protocol.acl import convert_acl  # noqa: PLC0415
    from protocol.errors import InvalidInput  # noqa: PLC0415

    try:
        table = with_relay_ca(read_toml(config).get("agent", {}), config.parent)
        decoded = decode_config(table)
        require_certificates(decoded.relay_ca)
        acl = convert_acl(table["acl"])
        acl.require_satisfiable()
    except InvalidInput as error:
        raise BuildFailure(f"{config}: {error}") from None
    keys = _read_keys(keys_directory, now)
    missing = sorted(acl.fingerprints - set(keys))
    if missing:
        raise BuildFailure(f"{config}: the ACL names {missing[0]}, whose key is not in {keys_directory}")
    _require_readers(decoded.seal_to, keys, now)
    baked = {f"agent/baked/keys/{fingerprint}.asc": content for fingerprint, content in keys.items()}
    baked |= _bake_roots(table, keys_directory / "roots", now)
    strangers = sorted(set(table.get("trust", {}).get("manage", ())) - set(keys))
    if strangers:
        raise BuildFailure(
            f"{config}: trust.manage names {strangers[0]}, whose key is not in {keys_directory}"
        )
    baked["agent/baked/config.json"] = json.dumps(table, sort_keys=True, indent=1).encode()
    return baked


def _require_readers(seal_to: Iterable[str], keys: dict[str, bytes], now: datetime) -> None:
    from protocol.errors import InvalidInput  # noqa: PLC0415  (see load_baked)
    from protocol.openpgp import parse_certificate  # noqa: PLC0415
    from protocol.openpgp_encryption import require_recipient  # noqa: PLC0415

    for fingerprint in seal_to:
        if fingerprint not in keys:
            raise BuildFailure(f"[agent] seal_to names {fingerprint}, whose key is not there")
        try:
            require_recipient(parse_certificate(keys[fingerprint]), now)
        except InvalidInput as error:
            raise BuildFailure(f"[agent] seal_to names {fingerprint}: {error.detail}") from None


def _bake_roots(table: dict[str, Any], directory: Path, now: datetime) -> dict[str, bytes]:
    """Return the root certificates that the configuration names, by path in the zip."""
    trust = table.get("trust", {})
    expires = trust.get("expires", "")
    if expires and datetime.fromisoformat(expires) <= now:
        raise BuildFailure(f"[agent.trust] expires: {expires} is over: this agent would obey nobody")
    wanted = trust.get("roots", ())
    roots = _read_keys(directory, now) if wanted else {}
    missing = sorted(set(wanted) - set(roots))
    if missing:
        raise BuildFailure(f"[agent.trust] roots names {missing[0]}, whose key is not in {directory}")
    return {f"agent/baked/roots/{fingerprint}.asc": roots[fingerprint] for fingerprint in wanted}


def require_certificates(pem: str) -> None:
    """Raise unless the text, where there is any, is one or more certificates in PEM.

    Raises:
        InvalidInput: `bad-config`.

    """
    from protocol.errors import InvalidInput  # noqa: PLC0415  (see load_baked)

    if pem:
        try:
            ssl.create_default_context(cadata=pem)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidInput("bad-config", f"relay_ca: {error}") from None


def _read_keys(directory: Path, now: datetime) -> dict[str, bytes]:
    from protocol.errors import InvalidInput  # noqa: PLC0415  (see load_baked)
    from protocol.openpgp import parse_certificate, require_usable_certificate  # noqa: PLC0415

    keys: dict[str, bytes] = {}
    for path in sorted(directory.glob("*.asc")):
        content = path.read_bytes()
        try:
            certificate = parse_certificate(content)
            require_usable_certificate(certificate, now)
        except InvalidInput as error:
            raise BuildFailure(f"{path}: {error}") from None
        if certificate.fingerprint in keys:
            raise BuildFailure(f"{path}: the key {certificate.fingerprint} is there twice")
        keys[certificate.fingerprint] = content
    if not keys:
        raise BuildFailure(f"no key (*.asc) in {directory}: an agent without keys would obey nobody")
    return keys


def read_sources(root: Path, packages: Iterable[str]) -> dict[str, bytes]:
    """Return the files of our own packages, by path in the zip: Python and what lies beside it as data."""
    files: dict[str, bytes] = {}
    for package in packages:
        for path in sorted((root / package).rglob("*")):
            name = path.relative_to(root).as_posix()
            is_wanted = not path.name.startswith(".") and not name.endswith((".pyc", ".md"))
            if path.is_file() and is_wanted and not name.startswith("agent/baked/"):
                files[name] = path.read_bytes()
        if f"{package}/__init__.py" not in files:
            raise BuildFailure(f"there is no package {package} in {root}")
    return files
