"""What the gate says of a delivery, as the child tells it to the resident: one small JSON document.

The resident believes it as far as it must: which action it was and who signed, for journal and log. Whether
it may run, under which digest, and what its command is called, the resident knows by itself. Standard library
only: the resident agent imports this module.
"""

import re
from typing import Dict, Iterable, NamedTuple, Optional, Tuple

from agent.runtime.answers import NO_OCCURRENCE, Problem, clean_text
from protocol.errors import CODES, InvalidInput
from protocol.names import ACTION_ID, DIGEST, is_fingerprint, is_occurrence
from protocol.strictjson import decode_json, encode_json

_LAST_STEP = 10
_MAX_NAME = 200
_MAX_LIST = 64
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_MAX_SECONDS = 253402300800  # the year 10000, where RFC 3339 ends


class Verdict(NamedTuple):
    """A decoded verdict: `problem` is None where the gate admits the action.

    `action_id` may be empty where it refuses. `expireafter` is in Unix seconds, rounded up: from then on this
    occurrence may not be started.
    """

    problem: Optional[Problem]
    action_id: str
    name: str = ""
    signers: Tuple[str, ...] = ()
    modules: Tuple[str, ...] = ()
    expireafter: int = 0
    sealed_to: Tuple[str, ...] = ()
    occurrence: str = NO_OCCURRENCE


def encode_refused(
    *, step: int, code: str, detail: str, action_id: str, occurrence: str = NO_OCCURRENCE
) -> bytes:
    """Encode the verdict on an action that the gate refuses."""
    members = {"step": step, "code": code, "detail": clean_text(detail), "action_id": action_id}
    return encode_json({**members, "occurrence": occurrence})


def encode_admitted(
    *,
    action_id: str,
    name: str,
    signers: Iterable[str],
    modules: Iterable[str],
    expireafter: int,
    sealed_to: Iterable[str] = (),
    occurrence: str = NO_OCCURRENCE,
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
            "occurrence": occurrence,
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
    action_id, occurrence = members["action_id"], members["occurrence"]
    if not (isinstance(step, int) and 0 < step <= _LAST_STEP and isinstance(detail, str)):
        return None
    if not (isinstance(code, str) and code in CODES and isinstance(action_id, str)):
        return None
    if action_id and not ACTION_ID.match(action_id):
        return None
    if not (isinstance(occurrence, str) and _is_occurrence(occurrence)):
        return None
    return Verdict(Problem(code, step, detail), action_id, occurrence=occurrence)


def _read_admitted(members: Dict[str, object]) -> Optional[Verdict]:  # noqa: PLR0911  (a list of checks)
    action_id, name, expireafter = members["action_id"], members["name"], members["expireafter"]
    modules, occurrence = members["modules"], members["occurrence"]
    signers, sealed_to = _read_fingerprints(members["signers"]), _read_fingerprints(members["sealed_to"])
    if not (isinstance(action_id, str) and ACTION_ID.match(action_id) and isinstance(name, str)):
        return None
    if not (isinstance(expireafter, int) and 0 < expireafter < _MAX_SECONDS):
        return None
    if not (isinstance(occurrence, str) and _is_occurrence(occurrence)):
        return None
    if signers is None or sealed_to is None:
        return None
    if not (isinstance(modules, list) and len(modules) <= _MAX_LIST):
        return None
    if not all(isinstance(module, str) for module in modules):
        return None
    name = name[:_MAX_NAME]
    return Verdict(None, action_id, name, signers, tuple(modules), expireafter, sealed_to, occurrence)


def _read_fingerprints(value: object) -> Optional[Tuple[str, ...]]:
    if not isinstance(value, list) or not all(isinstance(one, str) and is_fingerprint(one) for one in value):
        return None
    return tuple(value)


def _is_occurrence(value: str) -> bool:
    return not value or is_occurrence(value)


class CancelVerdict(NamedTuple):
    """What a child says of a cancel whose signatures hold; `problem` is its code where they do not.

    `manages` says that one of the signers may cancel what others signed. `expireafter` is in Unix seconds.
    """

    problem: str
    action_id: str = ""
    digest: str = ""
    signers: Tuple[str, ...] = ()
    expireafter: int = 0
    manages: bool = False


def encode_cancel_verdict(verdict: CancelVerdict) -> bytes:
    """Encode the verdict on a cancel."""
    return encode_json(verdict._asdict())


def decode_cancel_verdict(body: bytes) -> CancelVerdict:
    """Decode the verdict on a cancel.

    Raises:
        InvalidInput: `bad-json` or `bad-document`.

    """
    members = decode_json(body)
    if not isinstance(members, dict) or set(members) != set(CancelVerdict._fields):
        raise InvalidInput("bad-document", "a verdict on a cancel lacks a member")
    verdict = CancelVerdict(**members)
    if not _is_cancel_verdict(verdict):
        raise InvalidInput("bad-document", "a verdict on a cancel has a member that cannot be")
    return verdict._replace(signers=tuple(verdict.signers))


def _is_cancel_verdict(verdict: CancelVerdict) -> bool:
    if verdict.problem:
        return isinstance(verdict.problem, str) and verdict.problem in CODES
    texts = (verdict.action_id, verdict.digest)
    return (
        all(isinstance(text, str) for text in texts)
        and ACTION_ID.match(verdict.action_id) is not None
        and DIGEST.match(verdict.digest) is not None
        and isinstance(verdict.signers, list)
        and 0 < len(verdict.signers) <= _MAX_LIST
        and all(isinstance(signer, str) and is_fingerprint(signer) for signer in verdict.signers)
        and isinstance(verdict.expireafter, int)
        and 0 < verdict.expireafter < _MAX_SECONDS
        and isinstance(verdict.manages, bool)
    )
