"""The supervisor with real children, real signatures and a real journal."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentLimits, Baked
from agent.runtime.journal import Journal
from agent.runtime.loop import SelectorLoop
from agent.runtime.supervisor import Answer, Supervisor
from protocol.errors import EnvironmentFailure
from protocol.result import Result, decode_result
from tests.support.endpoint import AGENT_ID, FACTS, make_baked, sign_action, utc_now
from tests.support.gpg import Investigator

LONGEST_S = 60.0


class Agent:
    """A resident without a link: deliveries go in by hand, and answers are collected."""

    def __init__(self, directory: Path, baked: Baked) -> None:
        self.loop = SelectorLoop()
        self.journal = Journal(directory / "journal", clock=utc_now)
        self.answers: list[Answer] = []
        self.acknowledged: list[bytes] = []
        self.supervisor = Supervisor(
            loop=self.loop,
            journal=self.journal,
            baked=baked,
            agent_id=AGENT_ID,
            facts=lambda: FACTS,
            clock=utc_now,
            on_answer=self._keep,
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
        self.journal.close()
        self.loop.close()


MakeAgent = Callable[..., Agent]


@pytest.fixture
def make_agent(tmp_path: Path, ada: Investigator) -> Iterator[MakeAgent]:
    tmp_path.chmod(0o700)
    made: list[Agent] = []

    def make(**config: Any) -> Agent:
        made.append(Agent(tmp_path, make_baked([ada], **config)))
        return made[-1]

    yield make
    for agent in made:
        agent.close()


def test_an_admitted_action_is_run_and_answered_and_stands_in_the_journal(
    make_agent: MakeAgent, ada: Investigator
) -> None:
    agent = make_agent()
    agent.supervisor.start()
    result = agent.ask(sign_action(ada))
    assert result.status == "done"
    assert result.agent == AGENT_ID
    assert result.results[0].records[0]["name"] == FACTS["name"]
    assert len(agent.acknowledged) == 1
    assert agent.journal.state_of(result.action_sha256, "") == "answered"
