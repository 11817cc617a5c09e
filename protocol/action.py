"""Actions: what investigators sign.

An action that reaches a server or an agent is complete: it has an id, a validity window and canonical
names only. The shorter form that people write by hand is completed by the client before signing.
Unknown members are refused, so that nothing is ever signed that a receiver would ignore.
"""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Optional, Tuple

import msgspec
from msgspec import Meta

from protocol.errors import InvalidInput
from protocol.schedule import Calendar, Schedule
from protocol.sealing import MAX_RECIPIENTS
from protocol.strictjson import decode_json

MAX_OPERATIONS = 64
MAX_TARGET = 32768  # 500 ids of 32 digits with quotes and commas are 18,000 characters

UtcTime = Annotated[datetime, Meta(tz=True)]  # structs that hold one call `require_utc`
_FIRST_YEAR, _LAST_YEAR = 1970, 2999
ActionId = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
ModuleName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\Z")]
Fingerprint = Annotated[str, Meta(pattern=r"^[0-9A-F]{40}\Z")]
ShortText = Annotated[str, Meta(max_length=1024)]


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who wrote the action and which revision it is; shown to people, never interpreted."""

    author: Optional[ShortText] = None
    email: Optional[ShortText] = None
    url: Optional[ShortText] = None
    revision: Optional[int] = None


class Threat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the action looks for; shown to people, never interpreted."""

    level: Optional[ShortText] = None
    type: Optional[ShortText] = None
    family: Optional[ShortText] = None
    ref: Optional[ShortText] = None


class Operation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One module to run with its parameters, whose shape the module declares.

    With `when` it runs only if an earlier operation of the same action found something, or did not; `of` is
    that operation's number, from 0 as in answers, and without it the one just before. What has an answer with
    a hole in it, or was itself not run, has neither found nor not found.
    """

    module: ModuleName
    # The module's own declaration decodes this tree of JSON values (gate step 8).
    parameters: Any
    when: Optional[Literal["found", "not-found"]] = None
    of: Optional[Annotated[int, Meta(ge=0, lt=MAX_OPERATIONS)]] = None

    def depends_on(self, index: int) -> Optional[int]:
        """Return the number of the operation that must end before this one, the `index`th, is judged."""
        if self.when is None:
            return None
        return index - 1 if self.of is None else self.of


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A complete action: everything in it is signed. Times are UTC; `expireafter` ends the validity.

    `sealed_to` names, by primary fingerprint, the investigators who alone may read the answers; empty leaves
    them readable for the platform.
    """

    id: ActionId
    name: Annotated[str, Meta(min_length=1, max_length=2048)]
    target: Annotated[str, Meta(min_length=1, max_length=MAX_TARGET)]
    validfrom: UtcTime
    expireafter: UtcTime
    operations: Annotated[Tuple[Operation, ...], Meta(min_length=1, max_length=MAX_OPERATIONS)]
    syntaxversion: Literal[2]
    description: Description = Description()
    threat: Threat = Threat()
    sealed_to: Annotated[Tuple[Fingerprint, ...], Meta(max_length=MAX_RECIPIENTS)] = ()
    schedule: Optional[Schedule] = None

    def __post_init__(self) -> None:
        """Refuse times that are not UTC, a window never open, a reader named twice, a senseless order."""
        require_utc(self.validfrom, self.expireafter)
        if self.validfrom >= self.expireafter:
            raise ValueError("validfrom is not before expireafter")
        if len(set(self.sealed_to)) != len(self.sealed_to):
            raise ValueError("sealed_to names somebody twice")
        require_order(self.operations)

    @property
    def calendar(self) -> Optional[Calendar]:
        """The occurrences of an action with a schedule; None for one that runs once."""
        if self.schedule is None:
            return None
        return Calendar(self.schedule, self.validfrom, self.expireafter)


def require_order(operations: Tuple[Operation, ...]) -> None:
    """Raise unless each operation depends on an earlier one, if on any; msgspec makes a refusal of it.

    Raises:
        ValueError: with the operation.

    """
    for index, operation in enumerate(operations):
        if operation.of is not None and operation.when is None:
            raise ValueError(f"operations[{index}]: of without when")
        needed = operation.depends_on(index)
        if needed is not None and not 0 <= needed < index:
            raise ValueError(f"operations[{index}]: when means an earlier operation, and {needed} is none")


def require_utc(*times: datetime) -> None:
    """Raise unless all times are UTC and in this age; msgspec makes a refusal of it.

    Times at the ends of the calendar, or with an offset, cannot be added to, converted or stored everywhere.

    Raises:
        ValueError: another offset than zero, or a year before 1970 or after 2999.

    """
    for time in times:
        if time.utcoffset() != timedelta(0):
            raise ValueError(f"{time.isoformat()} is not UTC")
        if not _FIRST_YEAR <= time.year <= _LAST_YEAR:
            raise ValueError(f"{time.isoformat()} is not a time of this age")


def decode_action(payload: bytes) -> Action:
    """Decode a signed payload; the caller has verified its signatures.

    Raises:
        InvalidInput: `too-large`, `bad-json` or `bad-action`.

    """
    return convert_action(decode_json(payload))


def convert_action(value: Any) -> Action:
    """Turn decoded JSON into an action.

    Raises:
        InvalidInput: `bad-action`, with the member that is wrong.

    """
    try:
        return msgspec.convert(value, Action)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-action", str(error)) from None


def encode_action(action: Action) -> bytes:
    """Encode to the payload bytes that are signed."""
    return msgspec.json.encode(action)
