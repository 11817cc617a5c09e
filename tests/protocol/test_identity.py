"""Agents' identities: an id proves its key, and a signature serves one purpose."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.envelope import HEARTBEAT, RESULT, Signature, decode_envelope, encode_envelope
from protocol.errors import InvalidInput
from protocol.identity import (
    agent_id,
    decode_broker_password,
    make_broker_password,
    require_agent_signature,
    require_signature,
    sign_envelope,
)
from protocol.names import is_agent_id

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
PUBLIC, OTHER_PUBLIC = (key.public_key().public_bytes_raw() for key in (KEY, OTHER))
ID, OTHER_ID = agent_id(PUBLIC), agent_id(OTHER_PUBLIC)
SIGNED = sign_envelope(KEY, HEARTBEAT, b"{}")
PASSWORD = make_broker_password(KEY, broker="mig", vhost="mig", time=1796083200, nonce=bytes(range(16)))


def test_an_id_is_the_hash_of_the_key() -> None:
    # printf of 32 zero octets | sha256sum
    assert agent_id(bytes(32)) == "66687aadf862bd776c8fc18b8e9f8e20"
    assert is_agent_id(ID)


def test_an_agents_envelope_verifies_by_its_id_and_key_alone() -> None:
    received = decode_envelope(encode_envelope(SIGNED), HEARTBEAT)
    require_agent_signature(received, PUBLIC, ID)


def test_an_envelope_by_another_or_of_another_payload_or_type_is_refused() -> None:
    sig = SIGNED.signatures[0].sig
    for changed, reason in [
        (SIGNED._replace(payload=b"{ }"), "does not verify"),
        (SIGNED._replace(payload_type=RESULT), "does not verify"),
        (SIGNED._replace(signatures=()), "exactly one signature"),
        (SIGNED._replace(signatures=SIGNED.signatures * 2), "exactly one signature"),
        (SIGNED._replace(signatures=(Signature(OTHER_ID, sig),)), "by another agent"),
        (SIGNED._replace(signatures=(Signature(ID, sig[:-1]),)), "does not verify"),
        (SIGNED._replace(signatures=(Signature(ID, bytes(64)),)), "does not verify"),
        (sign_envelope(OTHER, HEARTBEAT, b"{}"), "by another agent"),
        (
            sign_envelope(OTHER, HEARTBEAT, b"{}")._replace(
                signatures=(Signature(ID, sign_envelope(OTHER, HEARTBEAT, b"{}").signatures[0].sig),)
            ),
            "does not verify",
        ),
    ]:
        with pytest.raises(InvalidInput, match=f"bad-signature: .*{reason}"):
            require_agent_signature(changed, PUBLIC, ID)


def test_a_key_that_is_not_that_of_the_id_is_refused() -> None:
    for public in (OTHER_PUBLIC, b"", PUBLIC + b"\0"):
        with pytest.raises(InvalidInput, match="bad-signature: the public key is not that of the agent's id"):
            require_agent_signature(SIGNED, public, ID)


@given(st.binary(), st.binary(max_size=80), st.binary(min_size=32, max_size=32))
def test_any_bytes_are_refused_as_a_signature(message: bytes, sig: bytes, public: bytes) -> None:
    with pytest.raises(InvalidInput, match="bad-signature"):
        require_signature(PUBLIC, ID, sig, message)
    with pytest.raises(InvalidInput, match="bad-signature"):
        require_signature(public, ID, sig, message)


def test_a_broker_password_tells_who_made_it_when_and_is_short() -> None:
    login = decode_broker_password(PASSWORD)
    assert (login.public_key, login.time, login.nonce) == (PUBLIC, 1796083200, bytes(range(16)))
    login.require_valid(ID, "mig", "mig")
    assert (login.token, login.name, login.addresses) == ("", "", "")
    assert len(PASSWORD) == 260


def test_a_broker_password_serves_one_broker_one_agent_one_time() -> None:
    login = decode_broker_password(PASSWORD)
    for agent, broker, vhost in [
        (ID, "gim", "mig"),
        (ID, "mig", "/"),
        (OTHER_ID, "mig", "mig"),
        (ID, "migm", "ig"),
    ]:
        with pytest.raises(InvalidInput, match="bad-signature"):
            login.require_valid(agent, broker, vhost)
    for changed in (
        login._replace(time=login.time + 1),
        login._replace(nonce=bytes(16)),
        login._replace(public_key=OTHER_PUBLIC),
        login._replace(token="0123456789abcdef"),
        login._replace(proof=bytes(range(64))),
        login._replace(name="web1"),
        login._replace(addresses="10.0.0.1/24"),
        login._replace(sig=SIGNED.signatures[0].sig),
    ):
        with pytest.raises(InvalidInput, match="bad-signature"):
            changed.require_valid(ID, "mig", "mig")


@pytest.mark.parametrize(
    "password", ["", "x", PASSWORD[:-4], PASSWORD + "AAAA", PASSWORD[:-1] + "é", "\ud800", "A" * 1_000_000]
)
def test_what_is_no_broker_password_is_refused(password: str) -> None:
    with pytest.raises(InvalidInput, match="bad-document: not a broker password"):
        decode_broker_password(password)


@given(
    st.text() | st.binary(min_size=190, max_size=210).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
)
def test_any_password_is_refused(password: str) -> None:
    with pytest.raises(InvalidInput, match=r"bad-document|bad-signature"):
        decode_broker_password(password).require_valid(ID, "mig", "mig")
