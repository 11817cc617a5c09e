"""The client against the real API and its store; only the broker and the agents' machines are not there."""

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from client.main import run_command_line
from protocol.envelope import ACTION, Envelope, decode_envelope, encode_envelope
from protocol.heartbeat import Heartbeat
from protocol.result import OperationResult, Problem
from server.checking import facts_of
from server.rows import ReceivedResult
from tests.client.opponent import SimulatedAgent
from tests.support.api import ApiServer, api_server
from tests.support.gpg import Investigator

FOUND = OperationResult(found=True, status="ok", records=({"id": "x"},))
Printed = pytest.CaptureFixture[str]


@pytest.fixture
def api(tmp_path: Path, ada: Investigator, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with api_server(tmp_path) as server:
        server.store.add_investigator(
            ada.fingerprint, ada.name, ada.public_key, ("read", "submit"), datetime.now(UTC)
        )
        config = tmp_path / "config.toml"
        config.write_text(
            f'[client]\nserver = "{server.url}"\nfingerprint = "{ada.fingerprint}"\ngpg_home = "{ada.home}"\n'
        )
        monkeypatch.setenv("MIG_CONFIG", str(config))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        yield server


def enrol(api: ApiServer, name: str) -> SimulatedAgent:
    agent = SimulatedAgent(name, FOUND)
    now = datetime.now(UTC)
    api.store.enrol_agent(agent.id, agent.public_key, "open", now)
    heartbeat = Heartbeat(
        agent=agent.id,
        name=name,
        os="linux",
        arch="amd64",
        ident="Debian 12",
        version="1",
        time=now,
        started=now,
        tags={},
        environment={},
        modules=("agentinfo",),
    )
    api.store.save_heartbeat(heartbeat, now)
    return agent


def answer(api: ApiServer, agent: SimulatedAgent, question: Envelope, *, fails: bool = False) -> None:
    """Do what the relay does with an answer: store it, then tell followers."""
    result = agent.result(question)
    if fails:
        problem = Problem(code="child-failed", step=0, detail="it ended without an answer")
        result = msgspec.structs.replace(result, status="failed", results=(), problem=problem)
    signed = agent.sign(result)
    received = ReceivedResult(
        agent_id=agent.id,
        envelope_bytes=encode_envelope(signed),
        digest=signed.digest,
        facts=facts_of(result),
    )
    api.publish(api.store.save_results([received], datetime.now(UTC)))


def answer_in_background(api: ApiServer, *agents: SimulatedAgent) -> threading.Thread:
    """Wait for the scheduler to be woken, then answer every pending command."""

    def run() -> None:
        while not api.was_woken():
            pass
        for command in api.store.pending_commands(datetime.now(UTC), 100):
            agent = next(agent for agent in agents if agent.id == command.agent_id)
            answer(api, agent, decode_envelope(command.body, ACTION))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_question_goes_through_login_submission_and_stream(api: ApiServer, capsys: Printed) -> None:
    agents = [enrol(api, "web1"), enrol(api, "web2")]
    thread = answer_in_background(api, *agents)
    assert run_command_line(["agentinfo", "--yes", "--json"]) == 0
    thread.join()
    *answers, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert sorted(line["agent_name"] for line in answers) == ["web1", "web2"]
    assert summary["summary"]["exit"] == 0

    action_id = summary["summary"]["action"]
    assert run_command_line(["results", action_id]) == 0
    assert "2 of 2 agents answered, found on 2" in capsys.readouterr().out
    assert run_command_line(["action", "list"]) == 0
    assert capsys.readouterr().out.startswith(f"{action_id}  done")
    assert run_command_line(["action", "show", action_id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == action_id


def answer_paced(api: ApiServer, *agents: SimulatedAgent) -> threading.Thread:
    """Do what the scheduler does with one paced action, and answer it: the first agent in vain."""

    def run() -> None:
        while not api.was_woken():
            pass
        is_first = True
        [action_id] = api.store.running_campaigns()
        while api.store.running_campaigns():
            api.publish(api.store.advance_campaign(action_id, datetime.now(UTC)).changes)
            for command in api.store.pending_commands(datetime.now(UTC), 100):
                agent = next(agent for agent in agents if agent.id == command.agent_id)
                answer(api, agent, decode_envelope(command.body, ACTION), fails=is_first)
                is_first = False

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_failing_first_wave_is_said_and_nobody_else_is_asked(api: ApiServer, capsys: Printed) -> None:
    agents = [enrol(api, f"web{number}") for number in range(4)]
    thread = answer_paced(api, *agents)
    words = ["agentinfo", "--yes", "--json", "--waves", "1,2", "--stop-at", "50%"]
    assert run_command_line(words) == 3
    thread.join()
    printed = capsys.readouterr()
    summary = json.loads(printed.out.splitlines()[-1])["summary"]
    why = "1 of 1 answers failed, which is 50% or more; wave 1"
    assert summary["campaign"].pop("pacing")["waves"] == [1, 2]
    assert summary["campaign"] == {
        "state": "stopped",
        "wave": 1,
        "held": 0,
        "reason": why,
    }
    assert [line["state"] for line in summary["missing"]].count("cancelled") == 3
    assert {line["reason"] for line in summary["missing"] if line["state"] == "cancelled"} == {
        f"stopped: {why}"
    }
    assert f"mig: stopped: {why}" in printed.err

    assert run_command_line(["action", "show", summary["action"]]) == 0
    assert f"stopped: {why}" in capsys.readouterr().out
    assert run_command_line(["results", summary["action"]]) == 3
    assert f"stopped: {why}" in capsys.readouterr().out


@pytest.mark.slow
def test_waves_are_said_as_they_go_out(api: ApiServer, capsys: Printed) -> None:
    agents = [enrol(api, f"web{number}") for number in range(4)]
    thread = answer_paced(api, *agents)
    assert run_command_line(["agentinfo", "--yes", "--waves", "1,2"]) == 3
    thread.join()
    printed = capsys.readouterr()
    assert "mig: wave 3 of 3: all let out" in printed.err
    assert "3 of 4 agents answered" in printed.out


def test_a_rate_that_the_expiry_does_not_leave_time_for_is_warned_of(
    api: ApiServer, tmp_path: Path, capsys: Printed
) -> None:
    for name in ("web1", "web2"):
        enrol(api, name)
    path = tmp_path / "slow.json"
    path.write_text('{"name": "slow", "operations": [{"module": "agentinfo", "parameters": {}}]}')
    assert run_command_line(["action", "sign", str(path), "--expire", "1h"]) == 0
    signed = capsys.readouterr().out.strip()
    assert run_command_line(["action", "submit", signed, "--yes", "--rate", "0.0005"]) == 0
    said = capsys.readouterr().err
    assert "warning: the last ones will not be asked: 2 agents at 0.0005 a second take 4,000 s" in said


@pytest.mark.slow
def test_answers_that_were_deleted_are_named_as_such(api: ApiServer, capsys: Printed) -> None:
    agents = [enrol(api, "web1"), enrol(api, "web2")]
    thread = answer_in_background(api, *agents)
    assert run_command_line(["agentinfo", "--yes", "--json"]) == 0
    thread.join()
    action_id = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]["action"]
    now = datetime.now(UTC) + timedelta(days=9)
    assert api.store.delete_answers(now, now, 1) == 1
    assert run_command_line(["results", action_id]) == 3
    assert "done: its answer was deleted because of its age" in capsys.readouterr().out
    assert run_command_line(["action", "show", action_id]) == 0
    assert "1 answers were deleted because of their age" in capsys.readouterr().out
    assert api.store.delete_answers(now, now, 1) == 1
    assert run_command_line(["results", action_id]) == 3
    assert "gone: 2 answers were deleted because of their age" in capsys.readouterr().err


@pytest.mark.slow
def test_only_agents_that_the_target_means_are_asked(api: ApiServer, capsys: Printed) -> None:
    agents = [enrol(api, "web1"), enrol(api, "db1")]
    thread = answer_in_background(api, *agents)
    assert run_command_line(["agentinfo", "--yes", "-t", "name LIKE 'web%'"]) == 0
    thread.join()
    assert "1 of 1 agents answered" in capsys.readouterr().out


def test_a_target_that_nobody_matches_is_exit_code_1(api: ApiServer, capsys: Printed) -> None:
    assert run_command_line(["agentinfo", "--yes"]) == 1
    assert "no-agents" in capsys.readouterr().err


def test_agents_and_investigators_are_listed(api: ApiServer, ada: Investigator, capsys: Printed) -> None:
    agent = enrol(api, "web1")
    assert run_command_line(["agents"]) == 0
    assert capsys.readouterr().out.startswith(f"web1  {agent.id}  online  1  linux/amd64  Debian 12")
    assert run_command_line(["agents", "-t", "name = 'other'"]) == 1
    capsys.readouterr()
    assert run_command_line(["investigators"]) == 0
    assert capsys.readouterr().out == f"{ada.fingerprint}  Ada Investigator  active  read,submit\n"


def test_a_login_to_another_server_is_refused_in_one_line(api: ApiServer, capsys: Printed) -> None:
    config = Path(os.environ["MIG_CONFIG"])
    config.write_text(config.read_text().replace("127.0.0.1", "localhost"))
    assert run_command_line(["agents"]) == 4
    assert capsys.readouterr().err.startswith("mig: unauthenticated: the login is for another server")


def test_an_unknown_action_is_exit_code_2(api: ApiServer, capsys: Printed) -> None:
    assert run_command_line(["results", "../../x"]) == 2
    assert capsys.readouterr().err.startswith("mig: not-found: ")
