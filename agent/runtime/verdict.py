"""What the gate says of a delivery, as the child tells it to the resident: one small JSON document.

The resident believes it as far as it must: which action it was and who signed, for journal and log. Whether
it may run, under which digest, and what its command is called, the resident knows by itself. Standard library
only: the resident agent imports this module.
"""

import re
from typing import Dict, Iterable, NamedTuple, Optional, Tuple

from agent.runtime.answers import Problem, clean_text
from protocol.errors import CODES, InvalidInput
from protocol.names import ACTION_ID, is_fingerprint
from protocol.strictjson import decode_json, encode_json

_LAST_STEP = 10
_MAX_NAME = 200
_MAX_LIST = 64
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_MAX_SECONDS = 253402300800  # the year 10000, where RFC 3339 ends


class Verdict(NamedTuple):
    """A decoded verdict: `problem` is None where the gate admits the action.

    `action_id` may be empty where it refuses. `expireafter` is in Unix seconds, rounded up.
    """

    problem: Optional[Problem]
    action_id: str
    name: str = ""
    signers: Tuple[str, ...] = ()
    modules: Tuple[str, ...] = ()
    expireafter: int = 0
    sealed_to: Tuple[str, ...] = ()


def encode_refused(*, step: int, code: str, detail: str, action_id: str) -> bytes:
    """Encode the verdict on an action that the gate refuses."""
    return encode_json({"step": step, "code": code, "detail": clean_text(detail), "action_id": action_id})


def encode_admitted(
    *,
    action_id: str,
    name: str,
    signers: Iterable[str],
    modules: Iterable[str],
    expireafter: int,
    sealed_to: Iterable[str] = (),
) -> bytes:
    """Encode the verdict on an action that the gate admits."""
    return encode_json(
        {
            "step": 0,
            "action_id": action_id,
            "name": clean_text(name, _MAX_NAME),
            "signers": sorted(signers),
            "modules": list(modules),
            "expireafter": expireafter,
            "sealed_to": list(sealed_to),
        }
    )


def decode_verdict(body: bytes) -> Verdict:
    """Decode a verdict.

    Raises:
        InvalidInput: `bad-json` or `bad-document`.

    """
    members = decode_json(body)
    try:
        verdict = _read_refused(members) if members["step"] else _read_admitted(members)
    except (KeyError, TypeError, AttributeError):
        raise InvalidInput("bad-document", "a verdict lacks a member") from None
    if verdict is None:
        raise InvalidInput("bad-document", "a verdict has a member that cannot be")
    return verdict


def encode_bundle_refused(code: str, detail: str) -> bytes:
    """Encode the verdict on a trust bundle that is refused."""
    return encode_json({"code": code, "detail": clean_text(detail)})


def encode_bundle_accepted(version: int, digest: str) -> bytes:
    """Encode the verdict on a trust bundle that is good."""
    return encode_json({"version": version, "sha256": digest})


def decode_bundle_verdict(body: bytes) -> Tuple[int, str]:
    """Decode the verdict on a trust bundle, and return its version and digest.

    Raises:
        InvalidInput: what the verdict says, where it refuses; `bad-document` where it cannot be one.

    """
    members = decode_json(body)
    if not isinstance(members, dict):
        raise InvalidInput("bad-document", "a verdict is no object")
    code, version, digest = members.get("code"), members.get("version"), members.get("sha256")
    if isinstance(code, str) and code in CODES:
        raise InvalidInput(code, str(members.get("detail")))
    if not (isinstance(version, int) and version > 0 and isinstance(digest, str) and _SHA256.match(digest)):
        raise InvalidInput("bad-document", "a verdict has a member that cannot be")
    return version, digest


def _read_refused(members: Dict[str, object]) -> Optional[Verdict]:
    step, code, detail = members["step"], members["code"], members["detail"]
    action_id = members["action_id"]
    if not (isinstance(step, int) and 0 < step <= _LAST_STEP and isinstance(detail, str)):
        return None
    if not (isinstance(code, str) and code in CODES and isinstance(action_id, str)):
        return None
    if action_id and not ACTION_ID.match(action_id):
        return None
    return Verdict(Problem(code, step, detail), action_id)


def _read_admitted(members: Dict[str, object]) -> Optional[Verdict]:
    action_id, name, expireafter = members["action_id"], members["name"], members["expireafter"]
    modules = members["modules"]
    signers, sealed_to = _read_fingerprints(members["signers"]), _read_fingerprints(members["sealed_to"])
    if not (isinstance(action_id, str) and ACTION_ID.match(action_id) and isinstance(name, str)):
        return None
    if not (isinstance(expireafter, int) and 0 < expireafter < _MAX_SECONDS):
        return None
    if signers is None or sealed_to is None:
        return None
    if not (isinstance(modules, list) and len(modules) <= _MAX_LIST):
        return None
    if not all(isinstance(module, str) for module in modules):
        return None
    return Verdict(None, action_id, name[:_MAX_NAME], signers, tuple(modules), expireafter, sealed_to)


def _read_fingerprints(value: object) -> Optional[Tuple[str, ...]]:
    if not isinstance(value, list) or not all(isinstance(one, str) and is_fingerprint(one) for one in value):
        return None
    return tuple(value)
