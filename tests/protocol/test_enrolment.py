"""Enrolment tokens, and the broker logins that show them."""

import contextlib
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.enrolment import EnrolmentToken, decode_token, encode_token, is_token_id, token_id
from protocol.errors import InvalidInput
from protocol.identity import MAX_SAID_BYTES, agent_id, decode_broker_password, make_broker_password

KEY = Ed25519PrivateKey.generate()
PUBLIC = KEY.public_key().public_bytes_raw()
TOKEN = decode_token(encode_token(bytes(range(32))))
PLAIN_LIMIT = 3000  # measured on RabbitMQ 3.10: the first frame has at most 4 KiB


def password(**changed: object) -> str:
    members = {"broker": "mig", "vhost": "mig", "time": 1, "nonce": bytes(16), "token": TOKEN, **changed}
    return make_broker_password(KEY, **members)  # type: ignore[arg-type]


@given(st.binary(min_size=32, max_size=32))
def test_a_token_is_read_as_it_was_written(seed: bytes) -> None:
    token = decode_token(encode_token(seed))
    assert token.private_key.private_bytes_raw() == seed
    assert is_token_id(token_id(token.public_key))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mig-token-",
        "mig-token-" + "A" * 42,
        "mig-token-" + "B" * 43,
        "mig-token-" + "\u0665" * 43,
        "A" * 43,
    ],
)
def test_what_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInput, match="bad-token: an enrolment token is mig-token- and 43") as refused:
        decode_token(text)
    assert not text or text not in str(refused.value) or text == "mig-token-"


@given(name=st.text(max_size=300), addresses=st.text(max_size=300), shows=st.booleans())
def test_a_login_says_what_was_put_in_and_fits_the_broker(name: str, addresses: str, *, shows: bool) -> None:
    made = password(name=name, addresses=addresses, token=TOKEN if shows else None)
    assert len(made) < PLAIN_LIMIT
    login = decode_broker_password(made)
    login.require_valid(agent_id(PUBLIC), "mig", "mig")
    assert login.token == (token_id(TOKEN.public_key) if shows else "")
    assert len(f"{login.name}{login.addresses}".encode()) < MAX_SAID_BYTES
    if shows:
        login.require_token(TOKEN.public_key, "mig", "mig")


@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        ({}, ("other", "mig")),
        ({}, ("mig", "other")),
        ({"token": EnrolmentToken(Ed25519PrivateKey.generate())}, ("mig", "mig")),
        ({"token": None}, ("mig", "mig")),
    ],
    ids=["another broker", "another vhost", "another token", "no token"],
)
def test_a_proof_is_good_for_one_token_at_one_place(
    changed: dict[str, object], asked: tuple[str, str]
) -> None:
    with pytest.raises(InvalidInput, match="bad-token: the proof"):
        decode_broker_password(password(**changed)).require_token(TOKEN.public_key, *asked)


@given(st.data())
def test_a_login_that_was_changed_anywhere_is_refused(data: st.DataObject) -> None:
    made = password(name="web1", addresses="10.0.0.1/24")
    place = data.draw(st.integers(0, len(made) - 1))
    letter = data.draw(st.sampled_from("ABCDEFGHIJabcdefghij0123456789-_"))
    changed = made[:place] + letter + made[place + 1 :]
    if changed == made:
        return
    with pytest.raises(InvalidInput, match="bad-signature|bad-document"):
        decode_broker_password(changed).require_valid(agent_id(PUBLIC), "mig", "mig")


@given(st.text(max_size=1200) | st.binary(max_size=900).map(lambda raw: raw.hex()))
def test_any_text_is_a_login_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        decode_broker_password(text)


def test_the_token_itself_is_not_in_the_login() -> None:
    seed = os.urandom(32)
    made = password(token=decode_token(encode_token(seed)))
    assert encode_token(seed).removeprefix("mig-token-")[:40] not in made
