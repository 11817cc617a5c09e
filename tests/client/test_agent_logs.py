"""`mig audit verify` on agents' own logs: what each signs is held against what it signed, and the log."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from agent.runtime.audit import AUDIT_FILE, AuditLog
from client.main import run_command_line
from server import schema
from tests.support.api import ApiServer
from tests.support.endpoint import utc_now
from tests.support.fleet import FleetAgent

Printed = pytest.CaptureFixture[str]


class Endpoint:
    """An agent with a real log of its own, whose heartbeats reach the server."""

    def __init__(self, server: ApiServer, directory: Path) -> None:
        self._server = server
        self.agent = FleetAgent(server.store)
        self.path = directory / AUDIT_FILE
        self.log = AuditLog(directory, clock=utc_now)
        self._minutes = 0

    def live(self, entries: int) -> None:
        """Have some things happen, and tell the server of the log."""
        for number in range(entries):
            self.log.trusted(number, "e" * 64)
        self.log.settle(0)
        self._minutes += 1
        *before, newest = map(tuple, self.log.heads)
        time = utc_now() + timedelta(minutes=self._minutes)
        heartbeat = self.agent.heartbeat(time, log_head=newest, log_heads=tuple(before))
        self._server.store.save_witnesses([(heartbeat, self.agent.signed(heartbeat))], utc_now())

    def rewrite(self, change: Callable[[list[bytes]], list[bytes]]) -> None:
        """Do what root on the endpoint can do: change what the log says, and chain it anew."""
        self.log.close()
        told = [json.loads(line) for line in change(self.path.read_bytes().splitlines())]
        self.path.unlink()
        self.log = AuditLog(self.path.parent, clock=utc_now)
        for entry in told:
            self.log._append(entry["kind"], tuple(entry["who"]), entry["what"])

    def verify_file(self) -> int:
        """Compare the log itself with what the agent signed."""
        return run_command_line(["audit", "verify", "--file", str(self.path), "--agent", self.agent.id])


@pytest.fixture
def endpoint(api: ApiServer, tmp_path: Path) -> Endpoint:
    directory = tmp_path / "state"
    directory.mkdir()
    return Endpoint(api, directory)


def verify() -> int:
    return run_command_line(["audit", "verify"])


def without_the_third(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], *lines[3:]]


@pytest.mark.slow
def test_a_log_that_goes_on_is_found_good(endpoint: Endpoint, capsys: Printed) -> None:
    for _ in range(3):
        endpoint.live(7)
        assert verify() == 0
    assert "1 agents' own logs go on from what they had signed before" in capsys.readouterr().out
    assert endpoint.verify_file() == 0
    assert "heads that the agent signed stand in it" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "of_the_file"),
    # Of a log that is gone, what was signed cannot be compared with it any more.
    [(without_the_third, 4), (lambda lines: lines[:9], 4), (lambda _lines: [], 3)],
)
def test_a_log_that_was_written_anew_or_went_back_shows_by_the_agents_own_signatures(
    endpoint: Endpoint, capsys: Printed, change: Callable[[list[bytes]], list[bytes]], of_the_file: int
) -> None:
    endpoint.live(20)
    endpoint.rewrite(change)
    endpoint.live(1)
    assert verify() == 4
    said = capsys.readouterr().out
    assert f"agent web1 ({endpoint.agent.id}): its own log: " in said
    assert ("was written anew" in said) or ("went back" in said)
    assert endpoint.verify_file() == of_the_file


@pytest.mark.slow
def test_a_server_that_keeps_nothing_does_not_help_against_what_this_client_remembers(
    endpoint: Endpoint,
    api: ApiServer,
    capsys: Printed,
) -> None:
    endpoint.live(20)
    assert verify() == 0
    endpoint.rewrite(without_the_third)
    with api.database.writing() as connection:
        connection.execute(sa.delete(schema.witnesses))
    endpoint.live(1)
    for _ in range(2):
        capsys.readouterr()
        assert verify() == 4
        assert "was written anew" in capsys.readouterr().out
    assert run_command_line(["audit", "forget", endpoint.agent.id]) == 0
    assert verify() == 0
    assert run_command_line(["audit", "forget", "f" * 32]) == 2


@pytest.mark.slow
def test_an_agent_that_the_server_shows_no_more_is_said(
    endpoint: Endpoint,
    api: ApiServer,
    capsys: Printed,
) -> None:
    endpoint.live(2)
    assert verify() == 0
    with api.database.writing() as connection:
        connection.execute(sa.delete(schema.witnesses))
    assert verify() == 0
    assert f"agent {endpoint.agent.id}: the server shows nothing of it any more" in capsys.readouterr().out


def test_what_a_server_makes_up_of_an_agents_log_is_found_out(
    endpoint: Endpoint,
    api: ApiServer,
    capsys: Printed,
) -> None:
    endpoint.live(5)
    endpoint.agent.key, stranger = FleetAgent(api.store, "web2").key, endpoint.agent.key
    endpoint.live(1)
    assert verify() == 4
    assert "what the server shows was not signed by it" in capsys.readouterr().out
    endpoint.agent.key = stranger


def test_a_log_that_ends_before_what_was_signed_cannot_be_compared(
    endpoint: Endpoint, capsys: Printed, tmp_path: Path
) -> None:
    endpoint.live(9)
    exported = endpoint.path.read_bytes()
    endpoint.live(3)
    endpoint.path.write_bytes(exported)
    assert endpoint.verify_file() == 3
    assert "which is not in this file: it ends at 9" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["--agent", "f" * 32], ["--agent", "x", "--file", "x"], ["--agent", "f" * 32, "--file", "/dev/null"]],
)
def test_an_agents_log_needs_its_file_and_an_agent_that_signed(
    api: ApiServer,
    words: list[str],
) -> None:
    assert run_command_line(["audit", "verify", *words]) == 2


@pytest.mark.slow
def test_a_memory_that_cannot_be_read_is_not_taken_for_an_empty_one(
    endpoint: Endpoint, tmp_path: Path, capsys: Printed
) -> None:
    endpoint.live(2)
    assert verify() == 0
    [memory] = (tmp_path / "data").rglob("*.agents.json")
    memory.write_bytes(b'{"x":')
    assert verify() == 5
    assert "cannot be read: repair it or remove it" in capsys.readouterr().err
