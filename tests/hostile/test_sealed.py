"""The opponent wants to read or to falsify answers that are sealed. It owns the platform, and an endpoint.

Promise: a sealed answer is read by its readers only, and believed only where the agent's signature inside and
outside agree with each other and with the question. What is exchanged, replayed, stripped, cut or encrypted
anew is not believed; and nobody can take the seal off a question.
"""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from protocol.envelope import RESULT, SEALED_RESULT, Envelope, decode_envelope, encode_envelope
from protocol.names import result_key
from protocol.openpgp import parse_certificate
from protocol.openpgp_encryption import encrypt, require_recipient
from protocol.sealing import pad
from tests.hostile.captured import BOTH, Captured, OwnEndpoint
from tests.hostile.opponent import edited, opened
from tests.support.broker import AgentKey
from tests.support.endpoint import sign_action
from tests.support.gpg import Investigator

FOUND = {"found": True, "status": "ok", "records": [{"id": "believe me"}]}


def encrypted(ada: Investigator, text: bytes) -> bytes:
    """Encrypt to Ada: her public key is everybody's."""
    return encrypt(text, [require_recipient(parse_certificate(ada.public_key), datetime.now(UTC))])


def require_disbelieved(done: Any, *hidden: str) -> None:
    """Fail unless the investigator saw that an answer is not believed, and nothing of what it says."""
    assert done.returncode == 4, done.stdout + done.stderr
    assert "not believed" in done.stdout
    assert not [text for text in ("believe me", *hidden) if text in done.stdout + done.stderr]


@pytest.fixture(scope="module")
def sealed_action(captured: Captured) -> str:
    """A question that both agents have answered under seal, and whose answers are believed."""
    return captured.ask("--seal")


@pytest.fixture
def restored(captured: Captured, sealed_action: str) -> Iterator[str]:
    """The same question; after the story its true answers stand again."""
    before = captured.execute("SELECT envelope, seq FROM results WHERE action_id = ?", sealed_action)
    yield sealed_action
    for envelope, seq in before:
        captured.execute("UPDATE results SET envelope = ? WHERE seq = ?", envelope, seq)


def test_sealed_answers_that_are_exchanged_are_not_believed(captured: Captured, restored: str) -> None:
    theirs = captured.answer(restored, captured.agent("two"))
    require_disbelieved(captured.show_instead(restored, captured.agent("one"), theirs))


def test_a_sealed_answer_to_an_earlier_question_is_not_believed(captured: Captured, restored: str) -> None:
    one = captured.agent("one")
    earlier = captured.answer(captured.ask("--seal"), one)
    require_disbelieved(captured.show_instead(restored, one, earlier))


def test_an_answer_in_the_clear_does_not_pass_for_a_sealed_one(captured: Captured, restored: str) -> None:
    """The server strips the seal: it has the agent's own answer to the same question, asked without."""
    one = captured.agent("one")
    plain = captured.answer(captured.ask(), one)
    require_disbelieved(captured.show_instead(restored, one, plain))


