"""Envelopes: the published vectors of DSSE, and what an envelope may not look like."""

import base64
import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from protocol.envelope import (
    ACTION,
    LOGIN,
    MAX_ENVELOPE_BYTES,
    MAX_SIGNATURE_BYTES,
    MAX_SIGNATURES,
    Envelope,
    Signature,
    decode_envelope,
    encode_envelope,
    pae,
    payload_type,
    peek_type,
)
from protocol.errors import InvalidInput
from protocol.strictjson import MAX_DOCUMENT_BYTES
from tests.support.documents import decode_or_refuse, encode, hostile

# https://github.com/secure-systems-lab/dsse/blob/master/protocol.md, "Test Vectors"
DSSE_TYPE, DSSE_PAYLOAD = "http://example.com/HelloWorld", b"hello world"
DSSE_PAE = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
DSSE_X = 46950820868899156662930047687818585632848591499744589407958293238635476079160
DSSE_Y = 5640078356564379163099075877009565129882514886557779369047442380624545832820
DSSE_SIG = "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="
DSSE_ENVELOPE = {
    "payload": "aGVsbG8gd29ybGQ=",
    "payloadType": DSSE_TYPE,
    "signatures": [{"keyid": "66301bbf", "sig": DSSE_SIG}],
}

GOOD: dict[str, Any] = {
    "payloadType": ACTION,
    "payload": base64.b64encode(b"{}").decode(),
    "signatures": [{"keyid": "k", "sig": "c2ln"}],
}


def test_the_published_vector_gives_the_published_encoding() -> None:
    assert pae(DSSE_TYPE, DSSE_PAYLOAD) == DSSE_PAE


def test_the_published_envelope_is_decoded_and_its_signature_covers_our_bytes() -> None:
    envelope = decode_envelope(encode(DSSE_ENVELOPE), DSSE_TYPE)
    assert envelope.payload == DSSE_PAYLOAD
    ((keyid, sig),) = envelope.signatures
    assert keyid == "66301bbf"
    public = ec.EllipticCurvePublicNumbers(DSSE_X, DSSE_Y, ec.SECP256R1()).public_key()
    der = encode_dss_signature(int.from_bytes(sig[:32], "big"), int.from_bytes(sig[32:], "big"))
    public.verify(der, envelope.signed_bytes, ec.ECDSA(SHA256()))
    with pytest.raises(InvalidSignature):
        public.verify(der, pae(ACTION, DSSE_PAYLOAD), ec.ECDSA(SHA256()))


