"""Modules run locally: in a child that is limited, can be cancelled and leaves nothing behind."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import agent.modules
from agent import registry
from agent.local import read_operations, run_local, run_operations
from protocol.action import Operation
from protocol.errors import InvalidInput
from tests.support.endpoint import sign_action
from tests.support.gpg import Investigator
from tests.support.resident import is_alive, poll_until

MODULES = str(Path(__file__).resolve().parents[1] / "support" / "modules")


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.modules, "__path__", [*agent.modules.__path__, MODULES])
    monkeypatch.setattr(registry, "module_names", lambda: ("agentinfo", "trouble"))


def run_trouble(how: str, path: Path | str = "", **arguments: Any) -> dict[str, Any]:
    return run_local("trouble", {"how": how, "path": str(path)}, **arguments)


def test_a_module_runs_with_the_facts_it_is_given() -> None:
    assert run_local("agentinfo", {}, facts={"name": "here"})["records"][0]["name"] == "here"


def test_a_module_runs_with_this_machines_facts_when_given_none() -> None:
    assert run_local("agentinfo", {})["records"][0]["name"] == os.uname().nodename


def test_an_unknown_module_is_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown-module"):
        run_local("nosuch", {})


def test_parameters_that_do_not_decode_are_the_answer() -> None:
    assert run_local("agentinfo", {"x": 1})["status"] == "invalid-parameters"


@pytest.mark.usefixtures("trouble")
def test_a_module_that_dies_is_an_answer() -> None:
    result = run_trouble("die")
    assert result["status"] == "failed"
    assert "ended with -9" in result["notes"][0]


@pytest.mark.slow
@pytest.mark.usefixtures("trouble")
def test_a_module_that_hangs_is_killed_with_its_workers(tmp_path: Path) -> None:
    result = run_trouble("fork", tmp_path / "pids", wall_s=0.2)
    assert result["status"] == "timed-out"
    child, worker = (int(word) for word in (tmp_path / "pids").read_text().split())
    assert not is_alive(child)
    poll_until(lambda: not is_alive(worker))


@pytest.mark.slow
@pytest.mark.usefixtures("trouble")
def test_a_module_that_ends_itself_in_time_is_answered_with_what_it_has() -> None:
    result = run_trouble("dawdle", wall_s=0.2)
    assert result["status"] == "timed-out"
    assert result["records"]


@pytest.mark.slow
@pytest.mark.usefixtures("trouble")
def test_a_module_that_counts_is_heard_on_the_way_and_answers_as_ever() -> None:
    told: list[Any] = []
    result = run_trouble("count", wall_s=1.5, on_progress=lambda statistics: told.append(dict(statistics)))
    assert result["status"] == "timed-out"
    assert told
    assert all(one["files_seen"] > 0 for one in told)


@pytest.mark.slow
@pytest.mark.usefixtures("trouble")
def test_how_far_a_module_was_that_died_is_no_answer() -> None:
    told: list[Any] = []
    result = run_trouble("count-and-die", on_progress=told.append)
    assert told
    assert result["status"] == "failed"
    assert "ended with -9" in result["notes"][0]


@pytest.mark.slow
@pytest.mark.usefixtures("trouble")
def test_ctrl_c_ends_the_module_and_what_it_found_stands() -> None:
    runner = os.fork()  # a process with one thread, as a client is
    if runner == 0:
        os._exit(0 if _is_cancelled_with_records() else 1)
    _, status = os.waitpid(runner, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def _is_cancelled_with_records() -> bool:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    result = run_trouble("dawdle")
    return result["status"] == "cancelled" and bool(result["records"])


@pytest.mark.usefixtures("trouble")
def test_the_child_dies_with_its_caller(tmp_path: Path) -> None:
    caller, child = hang(tmp_path)
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    poll_until(lambda: not is_alive(child))


@pytest.mark.usefixtures("trouble")
def test_the_child_gives_way_in_a_session_of_its_own_and_leaves_the_callers_alone(tmp_path: Path) -> None:
    caller, child = hang(tmp_path)
    priorities = [os.getpriority(os.PRIO_PROCESS, pid) for pid in (caller, child)]
    sessions = [os.getsid(pid) for pid in (caller, child)]
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    assert sessions == [os.getsid(0), child]
    assert priorities == [os.nice(0), 19]


def hang(directory: Path) -> tuple[int, int]:
    """Return a process that runs a module which hangs, and the process that this one runs in."""
    caller = os.fork()
    if caller == 0:
        try:
            run_trouble("hang", directory / "pid")
        finally:
            os._exit(1)
    pid_file = directory / "pid"
    poll_until(lambda: pid_file.exists() and pid_file.read_text() != "")
    return caller, int(pid_file.read_text())


def test_the_operations_of_signed_and_unsigned_actions_are_read(ada: Investigator) -> None:
    assert read_operations(sign_action(ada)) == (Operation(module="agentinfo", parameters={}),)
    assert read_operations(b'{"operations": [{"module": "file", "parameters": {"a": 1}}]}') == (
        Operation(module="file", parameters={"a": 1}),
    )


def test_an_operation_here_waits_for_the_one_that_it_depends_on_as_on_an_endpoint() -> None:
    nothing = {"searches": {"s": {"paths": ["/etc/passwd"], "names": ["^x$"]}}}
    results = run_operations(
        (
            Operation(module="file", parameters=nothing),
            Operation(module="agentinfo", parameters={}, when="found"),
            Operation(module="agentinfo", parameters={}, when="not-found", of=0),
        )
    )
    said = [(one["status"], one["found"], one["notes"]) for one in results]
    assert said == [
        ("ok", False, []),
        ("skipped", False, ["not run: operation 0 found nothing"]),
        ("ok", True, []),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"operations": {}}',
        b'{"operations": []}',
        b'{"operations": [{"module": "file"}]}',
        b'{"operations": [{"module": "../x", "parameters": {}}]}',
        b'{"operations": [{"module": "file", "parameters": {}, "x": 1}]}',
        b'{"operations": [{"module": "file", "parameters": {}, "when": "found"}]}',
    ],
)
def test_what_has_no_operations_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="bad-action"):
        read_operations(body)
