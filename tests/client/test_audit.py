"""`mig audit` against the real API: a log that was tampered with is found out, by whom and where."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from client.main import run_command_line
from protocol.audit import NO_HEAD, Head, decode_entry, encode_entry
from server import schema
from server.archive import write_archive
from server.rows import AuditEvent
from tests.support.api import ApiServer
from tests.support.fleet import FleetAgent
from tests.support.gpg import Investigator

Printed = pytest.CaptureFixture[str]


def witness(api: ApiServer, agent: FleetAgent, *heads: Head) -> None:
    """Store a heartbeat in which an agent signed that it has seen these heads."""
    keep(api, agent, server_heads=tuple(map(tuple, heads)))


def keep(api: ApiServer, agent: FleetAgent, **members: Any) -> None:
    """Store a heartbeat that an agent signed."""
    heartbeat = agent.heartbeat(datetime.now(UTC), **members)
    api.store.save_witnesses([(heartbeat, agent.signed(heartbeat))], heartbeat.time)


def rewrite(api: ApiServer, seq: int) -> None:
    """Do what somebody with the database can do: change an entry and chain everything behind it anew."""
    events = []
    for number, line in api.store.list_audit(0, 1000)[0]:
        entry = json.loads(line)
        what = {"answers": 999} if number == seq else entry["what"]
        events.append(AuditEvent(kind=entry["kind"], who=tuple(entry["who"]), what=what))
    with api.database.writing() as connection:
        connection.execute(sa.delete(schema.audit))
    for event in events:
        api.store.record(event, api.now())


@pytest.mark.slow
def test_a_log_as_it_was_written_verifies_with_what_agents_saw(api: ApiServer, capsys: Printed) -> None:
    agent = FleetAgent(api.store)
    witness(api, agent, api.store.audit_head())
    assert run_command_line(["audit", "verify"]) == 0
    assert "1 of 1 heads seen by 1 agents and this client stand in it" in capsys.readouterr().out
    assert run_command_line(["audit", "verify"]) == 0
    assert "2 of 2 heads" in capsys.readouterr().out


@pytest.mark.slow
def test_a_history_that_was_rewritten_is_contradicted_by_the_agents_that_saw_it(
    api: ApiServer, capsys: Printed
) -> None:
    agent = FleetAgent(api.store)
    head = api.store.audit_head()
    rewrite(api, 5)
    witness(api, agent, head)
    assert run_command_line(["audit", "verify"]) == 4
    said = capsys.readouterr().out
    assert f"agent web1 ({agent.id}) saw entry {head.seq} as {head.sha256}" in said
    assert "history was rewritten" in said


def test_a_history_whose_end_is_withheld_is_found_out(api: ApiServer, capsys: Printed) -> None:
    agent = FleetAgent(api.store)
    head = api.store.audit_head()
    with api.database.writing() as connection:
        connection.execute(sa.delete(schema.audit).where(schema.audit.c.seq > 8))
    witness(api, agent, head._replace(seq=100))
    assert run_command_line(["audit", "verify"]) == 4
    assert "saw entry 100, but the log ends at" in capsys.readouterr().out


@pytest.mark.slow
def test_this_client_remembers_what_it_saw(api: ApiServer, capsys: Printed) -> None:
    assert run_command_line(["audit", "verify"]) == 0
    rewrite(api, 5)
    capsys.readouterr()
    assert run_command_line(["audit", "verify"]) == 4
    assert "this client saw entry" in capsys.readouterr().out


def test_a_change_in_the_middle_is_said_exactly(api: ApiServer, capsys: Printed) -> None:
    with api.database.writing() as connection:
        fifth = schema.audit.c.seq == 5
        entry: bytes = connection.execute(sa.select(schema.audit.c.entry).where(fifth)).scalar_one()
        changed = entry.replace(b'"answers":3', b'"answers":4')
        connection.execute(sa.update(schema.audit).where(schema.audit.c.seq == 5).values(entry=changed))
    assert run_command_line(["audit", "verify"]) == 4
    said = capsys.readouterr().out
    assert said == "the log is broken: entry 6 does not follow from entry 5 as it stands\n"


def test_a_witness_that_the_server_made_up_is_found_out(api: ApiServer, capsys: Printed) -> None:
    agent, other = FleetAgent(api.store), FleetAgent(api.store, "web2")
    agent.key = other.key
    witness(api, agent, api.store.audit_head())
    assert run_command_line(["audit", "verify"]) == 4
    assert f"agent web1 ({agent.id}): what the server shows was not signed by it" in capsys.readouterr().out


def test_an_export_is_the_log_as_it_was_hashed_and_verifies_without_the_server(
    api: ApiServer, tmp_path: Path, capsys: Printed
) -> None:
    exported = tmp_path / "audit.jsonl"
    assert run_command_line(["audit", "export", "-o", str(exported)]) == 0
    lines = exported.read_bytes().splitlines()
    assert lines == [entry for _, entry in api.store.list_audit(0, 1000)[0]]
    assert run_command_line(["audit", "verify", "--file", str(exported)]) == 0
    assert f"entries up to {len(lines)} in one chain" in capsys.readouterr().out
    exported.write_bytes(b"\n".join([*lines[:3], *lines[4:]]) + b"\n")
    assert run_command_line(["audit", "verify", "--file", str(exported)]) == 4
    assert ": entry 3 is followed by entry 5" in capsys.readouterr().err


def test_the_log_is_shown_one_line_per_entry(api: ApiServer, ada: Investigator, capsys: Printed) -> None:
    assert run_command_line(["audit", "show", "--after", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2  ")
    assert lines[0].endswith(f"read  {'A' * 40}  answers=0")
    assert "login" in lines[-1]


def test_who_may_not_manage_is_refused(api: ApiServer, ada: Investigator, capsys: Printed) -> None:
    api.store.add_investigator(ada.fingerprint, ada.name, ada.public_key, ("read",), api.now())
    assert run_command_line(["audit", "verify"]) == 4
    assert "forbidden" in capsys.readouterr().err


def cut(api: ApiServer, path: Path, last: int) -> None:
    """Archive the log, and cut off what is up to an entry, as the operator does."""
    archive = write_archive(api.store, path, api.now() - timedelta(days=900))
    keeps = decode_entry(api.store.list_audit(last, 1)[0][0][1])
    assert api.store.cut_audit(archive, keeps, api.now()) > 0


@pytest.mark.slow
def test_a_log_that_was_cut_verifies_and_older_heads_are_found_in_the_archives(
    api: ApiServer, tmp_path: Path, capsys: Printed
) -> None:
    agent = FleetAgent(api.store)
    early = api.store.find_heads({3, 5})
    witness(api, agent, early[3], early[5])
    assert run_command_line(["audit", "verify"]) == 0
    first, second = tmp_path / "first", tmp_path / "second"
    cut(api, first, 4)
    cut(api, second, 5)
    capsys.readouterr()
    assert run_command_line(["audit", "verify"]) == 0
    said = capsys.readouterr().out
    assert "saw entry 3, from before the log begins: it cannot be compared" in said
    assert "entries 6 to " in said
    for path in (first, second):
        assert run_command_line(["audit", "verify", "--file", str(path)]) == 0
    capsys.readouterr()
    archives = ["--archive", str(first), "--archive", str(second)]
    assert run_command_line(["audit", "verify", *archives]) == 0
    said = capsys.readouterr().out
    assert "cannot be compared" not in said
    assert "5 of 5 heads seen by 1 agents and this client stand in it" in said


@pytest.mark.slow
def test_an_archive_that_was_written_anew_is_found_out(
    api: ApiServer, tmp_path: Path, capsys: Printed
) -> None:
    agent = FleetAgent(api.store)
    witness(api, agent, api.store.find_heads({3})[3])
    honest, forged = tmp_path / "honest", tmp_path / "forged"
    cut(api, honest, 4)
    lines, head = [], NO_HEAD
    for line in honest.read_bytes().splitlines():
        entry = json.loads(line)
        what = {"answers": 999} if entry["seq"] == 2 else entry["what"]
        data, head = encode_entry(
            head, time=entry["time"], kind=entry["kind"], who=tuple(entry["who"]), what=what
        )
        lines.append(data)
    forged.write_bytes(b"\n".join(lines) + b"\n")
    assert run_command_line(["audit", "verify", "--archive", str(forged)]) == 4
    said = capsys.readouterr().out
    assert f"agent web1 ({agent.id}) saw entry 3 as " in said
    assert f"which does not stand in {forged}: history was rewritten" in said
    assert f"{forged} saw entry {head.seq} as " in said
    assert run_command_line(["audit", "verify", "--archive", str(honest), "--file", str(honest)]) == 2
    assert run_command_line(["audit", "verify", "--archive", str(tmp_path / "none")]) == 2
