import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest

from protocol.action import Action
from protocol.command import CommandState
from protocol.heartbeat import Heartbeat
from protocol.names import command_id
from protocol.result import OperationResult, Result
from server.checking import facts_of
from server.database import Database
from server.events import Events, Wake
from server.parts import utc_now
from server.rows import PendingCommand, ReceivedResult
from server.scheduler import RESEND_AFTER, RETRY_S, Scheduler
from server.store import Store
from server.store_commands import ANSWER_GRACE
from tests.support.broker import AgentKey
from tests.support.database import migrated_database
from tests.support.relay import PATIENCE_S, Operator


class MemoryRelay:
    """A relay whose queues are lists: they keep what they take, and can refuse, lose and go away."""

    def __init__(self) -> None:
        self.is_connected = True
        self.queues: dict[str, list[bytes]] = {}
        self.full: set[str] = set()

    async def publish(self, commands: Sequence[PendingCommand]) -> frozenset[str]:
        """Take what fits."""
        taken = [command for command in commands if command.agent_id not in self.full]
        for command in taken:
            self.queues.setdefault(command.agent_id, []).append(command.body)
        return frozenset(command.id for command in taken)

    async def declare_agent_queue(self, agent_id: str) -> int:
        """Return how many commands are in a queue."""
        return len(self.queues.setdefault(agent_id, []))


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = utc_now()

    def __call__(self) -> datetime:
        return self.now


class Bench(Operator):
    """A scheduler with a real store, a relay in memory and a clock that stands."""

    def __init__(self, database: Database, relay: MemoryRelay) -> None:
        self.time = Clock()
        super().__init__(database, Store(database), Events(), Wake(), self.time)
        self.relay = relay
        self.scheduler = Scheduler(
            database=database,
            store=self.store,
            events=self.events,
            relay=relay,
            wake=self.wake,
            clock=self.time,
            on_sent=lambda _command_ids: None,
        )

    async def settle(self) -> None:
        """Wait until the scheduler has emptied the outbox: a last command of somebody else is sent."""
        last = AgentKey()
        await self.enrol(last)
        await self.until_state(await self.submit(last, expires_s=10 * 86400), last, CommandState.SENT)

    async def until_sent(self, agent: AgentKey, body: bytes, times: int) -> None:
        """Wait until a body was sent to an agent so often."""
        async with asyncio.timeout(PATIENCE_S):
            while self.relay.queues.get(agent.id, []).count(body) < times:  # noqa: ASYNC110  (a list tells nobody)
                await asyncio.sleep(0)

    async def answer(
        self, action: Action, agent: AgentKey, status: Literal["done", "failed", "refused"] = "done"
    ) -> None:
        """Store the agent's answer, and tell, as the intake does."""
        now = self.time()
        result = Result(
            action=action.id,
            action_sha256=await self.digest(action),
            occurrence="",
            agent=agent.id,
            started=now,
            finished=now,
            status=status,
            results=(OperationResult(found=False, status="ok"),) if status == "done" else (),
        )
        received = ReceivedResult(agent_id=agent.id, envelope_bytes=b"{}", digest="", facts=facts_of(result))
        self.events.publish(await self.database.run(self.store.save_results, [received], now))

    async def forward(self, delta: timedelta) -> None:
        """Let time pass, and let the scheduler look at the clock."""
        self.time.now += delta
        self.wake.set()

    async def acknowledge(self, action: Action, agent: AgentKey) -> None:
        """Say that the agent has the command in its journal."""
        now = self.time()
        heartbeat = Heartbeat(
            agent=agent.id,
            name="test",
            os="linux",
            arch="amd64",
            ident="test",
            version="0",
            time=now,
            started=now,
            tags={},
            environment={},
            modules=(),
            commands=(command_id(action.id, agent.id, ""),),
        )
        await self.database.run(self.store.save_heartbeat, heartbeat, now)


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[Bench]:
    """Run a scheduler for as long as the block lasts."""
    database = migrated_database(f"sqlite:///{directory / 'mig.sqlite'}")
    bench = Bench(database, MemoryRelay())
    task = asyncio.ensure_future(bench.scheduler.run())
    try:
        yield bench
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])
        database.close()


def run(directory: Path, scenario: Callable[[Bench, AgentKey], Awaitable[None]]) -> None:
    """Run a scenario with a scheduler and an agent that is enrolled."""

    async def whole() -> None:
        async with running(directory) as bench:
            agent = AgentKey()
            await bench.enrol(agent)
            await scenario(bench, agent)

    asyncio.run(whole())


