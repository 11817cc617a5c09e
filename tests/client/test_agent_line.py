"""What `mig agents` says of one agent on its line."""

from client.command_agents import _agent_line
from client.documents import Agent


def test_a_wrong_clock_is_shown_and_a_good_one_is_not() -> None:
    agent = Agent(id="0" * 32, name="web1", status="online", clock_skew_s=-7200.4)
    assert "clock off by -7200 s" in _agent_line(agent)
    for skew in (None, 0.0, 299.0):
        assert "clock" not in _agent_line(Agent(id="0" * 32, name="web1", status="online", clock_skew_s=skew))
