"""Makes complete actions of what people write, and reads signed ones.

Rules:
1. An unknown member is refused by name; the members that the ancestor's platform itself used to write into an
   action (status, counters and the like) are dropped, and said.
2. Modules get their canonical names, parameters and target their canonical spelling here, before signing: the
   gate of an agent knows no other.
3. Times that stand in the file are kept when both are there; else the action is valid from a minute ago, for
   clocks that are slow, until now plus the expiry asked for.
"""

import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from agent.module import decode_params
from agent.registry import canonical_name, load_module
from protocol.action import Action, Operation, convert_action, decode_action
from protocol.envelope import ACTION, MAX_ENVELOPE_BYTES, Envelope, decode_envelope
from protocol.errors import InvalidInput
from protocol.strictjson import decode_json
from protocol.target import parse_target, upgrade_target

DEFAULT_TARGET = "status = 'online'"
DEFAULT_EXPIRE_S = 300
SLOW_CLOCKS_S = 60

_MEMBERS = frozenset(Action.__struct_fields__)
_OPERATION_MEMBERS = frozenset(Operation.__struct_fields__)
# What the ancestor's platform, not its investigators, wrote into an action (mig/action.go, type Action).
_ANCESTOR_MEMBERS = frozenset(
    {
        *("pgpsignatures", "investigators", "status", "starttime", "finishtime", "lastupdatetime"),
        "counters",
    }
)
_ANCESTOR_SWITCHES = frozenset({"is_compressed", "want_compressed"})
_DURATION = re.compile(r"(?:[0-9]{1,9}[smhd])+\Z")
_DURATION_PART = re.compile(r"([0-9]+)([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Completed(NamedTuple):
    """A complete action, with what was changed on the way, for people."""

    action: Action
    notes: tuple[str, ...]


class Completion(NamedTuple):
    """What completes a template: the command line's target and expiry, and the time."""

    now: datetime
    target: str | None = None
    expire_s: int = DEFAULT_EXPIRE_S


def parse_duration(text: str) -> int:
    """Return the seconds of a duration like `90s`, `5m`, `1h30m` or `2d`.

    Raises:
        InvalidInput: `usage`.

    """
    if _DURATION.match(text) is None:
        raise InvalidInput("usage", f"{text!r} is not a duration like 90s, 5m, 1h30m or 2d")
    seconds = sum(int(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))
    if not 0 < seconds <= 366 * _UNIT_S["d"]:
        raise InvalidInput("usage", f"{text!r} is not between a second and a year")
    return seconds


def new_action_id() -> str:
    """Return a fresh UUIDv7: 48 bits of milliseconds, so that ids sort by time, and 74 random ones.

    Source: RFC 9562, section 5.7.
    """
    value = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def complete_action(template: Any, completion: Completion) -> Completed:
    """Make a complete action of a decoded template.

    Raises:
        InvalidInput: `bad-action`, `unknown-module` or `bad-parameters`, with the member that is wrong.

    """
    if not isinstance(template, dict):
        raise InvalidInput("bad-action", "an action is a JSON object")
    members = dict(template)
    notes = []
    dropped = sorted(_ANCESTOR_MEMBERS & set(members))
    for name in dropped:
        del members[name]
    if not _is_action_id(members.get("id")):
        # The ancestor numbered actions on its platform.
        dropped += ["id"] * (members.pop("id", None) is not None)
        members["id"] = new_action_id()
    if dropped:
        notes.append(f"dropped what a platform wrote into the file: {', '.join(dropped)}")
    unknown = sorted(set(members) - _MEMBERS)
    if unknown:
        raise InvalidInput(
            "bad-action", f"unknown member {unknown[0]!r}; known: {', '.join(sorted(_MEMBERS))}"
        )
    target = completion.target or members.get("target") or DEFAULT_TARGET
    members["target"] = canonical_target(target)
    if members["target"] != target:
        notes.append(f"the target is written {members['target']} here")
    members.setdefault("syntaxversion", 2)
    members.update(_validity(members, completion))
    operations, renamed = _upgrade_operations(members.get("operations"))
    members["operations"] = operations
    return Completed(convert_action(members), (*notes, *renamed))


def canonical_target(text: Any) -> str:
    """Return a target as it is signed: as it was written, unless the ancestor's words are in it.

    Raises:
        InvalidInput: `bad-target` or `bad-action`.

    """
    if not isinstance(text, str):
        raise InvalidInput("bad-action", "the target is not a string")
    upgraded = upgrade_target(text)
    try:
        is_canonical = parse_target(text) == upgraded
    except InvalidInput:
        is_canonical = False
    return text if is_canonical else str(upgraded)


def _is_action_id(value: Any) -> bool:
    return (
        isinstance(value, str) and re.match(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", value) is not None
    )


def _validity(members: dict[str, Any], completion: Completion) -> dict[str, Any]:
    given = [name for name in ("validfrom", "expireafter") if not _is_unset(members.get(name))]
    if len(given) == 1:
        raise InvalidInput("bad-action", f"only {given[0]} is given: give both times or neither")
    if given:
        return {}
    now = completion.now.replace(microsecond=0)
    return {
        "validfrom": _rfc3339(now - timedelta(seconds=SLOW_CLOCKS_S)),
        "expireafter": _rfc3339(now + timedelta(seconds=completion.expire_s)),
    }


def _is_unset(value: Any) -> bool:
    # Go's zero time, which the ancestor wrote where there was none.
    return value is None or (isinstance(value, str) and value.startswith("0001-01-01T"))


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _upgrade_operations(listed: Any) -> tuple[list[dict[str, Any]], list[str]]:
    if not isinstance(listed, list) or not listed:
        raise InvalidInput("bad-action", "operations is not a list of at least one operation")
    upgraded, notes = [], []
    for index, operation in enumerate(listed):
        where = f"operations[{index}]"
        if not isinstance(operation, dict) or not isinstance(operation.get("module"), str):
            raise InvalidInput("bad-action", f"{where} has no module")
        if operation.get("is_compressed"):
            raise InvalidInput("bad-action", f"{where} has compressed parameters: save it uncompressed")
        unknown = sorted(set(operation) - _OPERATION_MEMBERS - _ANCESTOR_SWITCHES)
        if unknown:
            raise InvalidInput(
                "bad-action",
                f"{where}: unknown member {unknown[0]!r}; known: {', '.join(Operation.__struct_fields__)}",
            )
        name = canonical_name(operation["module"])
        if name != operation["module"]:
            notes.append(f"module {operation['module']} is called {name} here")
        module = load_module(name)
        try:
            parameters = module.upgrade(operation.get("parameters", {}))
            decoded = decode_params(module.params, parameters)
            notes += module.review(decoded) if module.review is not None else ()
        except InvalidInput as error:
            raise InvalidInput(error.code, f"{where}: {error.detail}") from None
        conditions = {member: operation[member] for member in ("when", "of") if member in operation}
        upgraded.append({"module": name, "parameters": parameters, **conditions})
    return upgraded, notes


def read_document(path: Path) -> bytes:
    """Read an action file, signed or not, of at most the size that an envelope may have.

    Raises:
        InvalidInput: `usage` where it cannot be read, `too-large`.

    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as error:
        raise InvalidInput("usage", f"{path}: {error.strerror}") from None
    if len(data) > MAX_ENVELOPE_BYTES:
        raise InvalidInput("too-large", f"{path} is larger than {MAX_ENVELOPE_BYTES} bytes")
    return data


class SignedAction(NamedTuple):
    """An envelope that holds an action; whether its signatures verify is asked elsewhere."""

    envelope: Envelope
    action: Action


def read_action_file(path: Path) -> SignedAction | Any:
    """Read an action file: a `SignedAction`, or the decoded template.

    Raises:
        InvalidInput: `usage`, `too-large`, `bad-json`, `bad-envelope`, `wrong-type` or `bad-action`.

    """
    data = read_document(path)
    document = decode_json(data, max_bytes=MAX_ENVELOPE_BYTES)
    if isinstance(document, dict) and "payloadType" in document:
        return read_signed(data)
    return document


def read_signed(data: bytes) -> SignedAction:
    """Decode an envelope that must hold an action.

    Raises:
        InvalidInput: `too-large`, `bad-json`, `bad-envelope`, `wrong-type` or `bad-action`.

    """
    envelope = decode_envelope(data, ACTION)
    return SignedAction(envelope, decode_action(envelope.payload))
