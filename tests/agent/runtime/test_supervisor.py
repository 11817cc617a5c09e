"""The supervisor with real children, real signatures and a real journal."""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.config import AgentLimits, Baked
from agent.runtime import frames
from agent.runtime.audit import AuditLog
from agent.runtime.journal import Journal, JournalEntry, expiry_seconds
from agent.runtime.loop import SelectorLoop
from agent.runtime.supervisor import Answer, Supervisor
from agent.runtime.verdict import encode_admitted
from protocol.envelope import ACTION, HEARTBEAT, Envelope, decode_envelope, encode_envelope
from protocol.errors import InvalidInput
from protocol.names import command_id
from protocol.result import Result, decode_result
from tests.support.endpoint import AGENT_ID, FACTS, make_baked, sign_action, utc_now
from tests.support.gpg import Investigator

LONGEST_S = 60.0
ROOT = Path(__file__).resolve().parents[3]
MODULES = ROOT / "tests" / "support" / "modules"


class Agent:
    """A resident without a link: deliveries go in by hand, and answers are collected."""

    def __init__(self, directory: Path, baked: Baked) -> None:
        self.loop = SelectorLoop()
        self.journal = Journal(directory / "journal", clock=utc_now)
        self.answers: list[Answer] = []
        self.acknowledged: list[bytes] = []
        self.audit = AuditLog(directory, clock=utc_now)
        self.supervisor = Supervisor(
            loop=self.loop,
            journal=self.journal,
            baked=baked,
            agent_id=AGENT_ID,
            facts=lambda: FACTS,
            clock=utc_now,
            on_answer=self._keep,
            audit=self.audit,
        )

    def _keep(self, answer: Answer) -> None:
        self.answers.append(answer)
        if not answer.is_refusal:
            self.journal.mark_answered(answer.digest, answer.occurrence)

    def submit(self, body: bytes) -> None:
        self.supervisor.submit(body, lambda: self.acknowledged.append(body))

    def run_until(self, is_done: Callable[[], bool]) -> None:
        over: list[bool] = []
        timer = self.loop.call_later(LONGEST_S, lambda: over.append(True))
        self.loop.run_until(lambda: is_done() or bool(over))
        self.loop.cancel(timer)
        assert is_done(), f"nothing came of it in {LONGEST_S} s"

    def run_until_idle(self) -> None:
        self.run_until(lambda: self.supervisor.is_idle)

    def ask(self, body: bytes) -> Result:
        """Submit one delivery and return the one answer to it."""
        before = len(self.answers)
        self.submit(body)
        self.run_until_idle()
        (answer,) = self.answers[before:]
        return decode_result(answer.payload)

    def close(self) -> None:
        self.supervisor.close()
        self.audit.close()
        self.journal.close()
        self.loop.close()


MakeAgent = Callable[..., Agent]


@pytest.fixture
def make_agent(tmp_path: Path, ada: Investigator) -> Iterator[MakeAgent]:
    tmp_path.chmod(0o700)
    made: list[Agent] = []

    def make(*, warm_child: bool = False, **config: Any) -> Agent:
        for earlier in made:
            earlier.close()
        made.append(Agent(tmp_path, make_baked([ada], warm_child=warm_child, **config)))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start children that also have the modules of tests/support/modules, by the seam that the zip uses."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import agent.modules; "
        f"agent.modules.__path__.append({str(MODULES)!r}); from agent.main import main; main()"
    )
    startup = SimpleNamespace(
        pass_fds=(), child_argv=lambda *words: [sys.executable, "-I", "-B", "-c", code, *words]
    )
    monkeypatch.setitem(sys.modules, "mig_startup", startup)


def in_trouble(ada: Investigator, how: str, path: Path | str = "") -> bytes:
    operation = {"module": "trouble", "parameters": {"how": how, "path": str(path)}}
    return sign_action(ada, operations=[operation])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def poll_until(is_done: Callable[[], bool]) -> None:
    """Wait for what no descriptor tells: that a process is gone, or that another one wrote a file."""
    end = time.monotonic() + LONGEST_S
    while not is_done():
        assert time.monotonic() < end
        select.select([], [], [], 0.01)


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


