"""The machine's own log: what it tells, that it holds nothing up, that it is bounded and can be checked."""

import errno
import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.runtime import audit as audit_module
from agent.runtime.audit import AuditLog
from agent.runtime.history import Narrator, check_history, read_history
from agent.runtime.journal import JournalEntry, Tombstone
from protocol.audit import Chain, Entry, Head, compare_heads
from protocol.envelope import ACTION, decode_envelope
from protocol.keyring import Keyring
from protocol.openpgp import parse_certificate
from tests.support.endpoint import sign_action, utc_now
from tests.support.gpg import Investigator


class Desk:
    """A state directory with its log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = utc_now()
        self.log = self.open()

    def open(self, **changes: Any) -> AuditLog:
        return AuditLog(self.directory, clock=lambda: self.now, **changes)

    def entries(self) -> list[Entry]:
        """Return the log, checked."""
        chain = Chain()
        entries = [chain.add(line) for line in read_history(self.directory)]
        chain.require_complete()
        return entries

    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.entries()]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    tmp_path.chmod(0o700)
    desk = Desk(tmp_path)
    yield desk
    desk.log.close()


def make_entry(body: bytes, *signers: Investigator) -> JournalEntry:
    """Return what the journal holds of a signed action."""
    envelope = decode_envelope(body, ACTION)
    action = json.loads(envelope.payload)
    return JournalEntry(
        digest=envelope.digest,
        occurrence="",
        command_id="c" * 32,
        action_id=action["id"],
        name=action["name"],
        signers=tuple(signer.fingerprint for signer in signers),
        modules=("agentinfo",),
        expireafter=1,
    )


def notice(desk: Desk, seq: int, digit: str = "a") -> None:
    """Tell the log of a head."""
    desk.log.noticed(Head(seq, digit * 64), server="mig", key_id="0" * 32, time="2026-11-20T12:00:00Z")


def keyrings(*investigators: Investigator) -> list[Keyring]:
    return [Keyring(parse_certificate(investigator.public_key) for investigator in investigators)]


def ask(desk: Desk, *signers: Investigator, **changes: Any) -> JournalEntry:
    """Tell the log that a signed action was let in and answered."""
    body = sign_action(*signers, **changes)
    entry = make_entry(body, *signers)
    desk.log.asked(entry, body)
    desk.log.answered(entry, "done", "", b"{}")
    return entry


def test_what_was_asked_by_whom_and_how_it_ended_is_told_in_plain_language(
    desk: Desk, ada: Investigator
) -> None:
    desk.log.started("1.0", "b00")
    entry = ask(desk, ada)
    desk.log.refused(sign_action(ada), "d" * 64, entry.action_id, 7, "not-targeted")
    desk.log.cancelled(Tombstone(entry.digest, entry.action_id, entry.signers, 1, manages=False))
    desk.log.trusted(3, "e" * 64)
    desk.log.trust_expired(3)
    notice(desk, 7)
    desk.log.settle(5)
    narrator = Narrator(keyrings(ada))
    said = [narrator.tell(line).partition("UTC  ")[2] for line in read_history(desk.directory)]
    who = narrator.name(ada.fingerprint)
    assert "Ada" in who
    assert said == [
        "the agent started, version 1.0 (build b00)",
        (
            f"{who} asked \"What are you?\" with agentinfo, of all machines where os = 'linux' "
            f"(action {entry.action_id})"
        ),
        'answered "What are you?": it ran, and the answer was sent',
        (
            f'refused "What are you?" (action {entry.action_id}) at step 7: '
            "the signed target does not match this endpoint; nothing of it was run"
        ),
        f'{who} cancelled "What are you?"',
        "trust bundle 3 is in force: it says whom this machine obeys",
        "trust bundle 3 has expired: nobody is obeyed until a newer bundle comes",
        "ignored 5 messages that nobody trusted here had signed",
        "the server mig said that its own log has 7 entries",
    ]


def test_the_log_names_neither_parameters_nor_answers(desk: Desk, ada: Investigator) -> None:
    operations = [{"module": "file", "parameters": {"searches": {"s": {"paths": ["/secret-place"]}}}}]
    ask(desk, ada, operations=operations)
    assert b"secret-place" not in (desk.directory / "audit.log").read_bytes()


def test_a_log_goes_on_where_it_was(desk: Desk, ada: Investigator) -> None:
    ask(desk, ada)
    desk.log.close()
    desk.log = desk.open()
    ask(desk, ada)
    assert desk.kinds() == ["asked", "answered"] * 2
    assert desk.log.head.seq == 4


def test_what_a_crash_left_half_written_is_cut_off(desk: Desk, ada: Investigator) -> None:
    ask(desk, ada)
    desk.log.close()
    with (desk.directory / "audit.log").open("ab") as file:
        file.write(b'{"seq":3,"time"')
    desk.log = desk.open()
    ask(desk, ada)
    assert desk.kinds() == ["asked", "answered"] * 2


def test_a_log_that_does_not_check_is_put_aside_and_answers_go_on(desk: Desk, ada: Investigator) -> None:
    ask(desk, ada)
    desk.log.close()
    path = desk.directory / "audit.log"
    path.write_bytes(path.read_bytes().replace(b"done", b"none"))
    with path.open("ab") as file:
        file.write(b"{}\n")
    damaged = path.read_bytes()
    desk.log = desk.open()
    ask(desk, ada)
    assert desk.kinds() == ["asked", "answered"]
    assert (desk.directory / "audit.log.broken").read_bytes() == damaged


def test_a_full_disk_stops_nothing_and_is_told_afterwards(
    desk: Desk, ada: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.log.started("1", "b")

    def full(_fd: int, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(audit_module, "_write_all", full)
        ask(desk, ada)
    desk.log.trusted(1, "e" * 64)
    desk.log.trusted(2, "e" * 64)
    assert [(entry.kind, entry.what.get("lost_before")) for entry in desk.entries()] == [
        ("started", None),
        ("trust", 2),
        ("trust", None),
    ]
    *_, told, _ = (Narrator([]).tell(line) for line in read_history(desk.directory))
    assert told.endswith("(2 entries before this one could not be written)")


def test_a_log_that_grew_too_long_loses_its_beginning_behind_a_checkpoint(desk: Desk) -> None:
    desk.log.close()
    desk.log = desk.open(max_bytes=20_000)
    for count in range(300):
        desk.log.trusted(count, "e" * 64)
    assert (desk.directory / "audit.log").stat().st_size < 22_000
    entries = desk.entries()
    assert entries[0].seq > 100
    assert entries[-1].what["version"] == 299
    assert "checkpoint" in desk.kinds()
    desk.log.close()
    desk.log = desk.open()
    assert desk.log.head.seq == entries[-1].seq


def test_heads_of_the_server_are_chained_once_per_heartbeat_and_survive_a_restart(desk: Desk) -> None:
    for seq in range(1, 100):
        notice(desk, seq)
    desk.log.settle(0)
    desk.log.settle(0)
    notice(desk, 99)
    desk.log.settle(0)
    assert desk.kinds() == ["notice"]
    notice(desk, 100)
    desk.log.settle(0)
    desk.log.close()
    desk.log = desk.open()
    assert desk.log.server_heads == [Head(99, "a" * 64), Head(100, "a" * 64)]


def test_what_the_log_repeats_of_itself_is_the_same_after_a_restart(desk: Desk) -> None:
    for version in range(300):
        desk.log.trusted(version, "e" * 64)
    heads = desk.log.heads
    assert heads[-1] == desk.log.head
    assert {head.seq for head in heads} >= {300, 299, 298, 296, 288, 256}
    desk.log.close()
    desk.log = desk.open()
    assert desk.log.heads == heads


def test_a_log_that_was_put_aside_shows_to_who_has_seen_its_head(desk: Desk) -> None:
    for version in range(5):
        desk.log.trusted(version, "e" * 64)
    before = desk.log.heads
    desk.log.close()
    path = desk.directory / "audit.log"
    path.write_bytes(path.read_bytes().replace(b"trust", b"tryst"))
    desk.log = desk.open()
    assert desk.log.heads == []
    desk.log.started("1", "b")
    assert compare_heads(before, desk.log.heads) != ""


def test_a_server_whose_log_goes_back_is_said_to_show_another_one(desk: Desk) -> None:
    for seq, digit in ((9, "a"), (4, "b")):
        notice(desk, seq, digit)
        desk.log.settle(0)
    narrator = Narrator([])
    *_, said = (narrator.tell(line) for line in read_history(desk.directory))
    assert said.endswith("its own log has 4 entries, but 9 were seen before: it is not the same log")
    assert Head(9, "a" * 64) in desk.log.server_heads


def test_a_flood_of_refusals_is_counted_not_listed(desk: Desk, ada: Investigator) -> None:
    body = sign_action(ada)
    for _ in range(500):
        desk.log.refused(body, "d" * 64, "018f0000-0000-7000-8000-000000000000", 7, "not-targeted")
    desk.now += timedelta(minutes=1)
    desk.log.refused(body, "d" * 64, "018f0000-0000-7000-8000-000000000000", 7, "not-targeted")
    told = desk.entries()
    assert len(told) == 11
    assert told[-1].what["left_out"] == 490


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(
    desk: Desk, ada: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "MAX_ASKED", 2)
    for _ in range(4):
        ask(desk, ada)
    newest = {entry.what["envelope"] for entry in desk.entries()[-4:] if entry.kind == "asked"}
    assert {path.name for path in (desk.directory / "asked").iterdir()} == newest
    checked = check_history(desk.directory, keyrings(ada))
    assert (len(checked.wrong), len(checked.unknown), checked.signed) == (0, 2, 2)
    assert "what was signed is no longer kept" in checked.unknown[0]


def test_the_owner_can_check_who_signed_what_was_asked(
    desk: Desk, ada: Investigator, bob: Investigator
) -> None:
    ask(desk, ada, bob)
    checked = check_history(desk.directory, keyrings(ada, bob))
    assert (checked.wrong, checked.unknown, checked.entries, checked.signed) == ([], [], 2, 1)
    [problem] = check_history(desk.directory, keyrings(ada)).unknown
    assert f"the key of {bob.fingerprint} is not here any more" in problem


def test_a_log_that_names_somebody_who_did_not_sign_is_found_out(
    desk: Desk, ada: Investigator, bob: Investigator
) -> None:
    body = sign_action(ada)
    desk.log.asked(make_entry(body, bob), body)
    [problem] = check_history(desk.directory, keyrings(ada, bob)).wrong
    assert f"{bob.fingerprint} has not signed what is kept" in problem


def test_an_envelope_that_was_exchanged_is_found_out(desk: Desk, ada: Investigator) -> None:
    ask(desk, ada)
    [kept] = (desk.directory / "asked").iterdir()
    kept.write_bytes(sign_action(ada))
    [problem] = check_history(desk.directory, keyrings(ada)).wrong
    assert "the kept envelope is not the one that was let in" in problem


def test_signatures_are_judged_as_of_the_time_at_which_it_was_asked(desk: Desk, ada: Investigator) -> None:
    body = sign_action(ada)
    desk.now = datetime.fromisoformat("2001-01-01T00:00:00+00:00")
    desk.log.asked(make_entry(body, ada), body)
    [problem] = check_history(desk.directory, keyrings(ada)).wrong
    assert f"{ada.fingerprint} has not signed what is kept" in problem


def test_a_state_directory_that_cannot_be_written_stops_nothing(tmp_path: Path, ada: Investigator) -> None:
    (tmp_path / "asked").write_text("in the way")
    (tmp_path / "audit.log").mkdir()
    log = AuditLog(tmp_path, clock=utc_now)
    body = sign_action(ada)
    log.asked(make_entry(body, ada), body)
    log.settle(1)
    assert log.head.seq == 0
    log.close()
