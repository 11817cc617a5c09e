"""The scheduler on paced actions, with a relay in memory and a clock that the test moves."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from protocol.action import Action
from protocol.command import CommandState
from protocol.documents import Campaign, Pacing
from tests.server.test_scheduler import Bench, run, running
from tests.support.broker import AgentKey
from tests.support.relay import PATIENCE_S


async def fleet(bench: Bench, count: int) -> list[AgentKey]:
    agents = [AgentKey() for _ in range(count)]
    await bench.enrol(*agents)
    return agents


async def until_sent(bench: Bench, action: Action, agents: Sequence[AgentKey], count: int) -> list[AgentKey]:
    """Wait until so many of some agents were sent an action, and return them."""
    body = await bench.body(action)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            sent = [agent for agent in agents if body in bench.relay.queues.get(agent.id, [])]
            if len(sent) >= count:
                break
            await asyncio.sleep(0)
    await bench.settle()
    sent = [agent for agent in agents if body in bench.relay.queues.get(agent.id, [])]
    assert len(sent) == count
    for agent in sent:
        await bench.until_state(action, agent, CommandState.SENT, CommandState.DONE, CommandState.FAILED)
    return sent


async def standing(bench: Bench, action: Action) -> Campaign:
    campaign = await bench.database.read(bench.store.get_campaign, action.id)
    assert campaign is not None
    return campaign


@pytest.mark.slow
def test_the_next_wave_goes_out_when_the_one_before_has_answered(tmp_path: Path) -> None:
    async def scenario(bench: Bench, _agent: AgentKey) -> None:
        agents = await fleet(bench, 6)
        action = await bench.submit(*agents, pacing=Pacing(waves=(1, 2)))
        first = await until_sent(bench, action, agents, 1)
        await bench.answer(action, first[0])
        second = await until_sent(bench, action, agents, 3)
        for agent in second:
            await bench.answer(action, agent)
        await until_sent(bench, action, agents, 6)
        assert (await standing(bench, action)).state == "ended"

    run(tmp_path, scenario)


def test_a_wave_that_is_silent_is_passed_by_the_clock(tmp_path: Path) -> None:
    async def scenario(bench: Bench, _agent: AgentKey) -> None:
        agents = await fleet(bench, 3)
        action = await bench.submit(*agents, pacing=Pacing(waves=(1,), wave_wait_s=30))
        await until_sent(bench, action, agents, 1)
        await bench.forward(timedelta(seconds=31))
        await until_sent(bench, action, agents, 3)

    run(tmp_path, scenario)


@pytest.mark.slow
def test_a_failing_first_agent_stops_it_all_and_followers_hear_of_it(tmp_path: Path) -> None:
    async def scenario(bench: Bench, _agent: AgentKey) -> None:
        agents = await fleet(bench, 5)
        action = await bench.submit(*agents, pacing=Pacing(waves=(1,), stop_at=20))
        [first] = await until_sent(bench, action, agents, 1)
        await bench.answer(action, first, "failed")
        for agent in agents:
            if agent is not first:
                await bench.until_state(action, agent, CommandState.CANCELLED)
        assert (await standing(bench, action)).state == "stopped"
        await bench.settle()
        assert len(await until_sent(bench, action, agents, 1)) == 1

    run(tmp_path, scenario)


def test_nothing_is_let_out_while_the_broker_is_away(tmp_path: Path) -> None:
    async def scenario(bench: Bench, _agent: AgentKey) -> None:
        agents = await fleet(bench, 3)
        bench.relay.is_connected = False
        action = await bench.submit(*agents, pacing=Pacing(rate=0.1))
        await bench.forward(timedelta(seconds=25))
        assert (await standing(bench, action)).held == 3
        bench.relay.is_connected = True
        bench.scheduler.connected()
        await until_sent(bench, action, agents, 1)
        await bench.forward(timedelta(seconds=10))
        await until_sent(bench, action, agents, 2)

    run(tmp_path, scenario)


@pytest.mark.slow
def test_a_campaign_goes_on_where_a_server_died(tmp_path: Path) -> None:
    agents = [AgentKey() for _ in range(4)]

    async def first() -> Action:
        async with running(tmp_path) as bench:
            await bench.enrol(*agents)
            action = await bench.submit(*agents, pacing=Pacing(waves=(1, 1)))
            sent = await until_sent(bench, action, agents, 1)
            bench.relay.is_connected = False
            await bench.answer(action, sent[0])
            return action

    async def second(action: Action) -> None:
        async with running(tmp_path) as bench:
            bench.scheduler.connected()  # as at every start: the first server may have let out the next wave
            [sent] = await until_sent(bench, action, agents, 1)
            await bench.answer(action, sent)
            await until_sent(bench, action, agents, 3)

    asyncio.run(second(asyncio.run(first())))


def test_an_action_like_any_other_passes_one_that_is_held_back(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        agents = await fleet(bench, 5)
        await bench.submit(*agents, pacing=Pacing(waves=(1,)))
        quick = await bench.submit(agent, *agents)
        await until_sent(bench, quick, [agent, *agents], 6)

    run(tmp_path, scenario)
