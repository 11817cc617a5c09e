"""What runs: its time, its limits, its end, with real children and real signatures."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.config import AgentLimits
from agent.runtime import frames
from protocol.errors import InvalidInput
from protocol.result import decode_result
from tests.support.endpoint import make_baked, sign_action
from tests.support.gpg import Investigator
from tests.support.resident import ADMITTED, Agent, MakeAgent, in_trouble, is_alive, poll_until


@pytest.mark.usefixtures("trouble")
def test_a_child_that_dies_is_answered_failed_and_the_next_command_is_served(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    failed = agent.ask(in_trouble(ada, "die"))
    assert failed.status == "failed"
    assert failed.problem is not None
    assert failed.problem.code == "child-failed"
    assert "signal 9" in failed.problem.detail
    assert agent.ask(sign_action(ada)).status == "done"


@pytest.mark.usefixtures("trouble")
def test_a_hanging_child_is_killed_with_all_that_it_forked(
    make_agent: MakeAgent, ada: Investigator, tmp_path: Path
) -> None:
    agent = make_agent(limits=AgentLimits(wall_s=1))
    result = agent.ask(in_trouble(ada, "fork", tmp_path / "pids"))
    assert result.status == "timed-out"
    assert result.problem is not None
    assert result.problem.code == "timed-out"
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    poll_until(lambda: not any(is_alive(pid) for pid in pids))


@pytest.mark.usefixtures("trouble")
def test_a_worker_that_a_module_leaves_behind_is_killed_when_the_command_is_answered(
    make_agent: MakeAgent, ada: Investigator, tmp_path: Path
) -> None:
    agent = make_agent()
    assert agent.ask(in_trouble(ada, "abandon", tmp_path / "pid")).status == "done"
    worker = int((tmp_path / "pid").read_text())
    poll_until(lambda: not is_alive(worker))


@pytest.mark.usefixtures("trouble")
def test_a_module_that_ends_itself_in_time_sends_what_it_has(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent(limits=AgentLimits(wall_s=1))
    result = agent.ask(in_trouble(ada, "dawdle"))
    assert result.status == "done"
    assert result.results[0].status == "timed-out"
    assert result.results[0].truncated
    assert result.results[0].records


@pytest.mark.usefixtures("trouble")
@pytest.mark.system
def test_processor_time_is_limited_and_the_answer_says_so(make_agent: MakeAgent, ada: Investigator) -> None:
    agent = make_agent(limits=AgentLimits(cpu_s=1))
    result = agent.ask(in_trouble(ada, "spin"))
    assert result.status == "failed"
    assert result.problem is not None
    assert result.problem.code == "over-limit"


@pytest.mark.usefixtures("trouble")
def test_memory_is_limited_and_the_other_operations_are_answered(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent(limits=AgentLimits(memory_bytes=256 << 20))
    operations = [
        {"module": "trouble", "parameters": {"how": "hoard"}},
        {"module": "agentinfo", "parameters": {}},
    ]
    result = agent.ask(sign_action(ada, operations=operations))
    assert [answered.status for answered in result.results] == ["failed", "ok"]
    assert "MemoryError" in result.results[0].notes[0]


@pytest.mark.usefixtures("trouble")
def test_a_module_writes_no_file_of_size(make_agent: MakeAgent, ada: Investigator, tmp_path: Path) -> None:
    result = make_agent().ask(in_trouble(ada, "write", tmp_path / "large"))
    assert result.results[0].status == "failed"
    assert (tmp_path / "large").stat().st_size <= 1 << 20


@pytest.mark.usefixtures("trouble")
def test_output_over_the_limit_is_cut_and_said(make_agent: MakeAgent, ada: Investigator) -> None:
    agent = make_agent()
    operation = {"module": "trouble", "parameters": {"how": "flood"}}
    result = agent.ask(sign_action(ada, operations=[operation, operation]))
    assert [answered.status for answered in result.results] == ["limit", "limit"]
    assert all(answered.truncated and answered.notes for answered in result.results)
    assert len(agent.answers[-1].payload) <= 1 << 20


@pytest.mark.usefixtures("trouble")
@pytest.mark.parametrize("how", ["raise", "unsendable"])
def test_a_module_that_fails_is_its_own_operations_answer(
    make_agent: MakeAgent, ada: Investigator, how: str
) -> None:
    result = make_agent().ask(in_trouble(ada, how))
    assert result.status == "done"
    assert result.results[0].status == "failed"


@pytest.mark.usefixtures("trouble")
def test_a_child_is_bound_before_it_reads_a_delivery(make_agent: MakeAgent, ada: Investigator) -> None:
    agent = make_agent(limits=AgentLimits(cpu_s=77, open_files=128, memory_bytes=512 << 20))
    bounds = agent.ask(in_trouble(ada, "bounds")).results[0].records[0]["value"]
    assert bounds["umask"] == 0o077
    assert bounds["cwd"] == "/"
    assert set(bounds["environment"]) <= {"LC_CTYPE"}  # which Python itself sets
    assert bounds["leads_session"]
    assert bounds["nice"] == 19
    assert bounds["core"] == [0, 0]
    assert (bounds["open_files"], bounds["cpu_s"], bounds["data_bytes"]) == (128, 77, 512 << 20)
    assert bounds["descriptors"] == ["/dev/null", "/dev/null"]


def test_a_child_out_of_control_cannot_change_what_the_resident_says(
    make_agent: MakeAgent, ada: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = frames.encode_frame(frames.READY, b'{"refusal":""}')
    said = ready + frames.encode_frame(frames.VERDICT, ADMITTED)
    answer = frames.encode_frame(frames.ANSWER, b'[],"agent":"' + b"f" * 32 + b'"')
    code = (
        f"import os; os.write(1, {said!r}); data = b''\n"
        "while b'P\\0\\0\\0\\0' not in data: data += os.read(0, 65536)\n"
        f"os.write(1, {answer!r}); os.read(0, 1)"
    )
    startup = SimpleNamespace(pass_fds=(), child_argv=lambda *_words: [sys.executable, "-I", "-c", code])
    monkeypatch.setitem(sys.modules, "mig_startup", startup)
    agent = make_agent()
    agent.submit(sign_action(ada))
    agent.run_until(lambda: bool(agent.answers))
    with pytest.raises(InvalidInput, match="duplicate key 'agent'"):
        decode_result(agent.answers[0].payload)


@pytest.mark.usefixtures("trouble")
def test_what_runs_says_how_far_it_is(make_agent: MakeAgent, ada: Investigator) -> None:
    agent = make_agent()
    agent.submit(in_trouble(ada, "count"))
    agent.run_until(lambda: bool(agent.progress))
    running = agent.supervisor.running
    assert running is not None
    assert running.progress is not None
    assert running.progress.operation == 0
    assert set(running.progress.statistics) == {"files_seen", "bytes_read"}
    assert [entry.command_id for entry in agent.journal.unanswered()] == [running.command_id]


@pytest.mark.usefixtures("trouble")
def test_a_child_that_babbles_of_progress_is_killed_and_costs_no_more_than_its_command(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent(limits=AgentLimits(wall_s=20))
    result = agent.ask(in_trouble(ada, "babble"))
    assert result.problem is not None
    assert (result.status, result.problem.code) == ("failed", "child-failed")
    assert 20 <= len(agent.progress) <= 24
    assert all(running.progress is None for running in agent.progress)
    assert agent.ask(sign_action(ada)).status == "done"


@pytest.mark.usefixtures("trouble")
def test_a_child_dies_with_its_resident(tmp_path: Path, ada: Investigator) -> None:
    tmp_path.chmod(0o700)
    resident = os.fork()
    if resident == 0:
        try:
            agent = Agent(tmp_path, make_baked([ada]))
            agent.ask(in_trouble(ada, "hang", tmp_path / "pid"))
        finally:
            os._exit(1)
    pid_file = tmp_path / "pid"
    poll_until(lambda: pid_file.exists() and pid_file.read_text() != "")
    child = int(pid_file.read_text())
    assert is_alive(child)
    os.kill(resident, signal.SIGKILL)
    os.waitpid(resident, 0)
    poll_until(lambda: not is_alive(child))
