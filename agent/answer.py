"""Encodes the result of one operation so that it fits and every receiver can decode it.

Rules:
1. What does not fit is cut from the end of the records, then of the notes, and the result says so.
2. What strict JSON cannot carry (a number beyond 63 bits, text that is not Unicode) fails this operation
   alone.
"""

from typing import Any, Dict, Tuple

import msgspec

from protocol.errors import InvalidInput
from protocol.result import OperationResult
from protocol.strictjson import decode_json

# With fewer bytes not even a result that is cut to nothing may fit.
LEAST_BYTES = 4096
_MAX_NOTE = 500
_KEEP = 0.9  # of what would just fit by average size; records differ


def encode_result(result: OperationResult, room_bytes: int) -> bytes:
    """Return a result as JSON of at most `room_bytes`, which must be `LEAST_BYTES` or more."""
    notes = tuple(note[:_MAX_NOTE] for note in result.notes)
    try:
        encoded = _encode_fitting(msgspec.structs.replace(result, notes=notes), room_bytes)
        decode_json(encoded, max_bytes=room_bytes)
    except (InvalidInput, UnicodeEncodeError, msgspec.MsgspecError) as error:
        failed = OperationResult(
            found=False,
            status="failed",
            notes=(f"the module's answer cannot be sent: {type(error).__name__}",),
            truncated=True,
        )
        return msgspec.json.encode(failed)
    return encoded


def _encode_fitting(result: OperationResult, room_bytes: int) -> bytes:
    encoded = msgspec.json.encode(result)
    while len(encoded) > room_bytes:
        if result.records:
            kept = int(len(result.records) * min(_KEEP, room_bytes / len(encoded) * _KEEP))
            result = _cut(result, result.records[:kept], result.notes, room_bytes)
        elif len(result.notes) > 1:
            result = _cut(result, (), result.notes[: len(result.notes) // 2], room_bytes)
        else:
            result = msgspec.structs.replace(_cut(result, (), (), room_bytes), statistics={})
        encoded = msgspec.json.encode(result)
    return encoded


def _cut(
    result: OperationResult, records: Tuple[Dict[str, Any], ...], notes: Tuple[str, ...], room_bytes: int
) -> OperationResult:
    said = f"the answer was cut to fit {room_bytes} bytes"
    return msgspec.structs.replace(
        result,
        records=records,
        notes=notes if said in notes else (said, *notes),
        status="limit" if result.status == "ok" else result.status,
        truncated=True,
    )
