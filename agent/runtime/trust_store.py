"""The stored trust bundle and its mark, and how the resident tells a child of them.

Rules:
1. Two files of the state directory: the bundle as it came, and the mark, which says the version and digest of
   the newest one ever held. The mark stands beside the identity from the first start on, with version 0: an
   identity without a mark means that something was lost, and nobody is obeyed until a bundle arrives.
2. A bundle is on the disk, then its mark, before it is used. A crash in between loses nothing: the bundle is
   verified again at every start, and the mark only rises.
3. Nothing here believes a bundle: a child verifies it (`agent.runtime.trust`).

Standard library only: the resident agent imports this module.
"""

import base64
import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

from agent.config import Baked
from agent.runtime.state import IDENTITY_FILE, environment_failure, write_atomically
from protocol.envelope import MAX_ENVELOPE_BYTES
from protocol.strictjson import encode_json

_BUNDLE_FILE = "trust-bundle.json"
_MARK_FILE = "trust-version.json"


class Mark(NamedTuple):
    """The newest bundle that was ever held here."""

    version: int
    sha256: str


class Held(NamedTuple):
    """What is stored: no mark where it is lost or was never made, no bundle where none was ever taken."""

    mark: Optional[Mark]
    bundle: bytes


NOTHING_HELD = Held(None, b"")
_FRESH = Mark(0, "")


def read_held(directory: Path) -> Held:
    """Read what is stored; where no agent ever ran, that is the mark of a fresh one.

    Raises:
        EnvironmentFailure: `state-failed`, where a file is there and cannot be read.

    """
    mark = _read_mark(directory / _MARK_FILE)
    if mark is None and not (directory / IDENTITY_FILE).exists():
        mark = _FRESH
    return Held(mark, _read_file(directory / _BUNDLE_FILE))


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_ENVELOPE_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise environment_failure(error, path) from None


def _read_mark(path: Path) -> Optional[Mark]:
    try:
        kept = json.loads(_read_file(path))
        return Mark(int(kept["version"]), str(kept["sha256"]))
    except (ValueError, KeyError, TypeError):
        return None  # damaged is as good as lost: the agent waits for a bundle


class TrustStore:
    """The bundle of one state directory, which belongs to this process alone.

    Make it before the identity: what has an identity and no mark has lost it.

    Raises:
        EnvironmentFailure: `state-failed` or `disk-full`.

    """

    def __init__(self, directory: Path, *, has_roots: bool) -> None:
        self._directory = directory
        self.held = read_held(directory)
        if self.held.mark is None and not has_roots:
            # Without roots no bundle was ever taken, so that there is none to be lost.
            self.held = self.held._replace(mark=_FRESH)
        if self.held.mark == _FRESH and not (directory / _MARK_FILE).exists():
            self._write_mark(_FRESH)

    def keep(self, body: bytes, version: int, digest: str) -> None:
        """Store a bundle that a child has judged; it is on the disk when this returns.

        Raises:
            EnvironmentFailure: `state-failed` or `disk-full`; what was held is held still.

        """
        write_atomically(self._directory / _BUNDLE_FILE, body)
        mark = Mark(version, digest)
        self._write_mark(mark)
        self.held = Held(mark, body)

    def _write_mark(self, mark: Mark) -> None:
        write_atomically(self._directory / _MARK_FILE, json.dumps(mark._asdict()).encode("ascii"))


def digest_of_payload(payload: bytes) -> str:
    """Return the digest under which a bundle is marked."""
    return hashlib.sha256(payload).hexdigest()


def _roots(baked: Baked, held: Held) -> Dict[str, Any]:
    return {
        "roots": [_text(root) for root in baked.roots],
        "root_fingerprints": baked.config.trust.roots,
        "threshold": baked.config.trust.threshold,
        "mark": None if held.mark is None else held.mark._asdict(),
        "limits": baked.config.limits._asdict(),
    }


def encode_trust(baked: Baked, held: Held, now: datetime, *, digest_cache: Optional[int] = None) -> bytes:
    """Encode whom a child is to obey, and the descriptor of the digest cache that it was lent."""
    return encode_json(
        {
            **_roots(baked, held),
            "now": now.isoformat(),
            "keys": [_text(key) for key in baked.keys],
            "acl": baked.acl,
            "manage": baked.config.trust.manage,
            "expires": baked.config.trust.expires or None,
            "bundle": _text(held.bundle),
            "max_validity_s": baked.config.max_validity_s,
            "max_schedule_s": baked.config.max_schedule_s,
            "seal_to": baked.config.seal_to,
            "require_sealed": baked.config.require_sealed,
            "digest_cache": digest_cache,
            "budget": baked.config.scan.budget(),
        }
    )


def encode_candidate(baked: Baked, held: Held, candidate: bytes, now: datetime) -> bytes:
    """Encode what a child is to judge a bundle by."""
    return encode_json({**_roots(baked, held), "now": now.isoformat(), "candidate": _text(candidate)})


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
