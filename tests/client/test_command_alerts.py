"""`mig alerts` against the real API and its store."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from client.main import run_command_line
from protocol.documents import SignedEnvelope
from server import schema
from tests.support.api import ApiServer, api_server
from tests.support.fleet import FleetAgent
from tests.support.gpg import Investigator
from tests.support.platform import ROOT

Printed = pytest.CaptureFixture[str]


@pytest.fixture
def api(tmp_path: Path, ada: Investigator, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with api_server(tmp_path) as server:
        server.store.add_investigator(ada.fingerprint, ada.name, ada.public_key, ("read",), datetime.now(UTC))
        config = tmp_path / "config.toml"
        config.write_text(
            f'[client]\nserver = "{server.url}"\nfingerprint = "{ada.fingerprint}"\ngpg_home = "{ada.home}"\n'
        )
        monkeypatch.setenv("MIG_CONFIG", str(config))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        yield server


def test_alerts_are_shown_one_on_a_line_with_what_happened(api: ApiServer, capsys: Printed) -> None:
    agent = FleetAgent(api.store, now=api.now())
    api.store.save_alerts([agent.alert(1), agent.alert(2, count=3, suppressed=4)], api.now())
    assert run_command_line(["alerts"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f"critical  web1  {agent.id}  fswatch changed  path=/etc/passwd")
    assert second.endswith("fswatch changed  x3  path=/etc/passwd  (4 suppressed before)")


def test_in_json_an_alert_is_an_object_of_what_was_signed(api: ApiServer, capsys: Printed) -> None:
    agent = FleetAgent(api.store, now=api.now())
    api.store.save_alerts([agent.alert(1)], api.now())
    run_command_line(["alerts", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["agent"], told["seq"], told["record"]) == (agent.id, 1, {"path": "/etc/passwd"})


def test_alerts_are_chosen_by_target_module_and_severity(api: ApiServer, capsys: Printed) -> None:
    one, other = (FleetAgent(api.store, name, now=api.now()) for name in ("web1", "web2"))
    api.store.save_alerts([one.alert(1), other.alert(1, severity="medium", module="audit")], api.now())
    for words, names in (
        (["-t", "name = 'web2'"], ["web2"]),
        (["--module", "fswatch"], ["web1"]),
        (["--severity", "high"], ["web1"]),
        (["--severity", "medium"], ["web1", "web2"]),
    ):
        run_command_line(["alerts", "--json", *words])
        lines = capsys.readouterr().out.splitlines()
        assert [json.loads(line)["agent_name"] for line in lines] == names
    assert run_command_line(["alerts", "--module", "audit", "--severity", "critical"]) == 1


def test_what_an_endpoint_writes_never_reaches_the_terminal_as_it_is(api: ApiServer, capsys: Printed) -> None:
    agent = FleetAgent(api.store, "\x1b[2Jevil", now=api.now())
    record = {"path": "/tmp/\x1b]0;owned\x07\n\u202e", "\x1b[31m": ["\x9b", {"\x00": "\r"}]}
    api.store.save_alerts([agent.alert(1, record=record)], api.now())
    for words in ([], ["--json"]):
        assert run_command_line(["alerts", *words]) == 0
        out = capsys.readouterr().out
        assert out.count("\n") == 1
        assert out.rstrip("\n").isprintable()


def test_an_alert_that_the_database_changed_is_not_shown_and_ends_with_refused(
    api: ApiServer, capsys: Printed
) -> None:
    agent = FleetAgent(api.store, now=api.now())
    alert = agent.alert(1)
    api.store.save_alerts([alert], api.now())
    envelope = msgspec.json.decode(alert.envelope, type=SignedEnvelope)
    payload = base64.b64decode(envelope.payload).replace(b"passwd", b"shadow")
    changed = msgspec.structs.replace(envelope, payload=base64.b64encode(payload).decode())
    with api.database.writing() as connection:
        connection.execute(sa.update(schema.alerts).values(envelope=changed.encode()))
    assert run_command_line(["alerts"]) == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "the agent's signature does not verify" in printed.err


def test_alerts_that_somebody_withholds_are_missed(api: ApiServer, capsys: Printed) -> None:
    agent = FleetAgent(api.store, now=api.now())
    api.store.save_alerts([agent.alert(1), agent.alert(4)], api.now())
    run_command_line(["alerts"])
    assert f"2 alerts of agent {agent.id} are missing" in capsys.readouterr().err


@pytest.mark.slow
def test_following_shows_what_is_stored_and_then_what_comes(api: ApiServer, tmp_path: Path) -> None:
    agent = FleetAgent(api.store, now=api.now())
    api.store.save_alerts([agent.alert(1)], api.now())
    command = [sys.executable, "-B", "-m", "client.main", "alerts", "--follow", "--json"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline())["seq"] == 1
        api.store.save_alerts([agent.alert(2)], api.now())
        api.loop.call_soon_threadsafe(api.services.bell.ring)
        assert json.loads(following.stdout.readline())["seq"] == 2
        following.send_signal(signal.SIGINT)
        assert following.wait(30) == 0
