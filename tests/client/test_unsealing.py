"""Sealed answers at the investigator's: what gpg opens is believed only where inside and outside agree."""

import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from client.answers import Question, UnreadableAnswer, verify_answer
from client.gpg import Gpg
from client.options import Choices
from client.signing import Signer
from client.tally import Tally
from client.unsealing import Unsealer, name_readers, require_openable
from protocol.action import Action, encode_action
from protocol.documents import Command
from protocol.envelope import ACTION, HEARTBEAT, RESULT, SEALED_RESULT, Envelope, encode_envelope
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.identity import sign_envelope
from protocol.openpgp import parse_certificate
from protocol.openpgp_encryption import encrypt, require_recipient
from protocol.result import OperationResult, Result, SealedResult
from protocol.sealing import SIZE_CLASSES_BYTES, pad
from tests.client.opponent import SimulatedAgent
from tests.client.test_answers import ACTION_ASKED, OTHER, typed
from tests.support.gpg import Investigator, temporary_investigator

FOUND = OperationResult(found=True, status="ok", records=({"id": "canary"},))
WEB1, WEB2 = SimulatedAgent("web1", FOUND), SimulatedAgent("web2", FOUND)
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def carol() -> Iterator[Investigator]:
    """An investigator to whom answers are sealed."""
    with temporary_investigator("Carol Investigator") as investigator:
        investigator.add_encryption_key()
        yield investigator


@pytest.fixture(scope="module")
def asked(carol: Investigator) -> Action:
    return msgspec.structs.replace(ACTION_ASKED, sealed_to=(carol.fingerprint,))


def opener(person: Investigator) -> Unsealer:
    return Unsealer(Gpg(home=str(person.home), is_interactive=False), person.fingerprint)


def question_of(action: Action) -> Question:
    return Question.of(action, Envelope(ACTION, encode_action(action), ()), frozenset({WEB1.id, WEB2.id}))


def message_to(person: Investigator, text: bytes) -> bytes:
    return encrypt(text, [require_recipient(parse_certificate(person.public_key), NOW)])


def outer_of(result: Result, sealed: bytes, *readers: str, **changes: Any) -> SealedResult:
    members: dict[str, Any] = {
        "action": result.action,
        "action_sha256": result.action_sha256,
        "occurrence": result.occurrence,
        "agent": result.agent,
        "status": "done",
        "sealed_to": readers,
        "sealed": sealed,
    }
    return SealedResult(**{**members, **changes})


class Sealing:
    """Makes sealed answers to one action, honest or not."""

    def __init__(self, action: Action, reader: Investigator) -> None:
        self.envelope = Envelope(ACTION, encode_action(action), ())
        self.reader = reader

    def inner(self, by: SimulatedAgent = WEB1, **changes: Any) -> bytes:
        result = msgspec.structs.replace(by.result(self.envelope), **changes)
        return pad(encode_envelope(by.sign(result)))

    def message(self, text: bytes) -> bytes:
        return message_to(self.reader, text)

    def item(self, sealed: bytes, *, agent: SimulatedAgent = WEB1, **changes: Any) -> Any:
        outer = outer_of(agent.result(self.envelope), sealed, self.reader.fingerprint, **changes)
        signed = sign_envelope(agent.key, SEALED_RESULT, msgspec.json.encode(outer))
        return typed(agent.item(self.envelope, signed))


def test_a_sealed_answer_is_opened_and_believed(asked: Action, carol: Investigator) -> None:
    sealing = Sealing(asked, carol)
    item = sealing.item(sealing.message(sealing.inner()))
    assert b"canary" not in item.envelope.encode()
    answer = verify_answer(item, question_of(asked), opener(carol))
    assert answer.result.results == (FOUND,)


def test_an_answer_that_the_build_sealed_is_believed_too(carol: Investigator) -> None:
    sealing = Sealing(ACTION_ASKED, carol)
    item = sealing.item(sealing.message(sealing.inner()))
    assert verify_answer(item, question_of(ACTION_ASKED), opener(carol)).result.results == (FOUND,)


Lie = Callable[[Sealing], Any]


def moved(sealing: Sealing) -> Any:
    """The answer to another action, under this one's name."""
    result = WEB1.result(OTHER)
    return sealing.item(sealing.message(encode_envelope(WEB1.sign(result))))


