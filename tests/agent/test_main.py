"""The command line of mig-agent, run as its users run it."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.endpoint import make_action, make_baked, sign_action
from tests.support.gpg import Investigator
from tests.support.tree import ROOT, AgentTree


@pytest.fixture
def tree(tmp_path: Path, ada: Investigator) -> AgentTree:
    return AgentTree(tmp_path, make_baked([ada], tags={"operator": "it"}), [ada])


def write(tree: AgentTree, body: bytes) -> str:
    path = tree.directory / "action.json"
    path.write_bytes(body)
    return str(path)


def outcome(done: "subprocess.CompletedProcess[bytes]") -> tuple[int, str]:
    """Return exit code and standard error, which holds one line at most and never a traceback."""
    said = done.stderr.decode()
    assert said.count("\n") <= 1, said
    return done.returncode, said


# -- module ----------------------------------------------------------------------------------------------


def test_a_module_prints_one_result_as_json(tree: AgentTree) -> None:
    done = tree.run("module", "agentinfo")
    assert outcome(done) == (0, "")
    result = json.loads(done.stdout)
    assert result["found"]
    assert result["records"][0]["modules"]


def test_a_modules_help_says_what_it_answers_and_the_parameters_that_it_takes(tree: AgentTree) -> None:
    done = tree.run("module", "filechecker", "--help")
    assert outcome(done) == (0, "")
    text = done.stdout.decode()
    assert text.startswith("file: Find files by name")
    for said in (
        "  searches: ",
        "(needed)",
        "    paths: ",
        "    xattrs: ",
        "      matchall: ",
        "      remotefs: ",
    ):
        assert said in text
    assert max(map(len, text.splitlines())) <= 120
    assert b"usage: mig-agent module" in tree.run("module", "--help").stdout
    assert outcome(tree.run("module", "nothing", "--help"))[0] == 2


def test_a_module_reads_its_parameters_from_a_file_or_standard_input(tree: AgentTree) -> None:
    search = {"searches": {"s": {"paths": ["/etc"], "names": ["^passwd$"], "options": {"maxdepth": 1}}}}
    parameters = json.dumps(search).encode()
    from_input = tree.run("module", "file", "--params", "-", data=parameters)
    from_file = tree.run("module", "file", "--params", write(tree, parameters))
    paths = [
        [record["path"] for record in json.loads(done.stdout)["records"]] for done in (from_input, from_file)
    ]
    assert paths == [["/etc/passwd"]] * 2


def test_nothing_is_loaded_that_the_interpreter_has_itself_by_now() -> None:
    # It takes longer to load than all of the scan core.
    code = (
        f"import atexit, sys; sys.path.insert(0, {str(ROOT)!r});"
        "atexit.register(lambda: print(sys.modules['typing_extensions'], file=sys.stderr));"
        "from agent.main import main; main(['module', 'agentinfo'])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout)["found"]
    assert done.stderr == b"None\n"


def test_a_module_that_finds_nothing_exits_1(tree: AgentTree) -> None:
    search = {"searches": {"s": {"paths": ["/etc"], "names": ["^no such name$"], "options": {"maxdepth": 1}}}}
    done = tree.run("module", "file", "--params", "-", data=json.dumps(search).encode())
    assert outcome(done) == (1, "")


@pytest.mark.parametrize(
    ("words", "data", "code", "said"),
    [
        (["module", "nosuch"], b"", 2, "mig-agent: unknown-module: 'nosuch'"),
        (["module", "agentinfo", "--params", "-"], b'{"x": 1}', 2, "mig-agent: bad-parameters: "),
        (["module", "agentinfo", "--params", "-"], b'{"x": NaN}', 4, "mig-agent: bad-json: "),
        (["module", "agentinfo", "--params", "-"], b"[" * 100_000, 4, "mig-agent: bad-json: "),
        (["module", "agentinfo", "--params", "-"], b" " * (100 << 20), 4, "mig-agent: too-large: "),
        (["module", "agentinfo", "--params", "/nowhere"], b"", 2, "mig-agent: not-found: /nowhere: "),
        (["module"], b"", 2, "mig-agent: usage: "),
        (["nosuch"], b"", 2, "mig-agent: usage: "),
        (["run"], b"", 2, "mig-agent: usage: "),
        (["verify", "/nowhere"], b"", 2, "mig-agent: not-found: "),
        (["action", "--unsigned-local", "-"], b"[]", 4, "mig-agent: bad-action: operations"),
        (["action", "--unsigned-local", "-"], b'{"operations": []}', 4, "mig-agent: bad-action: "),
    ],
)
def test_bad_input_gives_one_clear_line_and_an_exit_code(
    words: list[str], data: bytes, code: int, said: str, tree: AgentTree
) -> None:
    exit_code, error = outcome(tree.run(*words, data=data))
    assert exit_code == code
    assert error.startswith(said)


def test_hostile_text_reaches_no_terminal(tree: AgentTree) -> None:
    _, error = outcome(tree.run("module", "\x1b]0;owned\x07"))
    assert "\x1b" not in error
    assert "\x07" not in error


# -- action and verify -----------------------------------------------------------------------------------


def state(tree: AgentTree) -> list[str]:
    return ["--state-dir", str(tree.state)]


def test_a_signed_action_runs_once_through_gate_and_journal(tree: AgentTree, ada: Investigator) -> None:
    path = write(tree, sign_action(ada, target="tags->>'operator' = 'it'"))
    done = tree.run("action", path, *state(tree))
    assert outcome(done) == (0, "")
    result = json.loads(done.stdout)
    assert result["status"] == "done"
    assert result["results"][0]["records"][0]["id"] == result["agent"]
    code, error = outcome(tree.run("action", path, *state(tree)))
    assert code == 4
    assert error.startswith("mig-agent: replayed: ")
    log = [json.loads(line) for line in tree.run("log", "--json", *state(tree)).stdout.splitlines()]
    assert [(entry["kind"], entry["who"]) for entry in log] == [
        ("asked", [ada.fingerprint]),
        ("answered", []),
    ]
    told = tree.run("log", *state(tree)).stdout.decode()
    assert f"{ada.fingerprint}) asked" in told
    assert f"(action {result['action']})" in told
    checked = tree.run("log", "--verify", *state(tree))
    assert outcome(checked) == (0, "")
    assert checked.stdout == b"2 entries in one chain; 1 actions kept with good signatures\n"


@pytest.mark.parametrize(
    ("changes", "step", "code"),
    [
        ({"target": "os = 'plan9'"}, 7, "not-targeted"),
        ({"operations": [{"module": "nosuch", "parameters": {}}]}, 8, "unknown-module"),
        ({"expireafter": "2020-01-01T00:00:00Z", "validfrom": "2019-12-31T00:00:00Z"}, 5, "expired"),
        ({"surprise": 1}, 4, "bad-action"),
    ],
)
def test_verify_prints_each_step_up_to_the_refusal(
    changes: dict[str, Any], step: int, code: str, tree: AgentTree, ada: Investigator
) -> None:
    done = tree.run("verify", write(tree, sign_action(ada, **changes)), *state(tree))
    assert outcome(done) == (4, "")
    judge, *lines = done.stdout.decode().splitlines()
    assert judge == "judged by trust bundle 0, built in"
    assert [line.split()[0] for line in lines] == [str(number) for number in range(1, 11)]
    assert [line.split()[-1] for line in lines[: step - 1]] == ["ok"] * (step - 1)
    assert f"refused: {code}: " in lines[step - 1]
    assert all(line.endswith("not reached") for line in lines[step:])
    assert not tree.state.exists()


def test_verify_accepts_what_would_run_and_refuses_it_after_it_ran(
    tree: AgentTree, ada: Investigator
) -> None:
    path = write(tree, sign_action(ada))
    assert tree.run("verify", path, *state(tree)).returncode == 0
    assert tree.run("action", path, *state(tree)).returncode == 0
    done = tree.run("verify", path, *state(tree))
    assert done.returncode == 4
    assert " 6 replay     refused: replayed: " in done.stdout.decode()


def test_an_action_that_nobody_trusted_signed_is_refused(tree: AgentTree, bob: Investigator) -> None:
    code, error = outcome(tree.run("action", write(tree, sign_action(bob)), *state(tree)))
    assert code == 4
    assert error.startswith("mig-agent: unsigned: ")


def test_an_action_is_not_run_beside_a_resident_on_the_same_state(tree: AgentTree, ada: Investigator) -> None:
    tree.state.mkdir(mode=0o700)
    with (tree.state / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, error = outcome(tree.run("action", write(tree, sign_action(ada)), *state(tree)))
    assert code == 2
    assert error.startswith("mig-agent: state-in-use: ")


def test_an_unsigned_action_runs_only_when_asked_for_and_in_the_ancestors_words_too(
    tree: AgentTree,
) -> None:
    action = make_action(
        operations=[
            {"module": "agentinfo", "parameters": {}},
            {
                "module": "filechecker",
                "parameters": {"searches": {"s": {"path": "/etc", "name": "^passwd$"}}},
            },
        ]
    )
    path = write(tree, json.dumps(action).encode())
    assert tree.run("action", path, *state(tree)).returncode == 4
    done = tree.run("action", path, "--unsigned-local")
    assert outcome(done) == (0, "")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["found"] for result in results] == [True, True]
    assert not (tree.state / "journal").exists()


# -- the rest --------------------------------------------------------------------------------------------


def test_version_and_config_say_what_is_baked_in(tree: AgentTree, ada: Investigator) -> None:
    assert tree.run("version").stdout == b"mig-agent 1.2.3 (build " + b"f" * 64 + b")\n"
    shown = json.loads(tree.run("config").stdout)
    assert shown["trusted_keys"] == [ada.fingerprint]
    assert shown["tags"] == {"operator": "it"}


def test_an_agent_whose_baked_files_are_damaged_says_so(tree: AgentTree) -> None:
    (tree.directory / "agent" / "baked" / "config.json").write_text("{")
    code, error = outcome(tree.run("version"))
    assert code == 2
    assert error.startswith("mig-agent: bad-config: ")


def test_output_that_nobody_reads_is_no_error(tree: AgentTree) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(tree.argv("version"), stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert outcome(done) == (0, "")
