"""Strict JSON: what decoders disagree about is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidInput
from protocol.strictjson import MAX_DEPTH, MAX_DOCUMENT_BYTES, decode_json, encode_json
from tests.support.documents import decode_or_refuse, encode, json_values


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"{}", {}),
        (b' [1, -2.5, true, null, "\xc3\xa9"] ', [1, -2.5, True, None, "é"]),
        (b'"\\ud83d\\ude00\\u0000"', "\U0001f600\0"),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775807", -(2**63) + 1),
        (b"1e308", 1e308),
    ],
)
def test_strict_json_is_decoded(data: bytes, value: Any) -> None:
    assert decode_json(data) == value


@pytest.mark.parametrize(
    ("data", "reason"),
    {
        "nothing": (b"", "line 1 column 1"),
        "truncated": (b'{"a": 1', "at line 1 column 8"),
        "trailing": (b"{} {}", "Extra data"),
        "comment": (b"{} // x", "Extra data"),
        "trailing-comma": (b"[1,]", "line 1 column"),
        "single-quotes": (b"{'a': 1}", "double quotes"),
        "line-break-in-string": (b'"a\nb"', "control character"),
        "not-utf-8": (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        "utf-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        "byte-order-mark": (b"\xef\xbb\xbf{}", "BOM"),
        "surrogate-as-utf-8": (b'"\xed\xa0\x80"', "not UTF-8"),
        "lone-surrogate": (b'"\\ud800"', "lone surrogate"),
        "lone-surrogate-in-key": (b'{"\\uDC00": 1}', "lone surrogate"),
        "duplicate": (b'{"a": 1, "a": 1}', "duplicate key 'a'"),
        "duplicate-escaped": (b'{"a": 1, "\\u0061": 2}', "duplicate key 'a'"),
        "duplicate-inside": (b'[{"a": {"b": 1, "b": 1}}]', "duplicate key 'b'"),
        "nan": (b"NaN", "NaN is not JSON"),
        "infinity": (b'{"a": Infinity}', "Infinity is not JSON"),
        "minus-infinity": (b"[-Infinity]", "-Infinity is not JSON"),
        "large-float": (b"1e309", "beyond the range of a double"),
        "large-integer": (b"9223372036854775808", "beyond 63 bits"),
        "small-integer": (b"-9223372036854775808", "beyond 63 bits"),
        "long-integer": (b"1" * 100_000, "beyond 63 bits"),
        "leading-zero": (b"01", "Extra data"),
    }.values(),
)
def test_anything_else_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=f"bad-json: .*{reason}"):
        decode_json(data)


@pytest.mark.parametrize(
    ("opening", "closing", "levels"),
    [("[", "]", MAX_DEPTH), ('{"a":', "}", MAX_DEPTH), ('[{"a":', "}]", MAX_DEPTH // 2)],
)
def test_nesting_ends_at_its_limit(opening: str, closing: str, levels: int) -> None:
    decode_json((opening * levels + "1" + closing * levels).encode())
    for deeper in (levels + 1, 900, 100_000):
        with pytest.raises(InvalidInput, match="bad-json: nested deeper than 32"):
            decode_json((opening * deeper + "1" + closing * deeper).encode())


def test_brackets_that_never_close_are_refused() -> None:
    for brackets in (b"[" * 100_000, b'{"a":' * 100_000):
        with pytest.raises(InvalidInput, match="bad-json: nested deeper than 32"):
            decode_json(brackets)


def test_a_document_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidInput, match="too-large: 104857600 bytes, at most 1048576 allowed"):
        decode_json(bytes(100 << 20))
    assert decode_json(b" " * (MAX_DOCUMENT_BYTES - 1) + b"1") == 1
    with pytest.raises(InvalidInput, match="too-large: 5 bytes, at most 4 allowed"):
        decode_json(b"false", max_bytes=4)


def test_the_encoder_refuses_what_the_decoder_refuses() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_json({"a": float("nan")})
    assert encode_json({"a": ["é", 1]}) == b'{"a":["\xc3\xa9",1]}'


@given(json_values)
def test_what_is_decoded_is_what_was_meant(value: Any) -> None:
    decoded = decode_or_refuse(decode_json, encode(value), "bad-json")
    if decoded is not None:
        assert decoded == value
        assert decode_json(encode_json(decoded)) == decoded


@given(st.binary() | st.text(alphabet='[]{},:"\\u0123456789dDeE.+-nNtf ').map(str.encode))
def test_any_bytes_give_a_value_that_json_agrees_with_or_a_refusal(data: bytes) -> None:
    value = decode_or_refuse(decode_json, data, "bad-json")
    if value is not None:
        assert value == json.loads(data)
