"""Tests of an agent's end: ordered by what was signed, once, and from any crash on to the same end."""

import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.runtime import service
from agent.runtime.answers import Answer
from agent.runtime.removal import NOTE_FILE, Note, Removal, read_order
from protocol.envelope import ACTION, Envelope, Signature, encode_envelope
from protocol.errors import EnvironmentFailure
from tests.support.endpoint import make_action
from tests.support.resident import entry_for

STATE = ("identity.json", "journal", "alerts.json", "trust-version.json", "status.json")
COMMAND = "0" * 32


def order(*operations: dict[str, Any]) -> bytes:
    """Return an action as the journal holds it; its signatures were checked by the gate."""
    payload = json.dumps(make_action(operations=list(operations))).encode()
    return encode_envelope(Envelope(ACTION, payload, (Signature("A" * 40, b"sig"),)))


def destroy(**parameters: Any) -> dict[str, Any]:
    return {"module": "agentdestroy", "parameters": parameters}


def answer(*operations: dict[str, Any], status: str = "done") -> Answer:
    modules = tuple(one["module"] for one in operations)
    entry = entry_for(order(*operations), modules=modules, command_id=COMMAND)
    return Answer(COMMAND, "d", "", b"{}", is_refusal=False, status=status, entry=entry)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return the state directory of an agent that has lived."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    for name in (*STATE, "audit.log", "lock"):
        (directory / name).write_text("x")
    for name in ("spool", "alerts", "watch/fswatch", "asked"):
        (directory / name).mkdir(parents=True)
        (directory / name / "file").write_text("x")
    return directory


def confirmed(state: Path, *, purge: bool = False) -> Removal:
    """Return the removal of an agent whose answer the broker has."""
    note = Note(COMMAND, purge, is_confirmed=True)
    (state / NOTE_FILE).write_text(json.dumps(note._asdict()))
    return Removal(state, "1")


@pytest.mark.parametrize(
    ("operations", "ordered"),
    [
        ([destroy()], (True, False)),
        ([destroy(version="1", purge=True)], (True, True)),
        ([destroy(version="2")], (False, False)),
        ([destroy(version="2", purge=True), destroy(version="1")], (True, False)),
        ([{"module": "agentinfo", "parameters": {}}], (False, False)),
    ],
)
def test_what_was_signed_says_whether_this_agent_is_meant(
    operations: list[dict[str, Any]], ordered: tuple[bool, bool]
) -> None:
    entry = entry_for(order(*operations), modules=tuple(one["module"] for one in operations))
    note = read_order(entry, "1")
    assert (note is not None, bool(note and note.purge)) == ordered


def test_a_command_whose_child_claims_the_module_orders_nothing_that_was_not_signed() -> None:
    entry = entry_for(order({"module": "agentinfo", "parameters": {}}), modules=("agentdestroy",))
    assert read_order(entry, "1") is None


@pytest.mark.parametrize("status", ["failed", "cancelled", "timed-out", "refused"])
def test_an_order_that_did_not_run_to_its_end_removes_nothing(state: Path, status: str) -> None:
    removal = Removal(state, "1")
    removal.take(answer(destroy(), status=status))
    assert removal.note is None


def test_an_order_counts_once_the_broker_has_its_answer_and_no_other(state: Path) -> None:
    removal = Removal(state, "1")
    removal.take(answer({"module": "agentinfo", "parameters": {}}))
    assert removal.note is None
    removal.take(answer(destroy()))
    assert not removal.is_confirmed
    with pytest.raises(ValueError, match="nobody has ordered this"):
        removal.carry_out()
    assert not removal.confirm(f"000000000001-{'1' * 32}.answer")
    assert removal.confirm(f"000000000002-{COMMAND}.answer")
    assert Removal(state, "1").is_confirmed


@pytest.mark.parametrize(
    ("spooled", "unanswered", "outcome"),
    [
        ({COMMAND}, set(), Note(COMMAND, purge=False)),
        (set(), {COMMAND}, None),
        (set(), set(), Note(COMMAND, purge=False, is_confirmed=True)),
    ],
    ids=["the answer waits", "it was interrupted", "the broker has it"],
)
def test_after_a_crash_the_order_goes_on_from_where_it_was(
    state: Path, spooled: set[str], unanswered: set[str], outcome: Note | None
) -> None:
    (state / NOTE_FILE).write_text(json.dumps(Note(COMMAND, purge=False)._asdict()))
    removal = Removal(state, "1")
    removal.recover(spooled, unanswered)
    assert removal.note == outcome
    assert Removal(state, "1").note == outcome


def test_all_that_is_the_agents_goes_and_its_log_and_what_is_not_its_own_stay(state: Path) -> None:
    (state / "somebodys").write_text("x")
    confirmed(state).carry_out()
    assert sorted(entry.name for entry in state.iterdir()) == ["asked", "audit.log", "lock", "somebodys"]


def test_with_purge_nothing_is_left(state: Path) -> None:
    confirmed(state, purge=True).carry_out()
    assert not state.exists()


def test_a_link_in_place_of_a_file_is_removed_and_not_followed(state: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (state / "digests").symlink_to(tmp_path / "precious")
    confirmed(state, purge=True).carry_out()
    assert (tmp_path / "precious" / "file").read_text() == "x"


@pytest.mark.parametrize("kept", range(len(STATE) + 1))
def test_a_removal_that_a_crash_cut_short_is_finished_by_the_next_start(state: Path, kept: int) -> None:
    for name in STATE[kept:]:
        (state / name).unlink()
    confirmed(state, purge=True).carry_out()
    assert not state.exists()


def test_a_damaged_note_is_no_order(state: Path) -> None:
    (state / NOTE_FILE).write_text("{}")
    with pytest.raises(EnvironmentFailure, match="removal.json is damaged"):
        Removal(state, "1")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the agent's file, as the zip's start-up code tells of it."""
    path = tmp_path / "mig-agent"
    path.write_text("#!/bin/sh")
    descriptor = os.open(path, os.O_RDONLY)
    startup = SimpleNamespace(path=str(path), archive_fd=descriptor)
    monkeypatch.setitem(sys.modules, "mig_startup", startup)
    monkeypatch.setattr(service, "UNIT", tmp_path / "mig-agent.service")
    return path


def test_the_agents_own_file_goes_and_one_that_took_its_place_stays(state: Path, program: Path) -> None:
    new = program.with_name("new")
    new.write_text("a newer agent")
    new.replace(program)
    confirmed(state).carry_out()
    assert program.read_text() == "a newer agent"


def test_the_agents_file_goes_behind_its_state(
    state: Path, program: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        confirmed(state).carry_out()
    assert not program.exists()
    assert "left: asked, audit.log" in caplog.text


def test_the_unit_goes_where_it_is_word_for_word_ours(tmp_path: Path) -> None:
    unit = tmp_path / "mig-agent-test.service"
    unit.write_text(service.unit_text(Path("/sbin/mig-agent")) + "# mine\n")
    assert not service.remove_service(Path("/sbin/mig-agent"), unit)
    assert unit.exists()
    unit.write_text(service.unit_text(Path("/sbin/mig-agent")))
    assert not service.remove_service(Path("/sbin/other"), unit)
    assert service.remove_service(Path("/sbin/mig-agent"), unit)
    assert not unit.exists()
    assert not service.remove_service(Path("/sbin/mig-agent"), unit)
