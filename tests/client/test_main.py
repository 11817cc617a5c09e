import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest

from agent.registry import load_module, module_names
from client.main import asked_as, run_command_line
from protocol.envelope import ACTION, decode_envelope
from protocol.result import OperationResult, Problem
from tests.client.opponent import Opponent, SimulatedAgent
from tests.support.gpg import Investigator

FOUND = OperationResult(found=True, status="ok", records=({"id": "\x1b[2Jx"},))
NOTHING = OperationResult(found=False, status="ok")
Printed = pytest.CaptureFixture[str]


def test_a_question_is_asked_and_its_answers_are_printed(desk: Opponent, capsys: Printed) -> None:
    desk.agents = [SimulatedAgent("web1", FOUND), SimulatedAgent("web2", NOTHING)]
    assert run_command_line(["agentinfo", "--yes", "-t", "os = 'linux'"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == [
        "web1  id=\\x1b[2Jx",
        "agentinfo: 2 agents answered, found on 1",
    ]
    assert "asks 2 agents; endpoints enforce: os = 'linux'" in printed.err


def test_nothing_found_is_exit_code_1(desk: Opponent) -> None:
    desk.agents = [SimulatedAgent("web1", NOTHING)]
    assert run_command_line(["agentinfo", "--yes"]) == 1


def test_a_silent_agent_is_exit_code_3_and_named(desk: Opponent, capsys: Printed) -> None:
    desk.agents, desk.silent = [SimulatedAgent("web1", FOUND)], [SimulatedAgent("web2")]
    assert run_command_line(["agentinfo", "--yes"]) == 3
    assert "no answer from web2: sent: the command waits for the agent" in capsys.readouterr().out


def test_a_refusal_is_exit_code_4_and_says_why(desk: Opponent, capsys: Printed) -> None:
    web1 = SimulatedAgent("web1")
    desk.agents = [web1]
    problem = Problem(code="acl-refused", step=9, detail="weight")
    desk.items = lambda question: [
        web1.item(
            question,
            web1.sign(msgspec.structs.replace(web1.result(question), status="refused", problem=problem)),
        )
    ]
    assert run_command_line(["agentinfo", "--yes", "--json"]) == 4
    line, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["status"], line["notes"]) == ("refused", ["acl-refused: weight"])
    assert summary["summary"]["exit"] == 4


def test_a_forged_answer_is_never_shown_as_found(desk: Opponent, capsys: Printed) -> None:
    web1, web2 = SimulatedAgent("web1", FOUND), SimulatedAgent("web2", FOUND)
    desk.agents = [web1]
    desk.items = lambda question: [web1.item(question, web2.sign(web1.result(question)))]
    assert run_command_line(["agentinfo", "--yes"]) == 4
    out = capsys.readouterr().out
    assert "not believed: web1" in out
    assert "id=" not in out


def test_a_stream_that_breaks_is_taken_up_where_it_broke(desk: Opponent, capsys: Printed) -> None:
    desk.agents = [SimulatedAgent(f"web{number}", FOUND) for number in range(5)]
    desk.cut_after = 2
    assert run_command_line(["agentinfo", "--yes", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    resumed = [headers for _, path, headers, _ in desk.requests if path.endswith("/events")]
    assert [headers.get("Last-Event-ID") for headers in resumed] == [None, "2"]


def test_a_name_that_moves_to_another_agent_is_warned_of(desk: Opponent, capsys: Printed) -> None:
    for _ in range(2):
        desk.agents = [SimulatedAgent("web1", FOUND)]
        run_command_line(["agentinfo", "--yes"])
    assert "warning: the name web1 has moved from agent" in capsys.readouterr().err


def test_no_matching_agent_is_exit_code_1(desk: Opponent, capsys: Printed) -> None:
    refusal = b'{"error":{"code":"no-agents","detail":"no agent matches"}}'
    desk.respond = lambda method, path: (
        (404, refusal) if (method, path[-8:]) == ("POST", "/actions") else None
    )
    assert run_command_line(["agentinfo", "--yes"]) == 1
    assert capsys.readouterr().err == "mig: no-agents: no agent matches\n"


def test_without_a_terminal_a_question_needs_yes(desk: Opponent, capsys: Printed) -> None:
    assert run_command_line(["agentinfo"]) == 2
    assert capsys.readouterr().err == "mig: usage: there is no terminal to confirm on: add --yes\n"
    assert desk.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command"),
        (["agentinfo", "--yes", "--nonsense"], "No such option"),
        (["agentinfo", "--yes", "--expire", "soon"], "is not a duration"),
        (["agentinfo", "--yes", "-t", "os ="], "bad-target"),
        (["run", "--yes", "no-such-file.json"], "No such file"),
        (["results"], "Missing argument"),
        (["action", "sign", "no-such-file.json"], "No such file"),
        (["action", "new", "nonsense"], "unknown-module"),
        (["verify", "--cert", "none", "--signature", "none", "none"], "No such file"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    desk: Opponent, capsys: Printed, arguments: list[str], message: str
) -> None:
    assert run_command_line(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert desk.requests == []


def test_a_server_that_is_away_is_exit_code_5(
    desk: Opponent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Printed
) -> None:
    config = Path(os.environ["MIG_CONFIG"])
    config.write_text(config.read_text().replace(desk.url, "http://127.0.0.1:9"))
    assert run_command_line(["agents"]) == 5
    assert capsys.readouterr().err == "mig: server-away: http://127.0.0.1:9: Connection refused\n"


def test_agents_and_investigators_are_listed(desk: Opponent, capsys: Printed) -> None:
    desk.agents = [SimulatedAgent("web\x1b1")]
    assert run_command_line(["agents"]) == 0
    assert capsys.readouterr().out.startswith(f"web\\x1b1  {desk.agents[0].id}  online")
    person = {"fingerprint": "A" * 40, "name": "Ada", "status": "active", "rights": ["read"]}
    desk.respond = lambda _, path: (
        (200, json.dumps({"investigators": [person]}).encode()) if "/investigators" in path else None
    )
    assert run_command_line(["investigators"]) == 0
    assert capsys.readouterr().out == f"{'A' * 40}  Ada  active  read\n"


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "question.json"
    path.write_text(
        '{"name": "who", "operations": [{"module": "agentinfo", "parameters": {}}], "syntaxversion": 2}'
    )
    return path


def test_two_investigators_sign_and_gpg_alone_can_check_it(
    desk: Opponent, template: Path, ada: Investigator, bob: Investigator, capfdbinary: Any
) -> None:
    tmp_path = template.parent
    assert run_command_line(["action", "sign", str(template), "-t", "os = 'linux'"]) == 0
    signed = Path(capfdbinary.readouterr().out.decode().strip())
    assert signed == tmp_path / "question.signed.json"
    config = Path(os.environ["MIG_CONFIG"])
    config.write_text(
        config.read_text().replace(ada.fingerprint, bob.fingerprint).replace(str(ada.home), str(bob.home))
    )
    assert run_command_line(["action", "sign", str(signed)]) == 0
    assert b"valid until" in capfdbinary.readouterr().err
    envelope = decode_envelope(signed.read_bytes(), ACTION)
    assert [signature.keyid for signature in envelope.signatures] == [ada.fingerprint, bob.fingerprint]

    assert run_command_line(["action", "payload", str(signed)]) == 0
    (tmp_path / "bytes").write_bytes(capfdbinary.readouterr().out)
    for number, person in enumerate((ada, bob), 1):
        assert run_command_line(["action", "payload", str(signed), "--signature", str(number)]) == 0
        (tmp_path / "sig").write_bytes(capfdbinary.readouterr().out)
        status = person.gpg("--status-fd", "1", "--verify", str(tmp_path / "sig"), str(tmp_path / "bytes"))
        assert f"VALIDSIG {person.fingerprint}".encode() in status

    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "ada.asc").write_bytes(ada.public_key)
    assert run_command_line(["action", "verify", str(signed), "--keys", str(keys)]) == 4
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert lines == [
        f"accepted {ada.fingerprint} Ada Investigator <ada@example.net>",
        f"refused {bob.fingerprint}: there is no such key",
    ]
    (keys / "bob.asc").write_bytes(bob.public_key)
    assert run_command_line(["action", "verify", str(signed), "--keys", str(keys)]) == 0


def test_a_signed_action_is_submitted_run_and_shown(desk: Opponent, template: Path, capsys: Printed) -> None:
    desk.agents = [SimulatedAgent("web1", FOUND)]
    run_command_line(["action", "sign", str(template)])
    signed = capsys.readouterr().out.strip()
    assert run_command_line(["action", "submit", signed, "--yes"]) == 0
    action_id = capsys.readouterr().out.strip()
    assert run_command_line(["action", "submit", signed, "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": action_id, "commands": 1, "new": True}
    assert run_command_line(["run", signed, "--yes"]) == 0
    assert "agentinfo: 1 agent answered, found on 1" in capsys.readouterr().out
    assert run_command_line(["run", signed, "--yes", "-t", "os = 'linux'"]) == 2
    assert "cannot be changed" in capsys.readouterr().err
    for format_name in ("table", "json", "jsonl", "csv"):
        assert run_command_line(["results", action_id, "--format", format_name]) == 0
        printed = capsys.readouterr()
        assert "\\x1b" in printed.out or "\\u001b" in printed.out
        assert ("found on 1" in printed.err) == (format_name == "csv")
    assert run_command_line(["results", action_id, "--wait"]) == 0
    capsys.readouterr()
    assert run_command_line(["action", "show", action_id]) == 0
    assert "agentinfo {}" in capsys.readouterr().out


def test_an_unsigned_action_is_not_submitted(desk: Opponent, template: Path, capsys: Printed) -> None:
    assert run_command_line(["action", "submit", str(template), "--yes"]) == 4
    assert "is not signed: mig action sign" in capsys.readouterr().err


def test_a_new_action_can_be_signed_as_it_is(desk: Opponent, tmp_path: Path, capsys: Printed) -> None:
    path = tmp_path / "new.json"
    assert run_command_line(["action", "new", "agentinfo", "-o", str(path)]) == 0
    assert "mig action sign" in capsys.readouterr().err
    assert run_command_line(["action", "sign", str(path)]) == 0
    assert run_command_line(["action", "new", "-o", str(path)]) == 2


def test_a_module_prints_its_action_without_signing(desk: Opponent, capsys: Printed) -> None:
    assert run_command_line(["agentinfo", "--print", "-t", "name = 'web1'", "--action-name", "who"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "who",
        "operations": [{"module": "agentinfo", "parameters": {}}],
        "syntaxversion": 2,
        "target": "name = 'web1'",
    }


def test_the_ancestors_spelling_of_flags_and_names_is_understood(desk: Opponent, capsys: Printed) -> None:
    assert run_command_line(["filechecker", "-path", "/etc", "-name", "^passwd$", "--print"]) == 0
    operation = json.loads(capsys.readouterr().out)["operations"][0]
    assert operation["module"] == "file"
    assert operation["parameters"]["searches"]["s1"]["names"] == ["^passwd$"]


@pytest.fixture
def verify(ada: Investigator, tmp_path: Path) -> Callable[..., int]:
    message = tmp_path / "message"
    message.write_bytes(b"hello")
    (tmp_path / "cert").write_bytes(ada.public_key)
    (tmp_path / "signature").write_bytes(ada.sign_bytes(b"hello"))

    def run() -> int:
        arguments = ["--cert", str(tmp_path / "cert"), "--signature", str(tmp_path / "signature")]
        return run_command_line(["verify", *arguments, str(message)])

    return run


def test_verify_accepts_what_the_policy_accepts(
    verify: Callable[..., int], ada: Investigator, capsys: Printed
) -> None:
    assert verify() == 0
    assert capsys.readouterr().out == f"accepted {ada.fingerprint}\n"


def test_verify_reads_an_armoured_signature(
    verify: Callable[..., int], ada: Investigator, tmp_path: Path
) -> None:
    armoured = ada.gpg("--digest-algo", "SHA256", "--armor", "--detach-sign", data=b"hello")
    (tmp_path / "signature").write_bytes(armoured)
    assert verify() == 0


def test_verify_refuses_with_a_reason(verify: Callable[..., int], tmp_path: Path, capsys: Printed) -> None:
    (tmp_path / "message").write_bytes(b"other")
    assert verify() == 1
    assert capsys.readouterr().out.startswith("refused: ")
    (tmp_path / "cert").write_bytes(b"nonsense")
    assert verify() == 1
    assert capsys.readouterr().out.startswith("refused: ")


def test_help_is_given_without_a_configuration_and_loads_no_module() -> None:
    code = "import sys; from client.main import run_command_line as run; assert run(['--help']) == 0; "
    code += "assert not [n for n in sys.modules if n.startswith(('agent.modules.', 'urllib3', 'rich'))]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for name in module_names():
        first_line = load_module(name).help.splitlines()[0]
        assert re.search(rf"^  {asked_as(name)} +{re.escape(first_line[:30])}", done.stdout, re.MULTILINE)


def test_a_reader_that_has_enough_costs_no_traceback(desk: Opponent) -> None:
    desk.agents = [SimulatedAgent(f"web{number}") for number in range(2000)]
    command = f"{sys.executable} -c 'from client.main import main; main([\"agents\"])' | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("web0 ")
    assert done.stderr == ""


MIG = [sys.executable, "-c", "from client.main import main; main()"]


def test_ctrl_c_ends_the_waiting_and_not_what_came(desk: Opponent) -> None:
    desk.agents, desk.silent = [SimulatedAgent("web1", FOUND)], [SimulatedAgent("web2")]
    desk.is_released.clear()
    with subprocess.Popen(
        [*MIG, "agentinfo", "--yes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as mig:
        assert mig.stdout is not None
        assert mig.stderr is not None
        assert mig.stdout.readline().startswith(b"web1  id=")
        mig.send_signal(signal.SIGINT)
        assert b"no answer from web2: sent" in mig.stdout.read()
        assert b"no longer waiting; the action goes on: mig results" in mig.stderr.read()
    desk.is_released.set()
    assert mig.returncode == 3


def on_terminal(arguments: list[str], until: bytes, act: Callable[[BinaryIO], Any]) -> tuple[int, bytes]:
    """Run mig with a terminal for standard input and error; act when the screen shows `until`."""
    controller, terminal = pty.openpty()
    command = [*MIG, *arguments]
    with subprocess.Popen(command, stdin=terminal, stderr=terminal, stdout=subprocess.DEVNULL) as mig:
        os.close(terminal)
        screen, has_acted = b"", False
        with contextlib.suppress(OSError), os.fdopen(controller, "rb+", buffering=0) as person:
            while data := person.read(1024):
                screen += data
                if not has_acted and until in screen:
                    act(person)
                    has_acted = True
    return mig.returncode, screen


def test_on_a_terminal_the_number_of_agents_is_shown_and_confirmed(desk: Opponent) -> None:
    desk.agents = [SimulatedAgent("web1", FOUND), SimulatedAgent("web\x1b2", FOUND)]
    arguments = ["agentinfo", "-t", "status = 'online' AND os = 'linux'"]
    code, screen = on_terminal(arguments, b"[y/N]", lambda person: person.write(b"n\n"))
    assert code == 4
    assert b"2 agents would be asked: web1, web\\x1b2" in screen
    assert b"endpoints enforce: os = 'linux'" in screen
    assert desk.question is None
    assert on_terminal(arguments, b"[y/N]", lambda person: person.write(b"y\n"))[0] == 0


def test_more_agents_than_the_server_allows_are_refused_before_anything_is_signed(desk: Opponent) -> None:
    desk.agents = [SimulatedAgent("web1", FOUND), SimulatedAgent("web2", FOUND)]
    desk.max_agents = 1
    code, screen = on_terminal(["agentinfo"], b"[y/N]", lambda person: person.write(b"y\n"))
    assert code == 4
    assert b"too-many-agents: 2 agents match, at most 1 are asked without --all-agents" in screen
    assert desk.question is None
    everybody = ["agentinfo", "--all-agents"]
    assert on_terminal(everybody, b"[y/N]", lambda person: person.write(b"y\n"))[0] == 0
    assert "/api/v1/actions?all=true" in [path for _, path, _, _ in desk.requests]


def test_on_a_terminal_progress_is_shown_while_waiting(desk: Opponent) -> None:
    desk.agents = [SimulatedAgent("web1", FOUND)]
    desk.is_released.clear()
    code, screen = on_terminal(["agentinfo", "--yes"], b"1/1", lambda _: desk.is_released.set())
    assert code == 0
    assert b"answers" in screen