Change = Callable[[dict[str, Any], Investigator], None]
CHANGES: dict[str, Change] = {
    "cut": lambda outer, _ada: outer.update(sealed=outer["sealed"][:1000]),
    "emptied": lambda outer, _ada: outer.update(sealed=""),
    "encrypted anew": lambda outer, ada: outer.update(
        sealed=base64.b64encode(encrypted(ada, pad(b"{}"))).decode()
    ),
    "said to have failed": lambda outer, _ada: outer.update(status="failed"),
    "said to be for others": lambda outer, _ada: outer.update(sealed_to=["F" * 40]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_sealed_answer_that_was_changed_on_the_way_is_not_believed(
    captured: Captured, restored: str, ada: Investigator, change: str
) -> None:
    one = captured.agent("one")
    envelope = decode_envelope(captured.answer(restored, one), SEALED_RESULT, max_payload_bytes=4 << 20)
    outer = json.loads(envelope.payload)
    CHANGES[change](outer, ada)
    payload = json.dumps(outer).encode()
    kept = encode_envelope(envelope._replace(payload=payload))
    require_disbelieved(captured.show_instead(restored, one, kept))


def test_a_sealed_answer_that_the_platform_made_itself_is_not_believed(
    captured: Captured, restored: str, ada: Investigator
) -> None:
    """Everybody can encrypt to Ada; nobody can sign for an agent."""
    one = captured.agent("one")
    envelope = decode_envelope(captured.answer(restored, one), SEALED_RESULT, max_payload_bytes=4 << 20)
    outer = json.loads(envelope.payload)
    liar = AgentKey()
    CHANGES["encrypted anew"](outer, ada)
    made = liar.sign(SEALED_RESULT, json.dumps(outer).encode())
    require_disbelieved(captured.show_instead(restored, one, made))


def test_an_action_from_which_the_platform_took_the_seal_runs_nowhere(
    captured: Captured, ada: Investigator
) -> None:
    body = sign_action(ada, name="sealed", target=BOTH, sealed_to=[ada.fingerprint])
    for name in ("one", "two"):
        captured.publish(captured.agent(name), edited(body, name="unsealed", sealed_to=[]))
    captured.require_unharmed()
    assert "unsealed" not in captured.ran("one") + captured.ran("two")


def test_nobody_reads_along_by_adding_themselves_to_the_readers(
    captured: Captured, ada: Investigator, bob: Investigator
) -> None:
    body = sign_action(ada, name="sealed", target=BOTH, sealed_to=[ada.fingerprint])
    both = edited(body, name="read along", sealed_to=[ada.fingerprint, bob.fingerprint])
    captured.publish(captured.agent("one"), both)
    captured.require_unharmed()
    assert "read along" not in captured.ran("one")


@pytest.fixture(scope="module")
def endpoint(captured: Captured) -> Iterator[OwnEndpoint]:
    """An endpoint that is the opponent's."""
    endpoint = OwnEndpoint(captured, "theirs")
    yield endpoint
    endpoint.close()


Lie = Callable[[dict[str, Any], AgentKey], bytes]
LIES: dict[str, Lie] = {
    "inside failed, outside done": lambda inner, key: key.sign(
        RESULT, json.dumps({**inner, "status": "failed", "results": []}).encode()
    ),
    "inside answers another question": lambda inner, key: key.sign(
        RESULT, json.dumps({**inner, "action_sha256": "1" * 64}).encode()
    ),
    "inside signed by another": lambda inner, _key: AgentKey().sign(RESULT, json.dumps(inner).encode()),
    "inside signed by nobody": lambda inner, _key: encode_envelope(
        Envelope(RESULT, json.dumps(inner).encode(), ())
    ),
    "no answer inside": lambda _inner, _key: b"believe me",
}


@pytest.mark.parametrize("lie", LIES)
def test_an_endpoint_whose_inside_and_outside_disagree_is_not_believed(
    captured: Captured, endpoint: OwnEndpoint, ada: Investigator, lie: str
) -> None:
    body = sign_action(ada, name=lie, target=f"id = '{endpoint.id}'", sealed_to=[ada.fingerprint])
    action = captured.submit(body)
    asked = endpoint.take_command()
    assert asked.digest == opened(body).digest
    times = {"started": "2026-12-01T00:00:00Z", "finished": "2026-12-01T00:00:01Z"}
    outer = {
        "action": action,
        "action_sha256": asked.digest,
        "occurrence": "",
        "agent": endpoint.id,
        "status": "done",
    }
    inside = LIES[lie]({**outer, **times, "results": [FOUND]}, endpoint.key)
    sealed = base64.b64encode(encrypted(ada, pad(inside))).decode()
    members = {**outer, "sealed_to": [ada.fingerprint], "sealed": sealed}
    endpoint.say(SEALED_RESULT, result_key(endpoint.id), json.dumps(members).encode())
    captured.wait_answered(action)
    require_disbelieved(captured.mig("results", action, check=False))