# -- what is refused -------------------------------------------------------------------------------------


def test_a_replayed_action_is_refused_once_and_never_runs_again(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    body = sign_action(ada)
    agent.ask(body)
    refused = agent.ask(body)
    assert refused.status == "refused"
    assert refused.problem is not None
    assert (refused.problem.step, refused.problem.code) == (6, "replayed")
    agent.submit(body)
    agent.run_until_idle()
    assert len(agent.answers) == 2
    assert agent.acknowledged == [body] * 3


def test_what_is_delivered_again_before_it_ran_is_acknowledged_each_time_and_runs_once(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    first, second = sign_action(ada), sign_action(ada)
    for body in (first, second, first, second, second):
        agent.submit(body)
    agent.run_until_idle()
    assert [decode_result(answer.payload).status for answer in agent.answers] == ["done", "done"]
    assert sorted(agent.acknowledged) == sorted([first, second, first, second, second])


@pytest.mark.usefixtures("trouble")
def test_what_is_delivered_again_while_it_runs_is_acknowledged_at_once(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent(limits=AgentLimits(wall_s=1))
    body = in_trouble(ada, "dawdle")
    agent.submit(body)
    agent.run_until(lambda: agent.acknowledged == [body])
    agent.submit(body)
    assert agent.acknowledged == [body, body]
    agent.run_until_idle()
    assert [decode_result(answer.payload).status for answer in agent.answers] == ["done"]


def test_the_same_payload_in_another_envelope_is_a_replay(
    make_agent: MakeAgent, ada: Investigator, bob: Investigator
) -> None:
    agent = make_agent()
    body = sign_action(ada)
    agent.ask(body)
    again = sign_action(ada, bob, payload=decode_envelope(body, ACTION).payload)
    refused = agent.ask(again)
    assert refused.problem is not None
    assert refused.problem.code == "replayed"


def test_deliveries_that_nobody_trusted_made_are_counted_and_never_answered(
    make_agent: MakeAgent, ada: Investigator, bob: Investigator
) -> None:
    agent = make_agent()
    hostile = [
        bytes(100 << 20),
        b"[" * 100_000,
        b"{}",
        encode_envelope(ada.sign(HEARTBEAT, b"{}")),
        encode_envelope(Envelope(ACTION, b"{}", ())),
        sign_action(bob),
    ]
    for body in hostile:
        agent.submit(body)
    agent.run_until_idle()
    assert agent.answers == []
    assert len(agent.acknowledged) == len(hostile)
    assert agent.journal.unanswered() == []


def test_a_later_refusal_is_answered_once_with_its_step_and_leaves_no_trace_in_the_journal(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    body = sign_action(ada, target="os = 'windows'")
    refused = agent.ask(body)
    assert refused.problem is not None
    assert (refused.problem.step, refused.problem.code) == (7, "not-targeted")
    agent.submit(body)
    agent.run_until_idle()
    assert len(agent.answers) == 1
    assert len(agent.acknowledged) == 2
    assert agent.journal.state_of(refused.action_sha256, "") is None


def test_an_action_refused_for_want_of_weight_runs_when_it_comes_with_a_second_signature(
    tmp_path: Path, ada: Investigator, bob: Investigator
) -> None:
    tmp_path.chmod(0o700)
    weights = {ada.fingerprint: 1, bob.fingerprint: 1}
    agent = Agent(
        tmp_path, make_baked([ada, bob], acl={"default": {"minimum_weight": 2, "investigators": weights}})
    )
    body = sign_action(ada)
    refused = agent.ask(body)
    assert refused.problem is not None
    assert (refused.problem.step, refused.problem.code) == (9, "acl-refused")
    both = sign_action(ada, bob, payload=decode_envelope(body, ACTION).payload)
    assert agent.ask(both).status == "done"
    agent.close()


# -- children in trouble ---------------------------------------------------------------------------------


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


@pytest.mark.usefixtures("trouble")
def test_a_delivery_whose_judging_ends_the_child_twice_is_dropped_and_the_next_is_served(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    fatal = sign_action(ada, operations=[{"module": "fatal", "parameters": {}}])
    agent.submit(fatal)
    agent.run_until_idle()
    assert agent.acknowledged == [fatal]
    assert agent.answers == []
    assert agent.supervisor.refused_silently == 1
    assert agent.ask(sign_action(ada)).status == "done"


@pytest.mark.usefixtures("trouble")
def test_an_accepted_action_whose_judging_ends_the_child_twice_is_answered_failed(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    fatal = sign_action(ada, operations=[{"module": "fatal", "parameters": {}}])
    assert make_agent().journal.insert(entry_for(fatal))
    agent = make_agent()
    agent.supervisor.start()
    agent.run_until_idle()
    (answer,) = agent.answers
    result = decode_result(answer.payload)
    assert result.problem is not None
    assert (result.status, result.problem.code) == ("failed", "child-failed")


ADMITTED = encode_admitted(
    action_id="00000000-0000-7000-8000-000000000000",
    name="x",
    signers=["A" * 40],
    modules=["agentinfo"],
    expireafter=4_000_000_000,
)


@pytest.mark.parametrize(
    "said",
    [
        b"garbage",
        frames.encode_frame(frames.READY, b'{"refusal":""}') + frames.encode_frame(frames.ANSWER, b"[]"),
        frames.encode_frame(frames.READY, b'{"refusal":""}') + frames.encode_frame(frames.VERDICT, b"{}"),
        frames.encode_frame(frames.READY, b'{"refusal":""}') + frames.HEADER.pack(frames.ANSWER, 1 << 30),
        frames.encode_frame(frames.READY, b'{"refusal":""}') + frames.encode_frame(frames.PERMIT),
    ],
    ids=["garbage", "answer before the permission", "no verdict", "too long", "a frame of the resident's"],
)
def test_a_child_that_is_out_of_control_gets_no_permission_and_no_answer_out(
    said: bytes, make_agent: MakeAgent, ada: Investigator, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"import os; os.write(1, {said!r}); os.read(0, 1 << 20); os.read(0, 1)"
    startup = SimpleNamespace(pass_fds=(), child_argv=lambda *_words: [sys.executable, "-I", "-c", code])
    monkeypatch.setitem(sys.modules, "mig_startup", startup)
    agent = make_agent()
    agent.submit(sign_action(ada))
    agent.run_until(lambda: agent.supervisor.is_idle or agent.supervisor.failure is not None)
    assert agent.answers == []
    assert agent.journal.unanswered() == []


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


def test_a_warm_child_that_was_killed_is_replaced(make_agent: MakeAgent, ada: Investigator) -> None:
    agent = make_agent(warm_child=True)
    agent.supervisor.start()
    child = agent.supervisor._child
    assert child is not None
    agent.run_until(lambda: agent.supervisor._is_child_ready)
    os.kill(child.pid, signal.SIGKILL)
    agent.run_until(lambda: agent.supervisor._child is None)
    assert agent.ask(sign_action(ada)).status == "done"


def test_closing_leaves_no_process_behind(make_agent: MakeAgent) -> None:
    agent = make_agent(warm_child=True)
    agent.supervisor.start()
    child = agent.supervisor._child
    assert child is not None
    agent.close()
    assert not is_alive(child.pid)


# -- crashes and full disks ------------------------------------------------------------------------------


def entry_for(body: bytes, **changes: Any) -> JournalEntry:
    envelope = decode_envelope(body, ACTION)
    action = json.loads(envelope.payload)
    entry = JournalEntry(
        digest=envelope.digest,
        occurrence="",
        command_id=command_id(action["id"], AGENT_ID, ""),
        action_id=action["id"],
        name=action["name"],
        signers=(),
        modules=("agentinfo",),
        expireafter=expiry_seconds(utc_now() + timedelta(days=1)),
        envelope=body,
    )
    return entry._replace(**changes)


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
