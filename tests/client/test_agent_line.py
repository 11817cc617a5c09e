"""What `mig agents` says of one agent on its line."""

from typing import Any

import pytest

from client.command_agents import _agent_line
from protocol.documents import Agent, AgentStatus
from protocol.heartbeat import TrustStanding


def line(**members: Any) -> str:
    return _agent_line(Agent(id="0" * 32, name="web1", status=AgentStatus.ONLINE, **members))


def test_a_wrong_clock_is_shown_and_a_good_one_is_not() -> None:
    assert "clock off by -7200 s" in line(clock_skew_s=-7200.4)
    for skew in (None, 0.0, 299.0):
        assert "clock" not in _agent_line(
            Agent(id="0" * 32, name="web1", status=AgentStatus.ONLINE, clock_skew_s=skew)
        )


@pytest.mark.parametrize(
    ("version", "state", "said"),
    [
        (None, None, "  trust unknown  "),
        (None, "missing", "  trust missing  "),
        (2, "in-force", "  trust 2  "),
        (2, "expired", "  trust 2 expired  "),
        (0, "expired", "  trust 0 expired  "),
    ],
)
def test_trust_that_has_expired_is_shown(version: int | None, state: TrustStanding | None, said: str) -> None:
    agent = Agent(
        id="0" * 32, name="web1", status=AgentStatus.ONLINE, trust_version=version, trust_state=state
    )
    assert said in _agent_line(agent)
