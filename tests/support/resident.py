"""Agents without a link: the real supervisor, journal and children; deliveries go in by hand."""

import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.config import Baked
from agent.progress import RunningCommand
from agent.runtime.audit import AuditLog
from agent.runtime.digest_cache import open_digest_cache
from agent.runtime.journal import Journal, JournalEntry, expiry_seconds
from agent.runtime.loop import SelectorLoop
from agent.runtime.supervisor import Answer, Supervisor
from agent.runtime.verdict import encode_admitted
from protocol.envelope import ACTION, decode_envelope
from protocol.names import command_id
from protocol.result import Result, decode_result
from tests.support.endpoint import AGENT_ID, FACTS, make_baked, sign_action, utc_now
from tests.support.gpg import Investigator

LONGEST_S = 60.0
ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "tests" / "support" / "modules"
ADMITTED = encode_admitted(
    action_id="00000000-0000-7000-8000-000000000000",
    name="x",
    signers=["A" * 40],
    modules=["agentinfo"],
    expireafter=4_000_000_000,
)


class Agent:
    """A resident without a link: deliveries go in by hand, and answers are collected."""

    def __init__(self, directory: Path, baked: Baked) -> None:
        self.loop = SelectorLoop()
        self.journal = Journal(directory / "journal", clock=utc_now)
        self.answers: list[Answer] = []
        self.progress: list[RunningCommand] = []
        self.acknowledged: list[bytes] = []
        self.audit = AuditLog(directory, clock=utc_now)
        self._digest_cache = open_digest_cache(baked, directory)
        self.supervisor = Supervisor(
            loop=self.loop,
            journal=self.journal,
            baked=baked,
            agent_id=AGENT_ID,
            facts=lambda: FACTS,
            clock=utc_now,
            on_answer=self._keep,
            audit=self.audit,
            on_progress=self._keep_progress,
            digest_cache=self._digest_cache,
        )

    def _keep_progress(self) -> None:
        running = self.supervisor.running
        assert running is not None
        self.progress.append(running)

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
        if self._digest_cache is not None:
            os.close(self._digest_cache)
            self._digest_cache = None
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
