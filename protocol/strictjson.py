"""Strict JSON: one pass that refuses what decoders disagree about.

Refused: more than the allowed bytes, invalid UTF-8, lone surrogates, duplicate keys, NaN and infinities,
integers outside (-2^63, 2^63), nesting deeper than `MAX_DEPTH`, trailing data.
`json` alone accepts most of these and keeps the last of two duplicate keys; two parsers that disagree are how
a signed document comes to mean two things.

Standard library only: the resident agent imports this module.
"""

import codecs
import json
import math
from typing import Any, Dict, List, NoReturn, Tuple

from protocol.errors import InvalidInput

MAX_DOCUMENT_BYTES = 1 << 20
MAX_DEPTH = 32
_MAX_INTEGER = 1 << 63
_MAX_DIGITS = 19  # of 2^63; longer literals are refused before they are converted


def _require_unique_keys(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise InvalidInput("bad-json", f"duplicate key {key[:64]!r}")
            seen.add(key)
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidInput("bad-json", f"{name} is not JSON")


def _require_small_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS + 1 or not -_MAX_INTEGER < int(text) < _MAX_INTEGER:
        raise InvalidInput("bad-json", "integer beyond 63 bits")
    return int(text)


def _require_finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidInput("bad-json", "number beyond the range of a double")
    return value


def _require_shallow(value: Any) -> None:
    """Refuse nesting deeper than `MAX_DEPTH`, level by level, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            if isinstance(container, (dict, list))
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return
    raise InvalidInput("bad-json", f"nested deeper than {MAX_DEPTH}")


def _require_text(value: Any) -> None:
    """Refuse escaped surrogates without their other half: nobody could write them out again."""
    try:
        encode_json(value)
    except UnicodeEncodeError:
        raise InvalidInput("bad-json", "a lone surrogate is not text") from None


# Made once: a decoder for each document costs as much as reading a small one. It keeps nothing between two.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_require_unique_keys,
    parse_constant=_refuse_constant,
    parse_int=_require_small_integer,
    parse_float=_require_finite,
)


def decode_json(data: bytes, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> Any:
    """Decode one strict JSON document from `data`.

    Raises:
        InvalidInput: `too-large` or `bad-json`, with what was wrong.

    """
    if len(data) > max_bytes:
        raise InvalidInput("too-large", f"{len(data)} bytes, at most {max_bytes} allowed")
    if data.startswith(codecs.BOM_UTF8):
        raise InvalidInput("bad-json", "begins with a BOM")
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidInput("bad-json", f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidInput("bad-json", f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:  # the C scanner's own guard, far above MAX_DEPTH
        raise InvalidInput("bad-json", f"nested deeper than {MAX_DEPTH}") from None
    _require_shallow(value)
    if b"\\u" in data:
        _require_text(value)
    return value


def encode_json(value: Any) -> bytes:
    """Encode to compact UTF-8 JSON; refuses NaN, as the decoder does."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")