def nested(sealing: Sealing) -> Any:
    inner = sealing.message(sealing.inner())
    return sealing.item(sealing.message(inner))


def damaged(sealing: Sealing) -> Any:
    message = bytearray(sealing.message(sealing.inner()))
    message[-40] ^= 1
    return sealing.item(bytes(message))


HOSTILE: dict[str, Lie] = {
    "another agent's sealed answer": lambda s: s.item(s.message(s.inner(WEB2))),
    "inside speaks for another agent": lambda s: s.item(s.message(s.inner(agent=WEB2.id))),
    "the answer to another action": moved,
    "inside failed, outside done": lambda s: s.item(s.message(s.inner(status="failed"))),
    "inside of another occurrence": lambda s: s.item(s.message(s.inner(occurrence="x"))),
    "inside without results": lambda s: s.item(s.message(s.inner(results=()))),
    "a heartbeat inside": lambda s: s.item(
        s.message(encode_envelope(sign_envelope(WEB1.key, HEARTBEAT, b"{}")))
    ),
    "an unsigned answer inside": lambda s: s.item(
        s.message(encode_envelope(Envelope(RESULT, msgspec.json.encode(WEB1.result(s.envelope)), ())))
    ),
    "no envelope inside": lambda s: s.item(s.message(b"canary")),
    "nothing inside": lambda s: s.item(s.message(b"")),
    "a sealed answer inside": nested,
    "cut short": lambda s: s.item(s.message(s.inner())[:-20]),
    "with something behind": lambda s: s.item(s.message(s.inner()) + b"\xcb\x06b\0\0\0\0\0"),
    "damaged": damaged,
    "no OpenPGP message": lambda s: s.item(b"canary"),
    "not encrypted": lambda s: s.item(b"\xcb\xff\0\0\0\x0cb\0\0\0\0\0canary"),
    "not sealed to all": lambda s: s.item(s.message(s.inner()), sealed_to=("F" * 40,)),
    "outside of another action": lambda s: s.item(s.message(s.inner()), action_sha256="1" * 64),
    "in the clear": lambda s: typed(WEB1.item(s.envelope)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_sealed_answer_that_is_not_in_order_is_hostile(
    name: str, asked: Action, carol: Investigator
) -> None:
    item = HOSTILE[name](Sealing(asked, carol))
    with pytest.raises(InvalidInput, match="web1") as caught:
        verify_answer(item, question_of(asked), opener(carol))
    assert caught.value.code == "hostile-answer"


def test_a_refusal_of_a_sealed_action_comes_in_the_clear(asked: Action, carol: Investigator) -> None:
    sealing = Sealing(asked, carol)
    result = WEB1.result(sealing.envelope)
    problem = {"code": "acl-refused", "step": 9, "detail": "the signers may not run this"}
    refused = {**msgspec.to_builtins(result), "status": "refused", "results": [], "problem": problem}
    signed = sign_envelope(WEB1.key, RESULT, msgspec.json.encode(refused))
    answer = verify_answer(typed(WEB1.item(sealing.envelope, signed)), question_of(asked), opener(carol))
    assert answer.result.problem is not None


def compressed(person: Investigator, text: bytes) -> bytes:
    """Encrypt as an agent never would: compressed."""
    return person.gpg(
        *("--trust-model", "always", "--compress-level", "9", "--bzip2-compress-level", "9"),
        *("--compress-algo", "bzip2", "--recipient", person.fingerprint, "--encrypt"),
        data=text,
    )


@pytest.mark.slow
def test_a_compression_bomb_is_ended_early(asked: Action, carol: Investigator) -> None:
    bomb = compressed(carol, bytes(64 << 20))
    assert len(bomb) < 4096
    sealing = Sealing(asked, carol)
    with pytest.raises(InvalidInput, match="hostile-answer"):
        verify_answer(sealing.item(bomb), question_of(asked), opener(carol))


def test_gpg_is_ended_when_it_writes_more_than_it_may(carol: Investigator) -> None:
    gpg = Gpg(home=str(carol.home), is_interactive=False)
    sealed = message_to(carol, bytes(SIZE_CLASSES_BYTES[2]))
    with pytest.raises(InvalidInput, match="writes more than 1000 bytes"):
        gpg.run("--decrypt", data=sealed, max_output_bytes=1000)


@pytest.mark.slow
def test_gpg_is_ended_when_it_takes_too_long(tmp_path: Path) -> None:
    program = tmp_path / "gpg"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o700)
    with pytest.raises(EnvironmentFailure, match="no answer within 0.2 s"):
        Gpg(program=str(program)).run("--decrypt", data=bytes(1 << 20), timeout_s=0.2)


def test_a_largest_answer_is_opened(asked: Action, carol: Investigator) -> None:
    text = b"x" * SIZE_CLASSES_BYTES[-1]
    assert opener(carol).open(message_to(carol, text)) == text
    with pytest.raises(InvalidInput, match="hostile-answer"):
        opener(carol).open(message_to(carol, text + b"x"))


def test_who_is_not_a_reader_learns_the_status_and_no_more(
    asked: Action, carol: Investigator, ada: Investigator
) -> None:
    sealing = Sealing(asked, carol)
    item = sealing.item(sealing.message(sealing.inner()))
    for stranger in (opener(ada), None):
        with pytest.raises(UnreadableAnswer, match=f"sealed to others: {carol.fingerprint}") as caught:
            verify_answer(item, question_of(asked), stranger)
    tally = Tally(asked.id, ("agentinfo",), ())
    tally.add_unreadable(caught.value)
    assert (caught.value.agent, caught.value.status) == (WEB1.id, "done")


def test_a_reader_whose_secret_key_is_elsewhere_is_told_so(asked: Action, carol: Investigator) -> None:
    sealing = Sealing(asked, carol)
    item = sealing.item(sealing.message(sealing.inner()))
    with temporary_investigator("Eve Investigator") as eve:
        eve.gpg("--import", data=carol.public_key)
        elsewhere = Unsealer(Gpg(home=str(eve.home), is_interactive=False), carol.fingerprint)
        with pytest.raises(UnreadableAnswer, match="secret key is not in"):
            verify_answer(item, question_of(asked), elsewhere)


def test_an_unreadable_answer_counts_as_missing_until_it_is_read() -> None:
    envelope = Envelope(ACTION, encode_action(ACTION_ASKED), ())
    item = typed(WEB1.item(envelope))
    error = EnvironmentFailure("key-missing", "sealed to others: X")
    tally = Tally(ACTION_ASKED.id, ("agentinfo",), [msgspec.convert(WEB1.command(envelope), Command)])
    tally.add_unreadable(UnreadableAnswer(error, item, "done"))
    assert tally.is_complete
    (line,) = tally.missing()
    assert (line.state, line.reason, tally.exit_code) == ("done", "sealed to others: X", 3)


def test_readers_are_the_investigator_and_whom_file_and_command_line_name() -> None:
    own, first, second = "A" * 40, "B" * 40, "C" * 40
    assert name_readers({"sealed_to": [first]}, Choices(), own) == {"sealed_to": [first]}
    assert name_readers({}, Choices(is_sealed=True), own) == {"sealed_to": [own]}
    spelt = " ".join(second[start : start + 4] for start in range(0, 40, 4)).lower()
    choices = Choices(is_sealed=True, sealed_to=(spelt, f"0x{first}"))
    assert name_readers({"sealed_to": [first]}, choices, own) == {"sealed_to": [first, own, second]}
    with pytest.raises(InvalidInput, match="40 hex digits"):
        name_readers({}, Choices(is_sealed=True, sealed_to=("ABCD",)), own)


def test_a_key_that_no_agent_would_seal_to_is_refused_before_anything_is_signed(
    ada: Investigator, carol: Investigator
) -> None:
    def signer(person: Investigator) -> Signer:
        return Signer(fingerprint=person.fingerprint, home=str(person.home), is_interactive=False)

    require_openable(signer(carol), (carol.fingerprint, "F" * 40), NOW)
    with pytest.raises(InvalidInput, match=f"{ada.fingerprint}: .*not for encryption"):
        require_openable(signer(ada), (ada.fingerprint,), NOW)


def test_no_gpg_is_left_behind(carol: Investigator) -> None:
    opener(carol).open(message_to(carol, b"x"))
    children = subprocess.run(
        ["ps", "-o", "comm=", "--ppid", str(os.getpid())], capture_output=True, check=False
    )
    assert b"gpg\n" not in children.stdout
