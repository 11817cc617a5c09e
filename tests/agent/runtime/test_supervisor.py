"""The supervisor with real children, real signatures and a real journal."""

import os
import resource
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from protocol.envelope import ACTION, decode_envelope
from protocol.result import decode_result
from tests.support.endpoint import AGENT_ID, FACTS, sign_action, utc_now
from tests.support.gpg import Investigator
from tests.support.resident import ROOT, MakeAgent, entry_for, is_alive

# -- the way of an action --------------------------------------------------------------------------------


def test_an_admitted_action_is_run_and_answered_and_stands_in_the_journal(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent(warm_child=True)
    agent.supervisor.start()
    result = agent.ask(sign_action(ada))
    assert result.status == "done"
    assert result.agent == AGENT_ID
    assert result.results[0].records[0]["name"] == FACTS["name"]
    assert len(agent.acknowledged) == 1
    assert agent.journal.state_of(result.action_sha256, "") == "answered"


def test_commands_are_answered_in_the_order_of_their_delivery(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    bodies = [sign_action(ada) for _ in range(3)]
    for body in bodies:
        agent.submit(body)
    agent.run_until_idle()
    digests = [decode_envelope(body, ACTION).digest for body in bodies]
    assert [answer.digest for answer in agent.answers] == digests
    assert agent.acknowledged == bodies


def test_an_agent_without_a_warm_child_answers_too(make_agent: MakeAgent, ada: Investigator) -> None:
    agent = make_agent()
    agent.supervisor.start()
    assert agent.supervisor._child is None
    assert agent.ask(sign_action(ada)).status == "done"
    assert agent.supervisor._child is None


def test_more_than_six_operations_are_all_answered(make_agent: MakeAgent, ada: Investigator) -> None:
    agent = make_agent()
    result = agent.ask(sign_action(ada, operations=[{"module": "agentinfo", "parameters": {}}] * 64))
    assert [answered.status for answered in result.results] == ["ok"] * 64


def test_a_warm_child_that_was_killed_is_replaced(make_agent: MakeAgent, ada: Investigator) -> None:
    agent = make_agent(warm_child=True)
    agent.supervisor.start()
    child = agent.supervisor._child
    assert child is not None
    agent.run_until(lambda: agent.supervisor._is_child_ready)
    os.kill(child.pid, signal.SIGKILL)
    agent.run_until(lambda: agent.supervisor._child is None)
    assert not agent.supervisor._ending
    assert agent.ask(sign_action(ada)).status == "done"


def test_closing_leaves_no_process_behind(make_agent: MakeAgent) -> None:
    agent = make_agent(warm_child=True)
    agent.supervisor.start()
    child = agent.supervisor._child
    assert child is not None
    agent.close()
    assert not is_alive(child.pid)


# -- crashes and full disks ------------------------------------------------------------------------------


def test_what_was_accepted_before_a_crash_goes_through_the_gate_again_and_runs(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    body = sign_action(ada)
    before = make_agent()
    assert before.journal.insert(entry_for(body))
    agent = make_agent()
    agent.supervisor.start()
    agent.run_until_idle()
    (answer,) = agent.answers
    assert decode_result(answer.payload).status == "done"
    assert agent.journal.unanswered() == []


def test_what_was_accepted_before_a_crash_is_refused_where_it_is_no_longer_valid(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    now = utc_now()
    validfrom = (now - timedelta(hours=2)).isoformat()
    expireafter = (now - timedelta(hours=1)).isoformat()
    before = make_agent()
    body = sign_action(ada, validfrom=validfrom, expireafter=expireafter)
    assert before.journal.insert(entry_for(body))
    agent = make_agent()
    agent.supervisor.start()
    agent.run_until_idle()
    (answer,) = agent.answers
    result = decode_result(answer.payload)
    assert result.problem is not None
    assert (result.status, result.problem.code) == ("refused", "expired")
    assert agent.journal.unanswered() == []


def test_what_was_running_in_a_crash_is_answered_interrupted_and_never_runs_again(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    body = sign_action(ada)
    before = make_agent()
    entry = entry_for(body)
    assert before.journal.insert(entry)
    before.journal.mark_started(*entry.key)
    agent = make_agent()
    agent.supervisor.start()
    (answer,) = agent.answers
    result = decode_result(answer.payload)
    assert result.problem is not None
    assert (result.status, result.problem.code) == ("failed", "interrupted")
    assert agent.ask(body).status == "refused"


def test_a_journal_that_cannot_be_written_leaves_the_delivery_unacknowledged_until_it_can(
    make_agent: MakeAgent, ada: Investigator, tmp_path: Path
) -> None:
    agent = make_agent()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "journal").stat().st_size + 10, limits[1]))
    try:
        agent.submit(sign_action(ada))
        agent.run_until(lambda: agent.supervisor.failure is not None)
        assert agent.acknowledged == []
        assert agent.journal.unanswered() == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    agent.run_until(lambda: bool(agent.answers))
    assert decode_result(agent.answers[0].payload).status == "done"
    assert len(agent.acknowledged) == 1


def test_nothing_begins_while_answers_have_nowhere_to_go(make_agent: MakeAgent, ada: Investigator) -> None:
    agent = make_agent()
    agent.supervisor.pause()
    agent.submit(sign_action(ada))
    assert not agent.supervisor.is_idle
    assert agent.acknowledged == []
    assert agent.journal.unanswered() == []
    agent.supervisor.resume()
    agent.run_until(lambda: bool(agent.answers))
    assert len(agent.acknowledged) == 1


def test_a_child_that_cannot_start_leaves_the_delivery_unacknowledged(
    make_agent: MakeAgent, ada: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    startup = SimpleNamespace(pass_fds=(), child_argv=lambda *_words: ["/nowhere/python"])
    monkeypatch.setitem(sys.modules, "mig_startup", startup)
    agent = make_agent()
    agent.submit(sign_action(ada))
    assert "no child can be started" in str(agent.supervisor.failure)
    assert agent.acknowledged == []
    monkeypatch.delitem(sys.modules, "mig_startup")
    agent.run_until(lambda: bool(agent.answers))
    assert decode_result(agent.answers[0].payload).status == "done"


# -- the process itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("imported", "unwanted"),
    [
        ("agent.runtime.supervisor", {"asyncio", "cryptography", "ctypes", "pika"}),
        ("agent.runtime.resident", set()),
    ],
)
def test_the_resident_loads_no_module_and_no_parser_of_hostile_bytes(
    imported: str, unwanted: set[str]
) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {imported}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & (unwanted | {"msgspec", "pgpy", "psutil", "re2", "xxhash", "protocol.openpgp"})
    assert not {name for name in loaded if name.startswith(("agent.modules.", "agent.scan"))}
