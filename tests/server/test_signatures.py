"""The server's way of checking agents' signatures: never less strict than what clients do."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.envelope import RESULT, Signature
from protocol.errors import InvalidInput
from protocol.identity import Verify, agent_id, require_ed25519, sign_envelope
from server.signatures import require_signed_by, require_verified

KEY = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
PUBLIC = KEY.public_key().public_bytes_raw()

# RFC 8032 section 7.1, tests 1 to 3: public key, message, signature.
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]

# The cases on which verifiers disagree, of Chalkias, Garillot and Nikolaenko: Taming the many EdDSAs (IACR
# ePrint 2020/1244): message, public key, signature; whether the server and whether a client takes it.
EDGES = {
    "small-key-and-commitment": (
        "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        (
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"
            "0000000000000000000000000000000000000000000000000000000000000000"
        ),
        (False, True),
    ),
    "small-key": (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        (
            "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43"
            "a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04"
        ),
        (False, True),
    ),
    "small-commitment": (
        "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        (
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"
            "8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e"
        ),
        (False, True),
    ),
    "mixed-key-that-fits-without-cofactor": (
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        (
            "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f"
            "87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009"
        ),
        (True, True),
    ),
    "fits-with-cofactor-only": (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        (
            "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed512"
            "5ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09"
        ),
        (False, False),
    ),
    "fits-with-cofactor-only-and-before-reduction": (
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        (
            "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7"
            "e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405"
        ),
        (False, False),
    ),
    "scalar-beyond-the-order": (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        (
            "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e"
            "547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514"
        ),
        (False, False),
    ),
    "scalar-far-beyond-the-order": (
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        (
            "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa1942"
            "7e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22"
        ),
        (False, False),
    ),
    "commitment-written-otherwise": (
        "fdaebc429f4a735932a160da1301080c13280eea8bc280d1b392c6b9e6ba3a5a",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        (
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
            "454d370c8d9fc323a41450f8d513eafeb5b0697390c1e505a0d4ddc71f566607"
        ),
        (False, False),
    ),
    "commitment-written-otherwise-and-hashed-so": (
        "84b698d39be126ff55fe45079e6c8bf64a0d7db6994560b4e96b7021eb39c1a1",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        (
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
            "084d5b99c2a9463d9c8bd5026916996984eeec87ddf1d3be329006ace1b37b09"
        ),
        (False, False),
    ),
}


def accepts(verify: Verify, public_key: bytes, sig: bytes, message: bytes) -> bool:
    try:
        verify(public_key, sig, message)
    except InvalidInput:
        return False
    return True


@pytest.mark.parametrize(("public_key", "message", "sig"), RFC_8032)
def test_the_rfcs_signatures_verify_and_those_over_something_else_do_not(
    public_key: str, message: str, sig: str
) -> None:
    key, said, signed = (bytes.fromhex(text) for text in (public_key, message, sig))
    require_verified(key, signed, said)
    with pytest.raises(InvalidInput, match="bad-signature: .*does not verify"):
        require_verified(key, signed, said + b"\0")


@pytest.mark.parametrize("case", EDGES.values(), ids=EDGES.keys())
def test_where_verifiers_disagree_the_server_takes_nothing_that_a_client_refuses(
    case: tuple[str, str, str, tuple[bool, bool]],
) -> None:
    message, public_key, sig = (bytes.fromhex(text) for text in case[:3])
    taken = tuple(accepts(verify, public_key, sig, message) for verify in (require_verified, require_ed25519))
    assert taken == case[3]


@pytest.mark.parametrize(
    ("public_key", "sig"),
    [(PUBLIC, bytes(63)), (PUBLIC, bytes(65)), (PUBLIC, b""), (PUBLIC[:-1], bytes(64)), (b"", bytes(64))],
)
def test_keys_and_signatures_of_another_length_are_refused(public_key: bytes, sig: bytes) -> None:
    with pytest.raises(InvalidInput, match="bad-signature: .*does not verify"):
        require_verified(public_key, sig, b"")


@given(message=st.binary(max_size=300), data=st.data())
def test_of_a_changed_signature_or_key_the_server_takes_nothing_that_a_client_refuses(
    message: bytes, data: st.DataObject
) -> None:
    sig = KEY.sign(message)
    require_verified(PUBLIC, sig, message)
    whole = bytearray(PUBLIC + sig)
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3)):
        whole[place] = data.draw(st.integers(0, 255))
    changed = (bytes(whole[:32]), bytes(whole[32:]), message)
    if accepts(require_verified, *changed):
        require_ed25519(*changed)


def test_an_agents_envelope_is_its_own_or_is_refused() -> None:
    envelope = sign_envelope(KEY, RESULT, b"{}")
    require_signed_by(envelope, PUBLIC, agent_id(PUBLIC))
    with pytest.raises(InvalidInput, match="bad-signature: signed by another agent"):
        require_signed_by(envelope, PUBLIC, "0" * 32)
    forged = envelope._replace(signatures=(Signature(agent_id(PUBLIC), bytes(64)),))
    with pytest.raises(InvalidInput, match="bad-signature: .*does not verify"):
        require_signed_by(forged, PUBLIC, agent_id(PUBLIC))