@given(st.tuples(st.text(), st.binary()), st.tuples(st.text(), st.binary()))
def test_no_two_documents_have_the_same_encoding(one: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    assert (pae(*one) == pae(*other)) == (one == other)


def test_lengths_are_those_of_octets() -> None:
    assert pae("é", "é".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"
    assert pae("", b"") == b"DSSEv1 0  0 "


def test_types_are_media_types_of_their_own() -> None:
    assert payload_type("action") == ACTION == "application/vnd.mig.action+json"


def test_the_identity_of_a_document_is_that_of_its_payload() -> None:
    unsigned = Envelope(ACTION, b"{}", ())
    signed = unsigned._replace(signatures=(Signature("k", b"s"),))
    assert unsigned.digest == signed.digest
    assert unsigned.digest == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # sha256sum


@given(
    st.binary(), st.lists(st.tuples(st.text(max_size=128), st.binary(min_size=1)), max_size=MAX_SIGNATURES)
)
def test_what_is_encoded_is_decoded(payload: bytes, signatures: list[tuple[str, bytes]]) -> None:
    envelope = Envelope(ACTION, payload, tuple(Signature(*signature) for signature in signatures))
    try:
        encoded = encode_envelope(envelope)
    except UnicodeEncodeError:
        return  # a lone surrogate in a key id has no encoding
    assert decode_envelope(encoded, ACTION) == envelope
    assert peek_type(encoded) == ACTION


def test_the_largest_envelope_that_is_allowed_is_decoded() -> None:
    signatures = tuple(Signature("F" * 128, bytes(MAX_SIGNATURE_BYTES)) for _ in range(MAX_SIGNATURES))
    envelope = Envelope(ACTION, bytes(MAX_DOCUMENT_BYTES), signatures)
    encoded = encode_envelope(envelope)
    assert len(encoded) <= MAX_ENVELOPE_BYTES
    assert decode_envelope(encoded, ACTION) == envelope


def test_both_alphabets_of_base64_are_read() -> None:
    for text in ("-_-_", "+/+/"):
        assert decode_envelope(encode({**GOOD, "payload": text}), ACTION).payload == b"\xfb\xff\xbf"


@pytest.mark.parametrize(
    ("change", "code"),
    {
        "another-type": ({"payloadType": LOGIN}, "wrong-type"),
        "type-in-another-case": ({"payloadType": ACTION.upper()}, "wrong-type"),
        "type-of-no-text": ({"payloadType": None}, "wrong-type"),
        "unknown-member": ({"comment": "hello"}, "bad-envelope"),
        "payload-number": ({"payload": 1}, "bad-envelope"),
        "payload-with-break": ({"payload": "aGVs\nbG8="}, "bad-envelope"),
        "payload-unpadded": ({"payload": "aGVsbG8"}, "bad-envelope"),
        "payload-padded-twice": ({"payload": "aGVsbG8=="}, "bad-envelope"),
        "payload-only-padding": ({"payload": "="}, "bad-envelope"),
        "payload-loose-bits": ({"payload": "aGVsbG9="}, "bad-envelope"),
        "payload-not-ascii": ({"payload": "aGVsbG8é"}, "bad-envelope"),
        "payload-large": ({"payload": base64.b64encode(bytes(MAX_DOCUMENT_BYTES + 1)).decode()}, "too-large"),
        "signatures-object": ({"signatures": {}}, "bad-envelope"),
        "signatures-nine": ({"signatures": GOOD["signatures"] * 9}, "bad-envelope"),
        "signature-text": ({"signatures": ["c2ln"]}, "bad-envelope"),
        "signature-without-keyid": ({"signatures": [{"sig": "c2ln"}]}, "bad-envelope"),
        "signature-with-more": (
            {"signatures": [{"keyid": "k", "sig": "c2ln", "alg": "none"}]},
            "bad-envelope",
        ),
        "keyid-null": ({"signatures": [{"keyid": None, "sig": "c2ln"}]}, "bad-envelope"),
        "keyid-long": ({"signatures": [{"keyid": "k" * 129, "sig": "c2ln"}]}, "bad-envelope"),
        "sig-empty": ({"signatures": [{"keyid": "k", "sig": ""}]}, "bad-envelope"),
        "sig-long": (
            {"signatures": [{"keyid": "k", "sig": base64.b64encode(bytes(4097)).decode()}]},
            "bad-envelope",
        ),
    }.values(),
)
def test_an_envelope_that_is_not_exactly_one_is_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{code}: "):
        decode_envelope(encode({**GOOD, **change}), ACTION)


def test_a_type_that_is_no_text_is_nobodys() -> None:
    with pytest.raises(InvalidInput, match="bad-envelope: payloadType is not a string"):
        peek_type(encode({**GOOD, "payloadType": [ACTION]}))


@pytest.mark.parametrize("member", GOOD)
def test_every_member_is_needed(member: str) -> None:
    with pytest.raises(InvalidInput, match="bad-envelope: envelope must have exactly the members"):
        decode_envelope(encode({key: value for key, value in GOOD.items() if key != member}), ACTION)


def test_an_envelope_with_a_member_twice_is_refused() -> None:
    twice = json.dumps(GOOD)[:-1] + ', "payload": "e30="}'
    with pytest.raises(InvalidInput, match="bad-json: duplicate key 'payload'"):
        decode_envelope(twice.encode(), ACTION)


def test_an_envelope_that_is_too_large_is_refused_before_it_is_read() -> None:
    for decode in (lambda data: decode_envelope(data, ACTION), peek_type):
        with pytest.raises(InvalidInput, match="too-large: 104857600 bytes"):
            decode(bytes(100 << 20))


@given(hostile(GOOD))
def test_any_bytes_give_an_envelope_or_a_refusal(data: bytes) -> None:
    envelope = decode_or_refuse(
        lambda data: decode_envelope(data, ACTION), data, "bad-json", "bad-envelope", "wrong-type"
    )
    if envelope is not None:
        assert decode_envelope(encode_envelope(envelope), ACTION) == envelope
        assert peek_type(data) == ACTION
