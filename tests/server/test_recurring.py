"""The scheduler on recurring actions and cancels, with a relay in memory and a clock that the test moves."""

from datetime import timedelta
from pathlib import Path

from protocol.action import Action, Operation, encode_action
from protocol.envelope import ACTION, Envelope, Signature, encode_envelope
from protocol.schedule import Schedule, format_occurrence
from tests.server.test_scheduler import Bench, run
from tests.support.broker import AgentKey

ADA = "A" * 40


async def submit_hourly(bench: Bench) -> Action:
    now = bench.time().replace(microsecond=0)
    action = Action(
        id="018f0000-0000-7000-8000-000000000000",
        name="hourly",
        target="id LIKE '%'",
        validfrom=now,
        expireafter=now + timedelta(days=30),
        operations=(Operation(module="agentinfo", parameters={}),),
        syntaxversion=2,
        schedule=Schedule(every_s=3600, grace_s=600),
    )
    envelope = Envelope(ACTION, encode_action(action), (Signature(ADA, b"not checked here"),))
    create, body = bench.store.create_action, encode_envelope(envelope)
    await bench.database.run(create, action, body, envelope.digest, [ADA], ADA, [], now)
    bench.wake.set()
    return action


def sent(bench: Bench, agent: AgentKey, body: bytes) -> int:
    """Return how often a body was sent to an agent."""
    return bench.relay.queues.get(agent.id, []).count(body)


def test_each_occurrence_is_sent_once_and_missed_ones_never(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        action = await submit_hourly(bench)
        body = await bench.body(action)
        await bench.settle()
        assert sent(bench, agent, body) == 0
        await bench.forward(timedelta(hours=1, seconds=3))
        await bench.until_sent(agent, body, 1)
        await bench.forward(timedelta(minutes=5))
        await bench.settle()
        assert sent(bench, agent, body) == 1
        await bench.forward(timedelta(hours=7))
        await bench.until_sent(agent, body, 2)
        await bench.settle()
        assert sent(bench, agent, body) == 2

    run(tmp_path, scenario)


def test_an_agent_that_comes_later_gets_the_occurrence_that_is_due(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        action = await submit_hourly(bench)
        body = await bench.body(action)
        await bench.forward(timedelta(hours=1, seconds=3))
        await bench.until_sent(agent, body, 1)
        late = AgentKey()
        await bench.enrol(late)
        for _ in range(3):
            await bench.scheduler.heard({late.id, agent.id})
        await bench.until_sent(late, body, 1)
        await bench.forward(timedelta(minutes=20))
        later = AgentKey()
        await bench.enrol(later)
        await bench.scheduler.heard({later.id})
        await bench.settle()
        assert [sent(bench, one, body) for one in (agent, late, later)] == [1, 1, 0]
        rows = await bench.database.read(bench.store.list_commands, action.id)
        assert {row.occurrence for row in rows} == {format_occurrence(action.validfrom + timedelta(hours=1))}

    run(tmp_path, scenario)


def test_a_cancel_reaches_the_agents_also_where_the_broker_was_full(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        action = await bench.submit(agent)
        await bench.until_sent(agent, await bench.body(action), 1)
        bench.relay.full.add(agent.id)
        save = bench.store.save_cancel
        await bench.database.run(save, action.id, b"cancel", [ADA], ADA, [agent.id], bench.time())
        bench.wake.set()
        await bench.settle()
        assert sent(bench, agent, b"cancel") == 0
        bench.relay.full.clear()
        bench.wake.set()
        await bench.until_sent(agent, b"cancel", 1)
        await bench.scheduler.welcome(agent.id)
        await bench.until_sent(agent, b"cancel", 2)

    run(tmp_path, scenario)
