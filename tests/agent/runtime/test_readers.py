"""Sealed answers on the endpoint: who may read them, and that nothing leaves the agent in the clear."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.config import AgentLimits, Baked
from agent.runtime import frames
from agent.runtime.gate import Gate, Refusal, make_endpoint
from agent.runtime.readers import Sealing, seal
from agent.runtime.supervisor import Answer
from agent.runtime.trust import make_trust
from protocol.envelope import RESULT, SEALED_RESULT, Envelope, Signature, decode_envelope, encode_envelope
from protocol.errors import InvalidInput
from protocol.identity import agent_id, require_agent_signature, sign_envelope
from protocol.result import MAX_RESULT_BYTES, decode_result, decode_sealed_result
from protocol.sealing import MAX_SEALED_BYTES, SIZE_CLASSES_BYTES, pad
from tests.support.endpoint import AGENT_ID, FACTS, make_baked, sign_action, utc_now
from tests.support.gpg import Investigator, temporary_investigator
from tests.support.resident import Agent, in_trouble

STRANGER = "F" * 40
KEY = Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def carol() -> Iterator[Investigator]:
    """An investigator with a key to seal to, besides the one that signs."""
    with temporary_investigator("Carol Investigator") as investigator:
        investigator.add_encryption_key()
        yield investigator


@pytest.fixture(scope="module")
def dave() -> Iterator[Investigator]:
    """Another, with RSA, whose encryption key expires in two days."""
    with temporary_investigator("Dave Investigator", "rsa3072") as investigator:
        investigator.add_encryption_key("rsa2048", expires="2d")
        yield investigator


def gate_of(baked: Baked, body: bytes, after: timedelta = timedelta()) -> Gate:
    config = baked.config
    sealing = Sealing(config.seal_to, config.require_sealed)
    trust = make_trust(baked.keys, baked.acl, config.max_validity_s, config.limits, sealing)
    return Gate(body, trust=trust, endpoint=make_endpoint(FACTS), now=utc_now() + after)


def recipients(gate: Gate) -> list[str]:
    return [recipient.fingerprint for recipient in gate.admit().recipients]


# -- the gate --------------------------------------------------------------------------------------------


def test_an_action_that_names_no_reader_is_not_sealed(carol: Investigator) -> None:
    assert recipients(gate_of(make_baked([carol]), sign_action(carol))) == []


def test_everyone_whom_the_action_or_the_build_names_is_a_recipient_once(
    carol: Investigator, dave: Investigator
) -> None:
    baked = make_baked([carol, dave], seal_to=[dave.fingerprint])
    assert recipients(gate_of(baked, sign_action(carol))) == [dave.fingerprint]
    named = sign_action(carol, sealed_to=[carol.fingerprint, dave.fingerprint])
    assert recipients(gate_of(baked, named)) == [carol.fingerprint, dave.fingerprint]


def require_refused(gate: Gate, reason: str) -> None:
    with pytest.raises(Refusal, match=reason) as caught:
        gate.admit()
    assert (caught.value.step, caught.value.code) == (9, "cannot-seal")


def test_a_reader_whom_the_agent_does_not_trust_refuses_the_action(carol: Investigator) -> None:
    body = sign_action(carol, sealed_to=[carol.fingerprint, STRANGER])
    require_refused(gate_of(make_baked([carol]), body), f"{STRANGER} is not a trusted")


def test_a_reader_who_can_only_sign_refuses_the_action(ada: Investigator) -> None:
    body = sign_action(ada, sealed_to=[ada.fingerprint])
    require_refused(gate_of(make_baked([ada]), body), f"{ada.fingerprint}: .*not for encryption")


@pytest.mark.slow
def test_a_reader_whose_key_has_expired_refuses_the_action(carol: Investigator, dave: Investigator) -> None:
    window: dict[str, Any] = {"expireafter": (utc_now() + timedelta(days=4)).isoformat()}
    body = sign_action(carol, sealed_to=[dave.fingerprint], **window)
    baked = make_baked([carol, dave])
    assert recipients(gate_of(baked, body)) == [dave.fingerprint]
    require_refused(gate_of(baked, body, timedelta(days=3)), "the subkey has expired")


def test_a_reader_who_was_revoked_refuses_the_action(carol: Investigator) -> None:
    with temporary_investigator("Eve Investigator") as eve:
        eve.add_encryption_key()
        revocation = (eve.home / "openpgp-revocs.d" / f"{eve.fingerprint}.rev").read_bytes()
        eve.gpg("--import", data=revocation.replace(b":-----BEGIN", b"-----BEGIN"))
        eve.public_key = eve.gpg("--export", eve.fingerprint)
        body = sign_action(carol, sealed_to=[eve.fingerprint])
        require_refused(gate_of(make_baked([carol, eve]), body), "the primary key is revoked")


def test_a_build_that_demands_sealing_refuses_an_action_without_readers(carol: Investigator) -> None:
    baked = make_baked([carol], require_sealed=True, seal_to=[carol.fingerprint])
    require_refused(gate_of(baked, sign_action(carol)), "only actions with sealed_to")
    assert recipients(gate_of(baked, sign_action(carol, sealed_to=[carol.fingerprint])))


@pytest.mark.parametrize(
    "sealed_to",
    [["0" * 39], ["a" * 40], [STRANGER, STRANGER], [f"{number:040X}" for number in range(17)], ""],
)
def test_a_list_of_readers_of_another_shape_is_no_action(sealed_to: Any, carol: Investigator) -> None:
    with pytest.raises(Refusal, match="bad-action"):
        gate_of(make_baked([carol]), sign_action(carol, sealed_to=sealed_to)).admit()


def test_a_refusal_of_a_sealed_action_tells_the_platform_no_more_than_its_code(carol: Investigator) -> None:
    secret: dict[str, Any] = {"operations": [{"module": "file", "parameters": {"canary": 1}}]}
    for named, is_told in (([], True), ([carol.fingerprint], False)):
        gate = gate_of(make_baked([carol]), sign_action(carol, sealed_to=named, **secret))
        with pytest.raises(Refusal, match="canary") as caught:
            gate.admit()
        assert ("canary" in gate.tell(caught.value)) is is_told


# -- padding and sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZE_CLASSES_BYTES)
def test_an_envelope_is_padded_to_the_next_class_and_reads_the_same(size: int) -> None:
    for length in (size - 1, size):
        assert len(pad(b"{" + b" " * (length - 2) + b"}")) == size
    with pytest.raises(InvalidInput, match="can be sealed"):
        pad(bytes(SIZE_CLASSES_BYTES[-1] + 1))


def test_a_padded_envelope_is_decoded_as_the_one_that_was_signed() -> None:
    envelope = encode_envelope(sign_envelope(KEY, RESULT, b"{}"))
    assert decode_envelope(pad(envelope), RESULT) == decode_envelope(envelope, RESULT)


def test_the_largest_answer_fits_sealed_to_as_many_as_there_may_be(carol: Investigator) -> None:
    envelope = encode_envelope(sign_envelope(KEY, RESULT, bytes(MAX_RESULT_BYTES)))
    admission = gate_of(make_baked([carol]), sign_action(carol, sealed_to=[carol.fingerprint])).admit()
    sealed = seal(envelope, admission.recipients * 32)
    assert len(sealed) <= MAX_SEALED_BYTES
    assert len(sealed) <= frames.MAX_BODY_BYTES[frames.SEALED]


# -- resident and child ----------------------------------------------------------------------------------


class SealingAgent(Agent):
    """A resident that signs with a key, so that its answers can be sealed."""

    def __init__(self, directory: Path, baked: Baked) -> None:
        super().__init__(directory, baked)
        self.supervisor._sign_result = self._sign

    def _sign(self, payload: bytes) -> bytes:
        return encode_envelope(sign_envelope(KEY, RESULT, payload))

    def only_answer(self, body: bytes) -> Answer:
        """Submit one delivery and return the one answer, whatever its kind."""
        before = len(self.answers)
        self.submit(body)
        self.run_until_idle()
        (answer,) = self.answers[before:]
        return answer


@pytest.fixture
def agent(tmp_path: Path, carol: Investigator, dave: Investigator) -> Iterator[SealingAgent]:
    tmp_path.chmod(0o700)
    agent = SealingAgent(tmp_path, make_baked([carol, dave], warm_child=False))
    yield agent
    agent.close()


@pytest.mark.system
def test_a_sealed_answer_holds_the_signed_answer_and_shows_ids_and_status_only(
    agent: SealingAgent, carol: Investigator, dave: Investigator
) -> None:
    readers = [carol.fingerprint, dave.fingerprint]
    body = sign_action(carol, sealed_to=readers)
    answer = agent.only_answer(body)
    assert answer.kind == SEALED_RESULT
    outer = decode_sealed_result(answer.payload)
    assert set(json.loads(answer.payload)) == {
        *("action", "action_sha256", "occurrence", "agent", "status", "sealed_to", "sealed")
    }
    assert list(outer.sealed_to) == readers
    for reader in (carol, dave):
        text = reader.gpg("--decrypt", data=outer.sealed)
        assert len(text) == SIZE_CLASSES_BYTES[0]
        envelope = decode_envelope(text, RESULT)
        require_agent_signature(
            envelope,
            KEY.public_key().public_bytes_raw(),
            agent_id(KEY.public_key().public_bytes_raw()),
        )
        result = decode_result(envelope.payload)
        outer.require_holds(result)
        assert result.agent == AGENT_ID
        assert result.results[0].records[0]["name"] == FACTS["name"]
    assert agent.journal.state_of(answer.digest, "") == "answered"


@pytest.mark.system
def test_an_action_without_readers_is_answered_as_ever(agent: SealingAgent, carol: Investigator) -> None:
    assert agent.only_answer(sign_action(carol)).kind == RESULT


@pytest.mark.system
def test_a_refusal_says_why_in_the_clear_and_repeats_no_parameters(
    agent: SealingAgent, carol: Investigator
) -> None:
    operations = [{"module": "file", "parameters": {"canary": 1}}]
    answer = agent.only_answer(sign_action(carol, sealed_to=[carol.fingerprint], operations=operations))
    result = decode_result(answer.payload)
    assert result.problem is not None
    assert (answer.kind, result.problem.code) == (RESULT, "bad-parameters")
    assert b"canary" not in answer.payload


@pytest.mark.system
@pytest.mark.usefixtures("trouble")
def test_a_child_that_ends_while_it_runs_leaves_no_answer_to_be_sealed(
    agent: SealingAgent, carol: Investigator
) -> None:
    body = in_trouble(carol, "die")
    payload = json.loads(decode_envelope(body, "application/vnd.mig.action+json").payload)
    payload["sealed_to"] = [carol.fingerprint]
    answer = agent.only_answer(sign_action(carol, payload=json.dumps(payload).encode()))
    result = decode_result(answer.payload)
    assert (result.status, result.results) == ("failed", ())


@pytest.mark.system
@pytest.mark.usefixtures("trouble")
def test_of_what_is_sealed_no_progress_is_told(tmp_path: Path, carol: Investigator) -> None:
    tmp_path.chmod(0o700)
    agent = SealingAgent(tmp_path, make_baked([carol], warm_child=False, limits=AgentLimits(wall_s=2)))
    operations = [{"module": "trouble", "parameters": {"how": "count", "path": ""}}]
    answer = agent.only_answer(sign_action(carol, sealed_to=[carol.fingerprint], operations=operations))
    assert answer.kind == SEALED_RESULT
    assert agent.progress == []
    agent.close()


def test_a_sealed_result_must_agree_with_what_it_holds(carol: Investigator) -> None:
    outer = {
        "action": "018f0000-0000-7000-8000-000000000000",
        "action_sha256": "0" * 64,
        "occurrence": "",
        "agent": AGENT_ID,
        "status": "done",
    }
    times = {"started": utc_now().isoformat(), "finished": utc_now().isoformat()}
    sealed = decode_sealed_result(
        json.dumps({**outer, "sealed_to": [carol.fingerprint], "sealed": "AAAA"}).encode()
    )
    sealed.require_holds(decode_result(json.dumps({**outer, **times}).encode()))
    changes = {
        "action": "018f0000-0000-7000-8000-000000000001",
        "action_sha256": "1" * 64,
        "occurrence": "1",
        "agent": "1" * 32,
        "status": "failed",
    }
    for name, value in changes.items():
        with pytest.raises(InvalidInput, match=f"another {name} than outside"):
            sealed.require_holds(decode_result(json.dumps({**outer, **times, name: value}).encode()))


def test_signatures_are_not_taken_for_those_of_another_type() -> None:
    envelope = sign_envelope(KEY, SEALED_RESULT, b"{}")
    moved = Envelope(RESULT, b"{}", (Signature(envelope.signatures[0].keyid, envelope.signatures[0].sig),))
    public_key = KEY.public_key().public_bytes_raw()
    with pytest.raises(InvalidInput, match="does not verify"):
        require_agent_signature(moved, public_key, agent_id(public_key))