def test_a_new_action_is_published_and_its_command_sent(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        action = await bench.submit(agent)
        await bench.until_state(action, agent, CommandState.SENT)
        assert bench.relay.queues == {agent.id: [await bench.body(action)]}

    run(tmp_path, scenario)


@pytest.mark.slow
def test_more_commands_than_one_batch_are_all_published(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        agents = [agent, *(AgentKey() for _ in range(600))]
        await bench.enrol(*agents)
        action = await bench.submit(*agents)
        last = max(agents, key=lambda each: command_id(action.id, each.id, ""))
        await bench.until_state(action, last, CommandState.SENT)
        assert {len(queue) for queue in bench.relay.queues.values()} == {1}
        assert len(bench.relay.queues) == 601

    run(tmp_path, scenario)


def test_what_waits_for_the_broker_is_published_when_it_comes(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        bench.relay.is_connected = False
        action = await bench.submit(agent)
        assert await bench.state(action, agent) is CommandState.PENDING
        bench.relay.is_connected = True
        bench.scheduler.connected()
        await bench.until_state(action, agent, CommandState.SENT)

    run(tmp_path, scenario)


@pytest.mark.parametrize("held", [False, True], ids=["not started", "acknowledged"])
def test_a_command_whose_time_is_over_expires(tmp_path: Path, held: bool) -> None:  # noqa: FBT001
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        action = await bench.submit(agent)
        await bench.until_state(action, agent, CommandState.SENT)
        if held:
            await bench.acknowledge(action, agent)
            await bench.forward(timedelta(seconds=301))
            bystander = await bench.submit(agent)
            await bench.until_state(bystander, agent, CommandState.SENT)
            assert await bench.state(action, agent) is CommandState.ACKNOWLEDGED
        await bench.forward(timedelta(seconds=301) + (ANSWER_GRACE if held else timedelta()))
        await bench.until_state(action, agent, CommandState.EXPIRED)

    run(tmp_path, scenario)


def test_expiry_comes_by_the_clock_with_nobody_asking(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        bench.relay.is_connected = False
        later = await bench.submit(agent, expires_s=3600)
        sooner = await bench.submit(agent, expires_s=0.2)
        bench.time.now += timedelta(seconds=1)  # without waking anybody: the timer was set for 0.2 s
        await bench.until_state(sooner, agent, CommandState.EXPIRED)
        assert await bench.state(later, agent) is CommandState.PENDING

    run(tmp_path, scenario)


def test_a_login_sends_again_only_what_the_queue_has_lost(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        actions = [await bench.submit(agent) for _ in range(2)]
        for action in actions:
            await bench.until_state(action, agent, CommandState.SENT)
        await bench.forward(timedelta(seconds=1))
        await bench.scheduler.welcome(agent.id)
        assert len(bench.relay.queues[agent.id]) == 2
        bench.relay.queues[agent.id].clear()
        await bench.scheduler.welcome(agent.id)
        await bench.settle()
        assert sorted(bench.relay.queues[agent.id]) == sorted([await bench.body(each) for each in actions])

    run(tmp_path, scenario)


def test_a_login_does_not_repeat_what_the_agent_holds_or_has_answered(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        held, answered = await bench.submit(agent), await bench.submit(agent)
        for action in (held, answered):
            await bench.until_state(action, agent, CommandState.SENT)
        await bench.acknowledge(held, agent)
        await bench.answer(answered, agent)
        bench.relay.queues[agent.id].clear()
        await bench.forward(timedelta(seconds=1))
        await bench.scheduler.welcome(agent.id)
        await bench.settle()
        assert bench.relay.queues[agent.id] == []

    run(tmp_path, scenario)


@pytest.mark.slow
def test_heartbeats_send_again_after_a_while_and_then_ever_more_rarely(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        action = await bench.submit(agent, expires_s=86400)
        await bench.until_state(action, agent, CommandState.SENT)
        sent_after = []
        for minute in range(60):
            bench.relay.queues[agent.id].clear()  # the agent takes it, and says nothing
            await bench.forward(timedelta(minutes=1))
            await bench.scheduler.heard([agent.id])
            await bench.settle()
            if bench.relay.queues[agent.id]:
                sent_after.append(minute + 1)
        pauses = [after - before for before, after in pairwise([0, *sent_after])]
        assert pauses[0] == RESEND_AFTER // timedelta(minutes=1) + 1
        assert pauses == sorted(pauses)
        assert len(pauses) == 4

    run(tmp_path, scenario)


@pytest.mark.slow
def test_a_heartbeat_leaves_alone_what_still_stands_in_the_queue(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        action = await bench.submit(agent, expires_s=86400)
        await bench.until_state(action, agent, CommandState.SENT)
        for _ in range(10):
            await bench.forward(timedelta(minutes=10))
            await bench.scheduler.heard([agent.id])
            await bench.settle()
        assert len(bench.relay.queues[agent.id]) == 1

    run(tmp_path, scenario)


def test_a_refused_command_is_tried_again_later_and_holds_up_no_other(tmp_path: Path) -> None:
    async def scenario(bench: Bench, agent: AgentKey) -> None:
        other = AgentKey()
        await bench.enrol(other)
        bench.relay.full.add(agent.id)
        refused = await bench.submit(agent)
        passed = await bench.submit(other)
        await bench.until_state(passed, other, CommandState.SENT)
        assert await bench.state(refused, agent) is CommandState.PENDING
        bench.relay.full.clear()
        await bench.forward(timedelta(seconds=RETRY_S + 1))
        await bench.until_state(refused, agent, CommandState.SENT)

    run(tmp_path, scenario)


def test_a_server_that_died_before_marking_a_command_sent_sends_it_again(tmp_path: Path) -> None:
    agent = AgentKey()

    async def first() -> Action:
        async with running(tmp_path) as bench:
            await bench.enrol(agent)
            bench.relay.is_connected = False
            return await bench.submit(agent)

    async def second(action: Action) -> None:
        async with running(tmp_path) as bench:
            bench.scheduler.connected()
            await bench.until_state(action, agent, CommandState.SENT)

    asyncio.run(second(asyncio.run(first())))
