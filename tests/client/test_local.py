import json
from pathlib import Path

import msgspec
import pytest

from client.main import run_command_line
from protocol.result import OperationResult

Printed = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no configuration, so neither key nor server could be used."""
    monkeypatch.setenv("MIG_CONFIG", str(tmp_path / "none.toml"))


def test_a_module_runs_on_this_machine_without_key_or_server(tmp_path: Path, capfd: Printed) -> None:
    (tmp_path / "evil\x1b[2J").write_text("x")
    assert run_command_line(["file", "-t", "local", "--path", str(tmp_path), "--name", "^evil"]) == 0
    out = capfd.readouterr().out
    assert f"{tmp_path}/evil\\x1b[2J  search=s1" in out
    assert "file: 1 agent answered, found on 1" in out


def test_nothing_found_here_is_exit_code_1(tmp_path: Path) -> None:
    assert run_command_line(["file", "-t", "local", "--path", str(tmp_path), "--name", "^evil"]) == 1


def test_json_is_what_an_agent_would_send(tmp_path: Path, capfd: Printed) -> None:
    (tmp_path / "evil").write_text("x")
    assert (
        run_command_line(["file", "-t", "local", "--json", "--path", str(tmp_path), "--name", "^evil"]) == 0
    )
    (line,) = capfd.readouterr().out.splitlines()
    result = msgspec.convert(json.loads(line), OperationResult)
    assert result.records[0]["path"] == f"{tmp_path}/evil"


def test_an_action_file_runs_here_whatever_its_target(capfd: Printed) -> None:
    assert run_command_line(["run", "-t", "local", "--json", "actions/first-questions.json"]) == 0
    agent, files = map(json.loads, capfd.readouterr().out.splitlines())
    assert agent["found"]
    assert {"release", "accounts"} == {record["search"] for record in files["records"]}
