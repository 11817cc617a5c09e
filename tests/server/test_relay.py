import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pika
import pytest

from protocol.action import Action
from protocol.command import CommandState
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.names import (
    AGENTS_EXCHANGE,
    DEAD_QUEUE,
    HEARTBEATS_QUEUE,
    RESULTS_QUEUE,
    agent_queue,
    heartbeat_key,
    result_key,
)
from protocol.result import Problem
from server.amqp import Delivery, parse_url
from server.broker import PrivateBroker
from server.parts import utc_now
from server.relay import Relay
from server.shutout import shut_out
from tests.support.broker import AgentKey, server_connection, short_of_memory
from tests.support.relay import (
    PATIENCE_S,
    RelayServer,
    make_config,
    make_heartbeat,
    make_result,
    publish,
    receive,
    receive_command,
    running_server,
    send_heartbeat,
    send_result,
)

pytestmark = pytest.mark.system

Step = Callable[[Any], Any]


async def as_agent(broker: PrivateBroker, agent: AgentKey, *steps: Step) -> list[Any]:
    """Log in as an agent and do some things on the connection, in a thread; return what each gave."""

    def work() -> list[Any]:
        with agent.connection(broker) as connection:
            return [step(connection) for step in steps]

    return await asyncio.to_thread(work)


async def as_server(broker: PrivateBroker, step: Step) -> Any:
    """Do something with the server's account, in a thread."""

    def work() -> Any:
        with server_connection(broker) as connection:
            return step(connection)

    return await asyncio.to_thread(work)


def depth_of(queue: str) -> Step:
    """Return a step that counts the messages ready in a queue."""
    return lambda connection: connection.channel().queue_declare(queue, passive=True).method.message_count


def run(
    broker: PrivateBroker,
    directory: Path,
    scenario: Callable[[RelayServer, AgentKey], Awaitable[None]],
    **options: Any,
) -> None:
    """Run a scenario with a server and one agent that is enrolled."""

    async def whole() -> None:
        async with running_server(broker, directory, **options) as server:
            agent = AgentKey()
            await server.enrol(agent)
            await scenario(server, agent)

    asyncio.run(whole())


def test_a_command_reaches_an_agent_byte_for_byte_and_its_answer_ends_it(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        action = await server.submit(agent)
        answer = make_result(agent, action, await server.digest(action))
        [body, _] = await as_agent(
            clean_broker,
            agent,
            lambda connection: receive_command(connection, agent),
            lambda connection: send_result(connection, agent, answer),
        )
        assert body == await server.body(action)
        await server.until_state(action, agent, CommandState.DONE)
        results = await server.database.read(server.store.list_results, action.id, 0, 10)
        assert [row.envelope for row in results] == [answer]

    run(clean_broker, tmp_path, scenario)


def test_commands_published_while_an_agent_is_offline_arrive_at_its_login(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        actions = [await server.submit(agent) for _ in range(3)]
        for action in actions:
            await server.until_state(action, agent, CommandState.SENT)
        bodies = await as_agent(
            clean_broker, agent, *[lambda connection: receive_command(connection, agent)] * 3
        )
        assert sorted(bodies) == sorted([await server.body(action) for action in actions])

    run(clean_broker, tmp_path, scenario)


def test_a_command_that_the_queue_lost_is_sent_again_at_login_and_only_then(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        action = await server.submit(agent)
        await server.until_state(action, agent, CommandState.SENT)
        await as_agent(clean_broker, agent)  # a login while the queue holds the command
        assert await as_server(clean_broker, depth_of(agent_queue(agent.id))) == 1
        await as_server(
            clean_broker, lambda connection: connection.channel().queue_purge(agent_queue(agent.id))
        )
        [body] = await as_agent(clean_broker, agent, lambda connection: receive_command(connection, agent))
        assert body == await server.body(action)

    run(clean_broker, tmp_path, scenario)


def test_a_command_that_an_agent_holds_is_acknowledged_by_its_heartbeat(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        action = await server.submit(agent)
        heartbeat = make_heartbeat(agent, action)
        await as_agent(clean_broker, agent, lambda connection: send_heartbeat(connection, agent, heartbeat))
        await server.until_state(action, agent, CommandState.ACKNOWLEDGED)
        row = await server.database.read(server.store.get_agent, agent.id)
        assert row is not None
        assert row.name == "test.example"
        assert row.status(utc_now()) == "online"

    run(clean_broker, tmp_path, scenario)


def test_a_refusal_is_kept_with_its_reason(clean_broker: PrivateBroker, tmp_path: Path) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        action = await server.submit(agent)
        problem = Problem(code="acl-refused", step=9, detail="not enough weight")
        digest = await server.digest(action)
        answer = make_result(agent, action, digest, status="refused", problem=problem, results=())
        await as_agent(clean_broker, agent, lambda connection: send_result(connection, agent, answer))
        await server.until_state(action, agent, CommandState.REFUSED)
        [command] = await server.database.read(server.store.list_commands, action.id)
        assert command.problem == problem

    run(clean_broker, tmp_path, scenario)


@pytest.mark.parametrize(
    "body",
    [b"", b"not JSON", b"{}", b"[" * 100_000, b'{"payloadType":1,"payloadType":2}', b"\xff" * 1000],
    ids=["empty", "text", "object", "brackets", "twice", "bytes"],
)
def test_a_malformed_answer_goes_to_the_dead_letters_and_blocks_nobody(
    clean_broker: PrivateBroker, tmp_path: Path, body: bytes
) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        action = await server.submit(agent)
        answer = make_result(agent, action, await server.digest(action))
        await as_agent(
            clean_broker,
            agent,
            lambda connection: send_result(connection, agent, body),
            lambda connection: send_result(connection, agent, answer),
        )
        await server.until_state(action, agent, CommandState.DONE)
        assert await as_server(clean_broker, lambda connection: receive(connection, DEAD_QUEUE)) == body
        assert server.parts.relay.dead.total() == 1

    run(clean_broker, tmp_path, scenario)


def test_an_answer_signed_by_another_agent_is_not_believed(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        liar = AgentKey()
        await server.enrol(liar)
        action = await server.submit(agent, liar)
        digest = await server.digest(action)
        forged = make_result(liar, action, digest, agent=agent.id)
        stolen = make_result(agent, action, digest)
        await as_agent(
            clean_broker,
            liar,
            lambda connection: send_result(connection, liar, forged),
            lambda connection: send_result(connection, liar, stolen),
            lambda connection: send_result(connection, liar, make_result(liar, action, digest)),
        )
        await server.until_state(action, liar, CommandState.DONE)
        assert await server.state(action, agent) is CommandState.SENT
        assert server.parts.relay.dead == {"forbidden": 1, "bad-signature": 1}

    run(clean_broker, tmp_path, scenario)


def test_a_message_brought_by_a_cc_header_is_not_believed_as_another_agents(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        victim = AgentKey()
        await server.enrol(victim)
        action = await server.submit(agent, victim)
        # RabbitMQ routes by CC and BCC without asking about topics.
        stolen = make_result(victim, action, await server.digest(action))
        copies = {"CC": [result_key(victim.id)], "BCC": [heartbeat_key(victim.id)]}
        await as_agent(
            clean_broker,
            agent,
            lambda connection: publish(
                connection, result_key(agent.id), stolen, user_id=agent.id, headers=copies
            ),
        )
        for _ in copies:
            await as_server(clean_broker, partial(receive, queue=DEAD_QUEUE))
        assert await server.state(action, victim) is CommandState.SENT
        assert server.parts.relay.dead == {"bad-signature": 1, "forbidden": 1}

    run(clean_broker, tmp_path, scenario)


def test_an_answer_without_a_user_id_is_not_believed(clean_broker: PrivateBroker, tmp_path: Path) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        action = await server.submit(agent)
        answer = make_result(agent, action, await server.digest(action))
        await as_agent(
            clean_broker,
            agent,
            lambda connection: publish(connection, result_key(agent.id), answer),
        )
        await as_server(clean_broker, lambda connection: receive(connection, DEAD_QUEUE))
        assert await server.state(action, agent) is CommandState.SENT
        assert server.parts.relay.dead == {"forbidden": 1}

    run(clean_broker, tmp_path, scenario)


@pytest.mark.parametrize("has_control", [True, False], ids=["rabbitmqctl", "AMQP only"])
def test_a_revoked_agent_loses_its_connection_and_its_queue(
    clean_broker: PrivateBroker, tmp_path: Path, *, has_control: bool
) -> None:
    config = make_config(clean_broker, tmp_path)
    if not has_control:
        config = msgspec.structs.replace(config, rabbitmqctl="")

    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        action = await server.submit(agent)
        answer = make_result(agent, action, await server.digest(action))
        loop = asyncio.get_running_loop()
        consuming = asyncio.Event()

        def stay(connection: Any) -> None:
            # So the broker keeps that it may; who logs in anew is asked about all the same.
            publish(connection, result_key(agent.id), b"before", user_id=agent.id)
            channel = connection.channel()
            cancelled: list[Any] = []
            channel.add_on_cancel_callback(cancelled.append)
            channel.basic_consume(agent_queue(agent.id), lambda *_: None)
            loop.call_soon_threadsafe(consuming.set)
            while not cancelled:
                connection.process_data_events(1)
            # Only without rabbitmqctl is the connection still there; what it sends is believed nothing.
            publish(connection, result_key(agent.id), answer, user_id=agent.id)

        staying = asyncio.ensure_future(as_agent(clean_broker, agent, stay))
        await consuming.wait()
        await server.database.run(server.store.revoke_agent, agent.id, utc_now())
        async with asyncio.timeout(PATIENCE_S):
            await shut_out(config, [agent.id])
            if has_control:
                closed = pika.exceptions.ConnectionClosedByBroker
                with pytest.raises(closed, match="CONNECTION_FORCED - revoked"):
                    await staying
            else:
                await staying
        dead = [b"before"] if has_control else [b"before", answer]
        for expected in dead:
            assert await as_server(clean_broker, partial(receive, queue=DEAD_QUEUE)) == expected
        assert server.parts.relay.dead["forbidden"] == len(dead) - 1
        with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"):
            await as_agent(clean_broker, agent)
        assert await server.state(action, agent) is CommandState.CANCELLED

    run(clean_broker, tmp_path, scenario)


def test_the_broker_asks_once_about_what_an_agent_does_again_and_again(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        def beat_on_rested_channels(connection: Any) -> None:
            for _ in range(3):  # a new channel knows no more than one that has rested
                publish(connection, heartbeat_key(agent.id), make_heartbeat(agent), user_id=agent.id)

        asked = server.parts.broker_auth.asked
        for logins in (1, 2):
            await as_agent(clean_broker, agent, beat_on_rested_channels)
            assert asked == {"user-twice": 2 * logins, "vhost": 1, "resource": 1, "topic": 1}

    run(clean_broker, tmp_path, scenario)


def test_an_answer_of_a_revoked_agent_is_not_believed(clean_broker: PrivateBroker, tmp_path: Path) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        action = await server.submit(agent)
        answer = make_result(agent, action, await server.digest(action))

        def revoke_and_send(connection: Any) -> None:
            channel = connection.channel()
            channel.confirm_delivery()
            properties = pika.BasicProperties(user_id=agent.id)
            channel.basic_publish(AGENTS_EXCHANGE, result_key(agent.id), b"x", properties)
            server.store.revoke_agent(agent.id, utc_now())  # this channel remembers that it may
            channel.basic_publish(AGENTS_EXCHANGE, result_key(agent.id), answer, properties)

        await as_agent(clean_broker, agent, revoke_and_send)
        for expected in (b"x", answer):
            assert await as_server(clean_broker, partial(receive, queue=DEAD_QUEUE)) == expected
        assert await server.state(action, agent) is CommandState.CANCELLED

    run(clean_broker, tmp_path, scenario)


def test_an_answer_is_acknowledged_only_after_its_commit(clean_broker: PrivateBroker, tmp_path: Path) -> None:
    agent = AgentKey()

    async def until_ready(count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await as_server(clean_broker, depth_of(RESULTS_QUEUE)) != count:
                pass

    async def crash_before_the_commit() -> Action:
        async with running_server(clean_broker, tmp_path) as server:
            await server.enrol(agent)
            action = await server.submit(agent)
            await server.until_state(action, agent, CommandState.SENT)
            answer = make_result(agent, action, await server.digest(action))

            def send(connection: Any) -> None:
                with server.database.writing():  # another writer: nothing else can be committed
                    send_result(connection, agent, answer)
                    asyncio.run_coroutine_threadsafe(crash_with_it(action, server), loop).result(PATIENCE_S)

            loop = asyncio.get_running_loop()
            await as_agent(clean_broker, agent, send)
            return action

    async def crash_with_it(action: Action, server: RelayServer) -> None:
        await until_ready(0)
        assert await server.state(action, agent) is CommandState.SENT
        await server.crash()
        await until_ready(1)

    async def come_back(action: Action) -> None:
        async with running_server(clean_broker, tmp_path) as server:
            await server.until_state(action, agent, CommandState.DONE)
            await until_ready(0)

    asyncio.run(come_back(asyncio.run(crash_before_the_commit())))


def test_what_the_servers_own_account_sends_is_not_believed_as_an_agents(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        action = await server.submit(agent)
        answer = make_result(agent, action, await server.digest(action))
        send = partial(publish, routing_key=result_key(agent.id), body=answer)
        for step in (send, partial(send, user_id="mig-server")):
            await as_server(clean_broker, step)
            await as_server(clean_broker, partial(receive, queue=DEAD_QUEUE))
        assert await server.state(action, agent) is CommandState.SENT
        assert server.parts.relay.dead == {"forbidden": 2}

    run(clean_broker, tmp_path, scenario)


def test_after_a_restart_of_the_broker_the_server_connects_again_and_sends_what_waits(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        kept = await server.submit(agent)
        await server.until_state(kept, agent, CommandState.SENT)
        await asyncio.to_thread(clean_broker.stop)
        waiting = await server.submit(agent)
        assert await server.state(waiting, agent) is CommandState.PENDING
        clean_broker.start()  # from this thread: the node ends with it
        await server.until_state(waiting, agent, CommandState.SENT)
        bodies = await as_agent(
            clean_broker, agent, *[lambda connection: receive_command(connection, agent)] * 2
        )
        assert sorted(bodies) == sorted([await server.body(kept), await server.body(waiting)])

    run(clean_broker, tmp_path, scenario)


def test_a_broker_that_takes_nothing_still_hears_what_was_committed(clean_broker: PrivateBroker) -> None:
    count = 1000  # more than is delivered before something is acknowledged

    def fill(connection: Any) -> None:
        channel = connection.channel()
        channel.confirm_delivery()
        for _ in range(count):
            channel.basic_publish("", HEARTBEATS_QUEUE, b"x")

    async def scenario() -> None:
        may_commit, all_committed, connected = asyncio.Event(), asyncio.Event(), asyncio.Event()
        committed = 0

        async def commit(batch: Sequence[Delivery]) -> Sequence[None]:
            nonlocal committed
            await may_commit.wait()
            committed += len(batch)
            if committed == count:
                all_committed.set()
            return [None] * len(batch)

        relay = Relay([clean_broker.url], clock=utc_now, random=Random(1))  # noqa: S311  (pauses)
        working = asyncio.ensure_future(relay.run({HEARTBEATS_QUEUE: commit}, connected.set))
        async with asyncio.timeout(PATIENCE_S):
            await connected.wait()
            await relay.check()
            await as_server(clean_broker, fill)
            with short_of_memory(clean_broker):
                for _ in range(2):
                    with pytest.raises(EnvironmentFailure, match="broker-full"):
                        await relay.check()
                may_commit.set()
                await all_committed.wait()
                while await as_server(clean_broker, depth_of(HEARTBEATS_QUEUE)):
                    pass
            while True:
                with contextlib.suppress(EnvironmentFailure):
                    await relay.check()
                    break
        working.cancel()
        await asyncio.wait([working])

    asyncio.run(scenario())


def test_a_broker_that_is_away_at_the_start_is_waited_for(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    clean_broker.stop()

    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        action = await server.submit(agent)
        assert not server.parts.relay.is_connected
        clean_broker.start()  # from this thread: the node ends with it
        await server.until_state(action, agent, CommandState.SENT)

    run(clean_broker, tmp_path, scenario, wait=False)


def test_a_queue_of_the_server_that_is_deleted_stands_again(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    async def scenario(server: RelayServer, agent: AgentKey) -> None:
        await as_server(clean_broker, lambda connection: connection.channel().queue_delete(RESULTS_QUEUE))
        action = await server.submit(agent)
        answer = make_result(agent, action, await server.digest(action))
        await server.until_state(action, agent, CommandState.SENT)
        await as_agent(clean_broker, agent, lambda connection: send_result(connection, agent, answer))
        await server.until_state(action, agent, CommandState.DONE)

    run(clean_broker, tmp_path, scenario)


def test_queues_that_stand_with_other_limits_are_used_as_they_are(
    clean_broker: PrivateBroker, tmp_path: Path
) -> None:
    agent = AgentKey()
    with server_connection(clean_broker) as connection:
        channel = connection.channel()
        for queue in (HEARTBEATS_QUEUE, agent_queue(agent.id)):
            channel.queue_declare(queue, durable=True, arguments={"x-max-length": 17})

    async def scenario(server: RelayServer, _other: AgentKey) -> None:
        await server.enrol(agent)
        action = await server.submit(agent)
        await server.until_state(action, agent, CommandState.SENT)
        heartbeat = make_heartbeat(agent, action)
        await as_agent(clean_broker, agent, lambda connection: send_heartbeat(connection, agent, heartbeat))
        await server.until_state(action, agent, CommandState.ACKNOWLEDGED)

    run(clean_broker, tmp_path, scenario)


def test_a_full_queue_holds_up_no_other_agent(clean_broker: PrivateBroker, tmp_path: Path) -> None:
    full, other = AgentKey(), AgentKey()
    with server_connection(clean_broker) as connection:
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        connection.channel().queue_declare(agent_queue(full.id), durable=True, arguments=arguments)

    async def scenario(server: RelayServer, _agent: AgentKey) -> None:
        await server.enrol(full, other)
        taken = await server.submit(full)
        await server.until_state(taken, full, CommandState.SENT)
        refused = await server.submit(full)
        last = await server.submit(full, other)
        await server.until_state(last, other, CommandState.SENT)
        assert await server.state(refused, full) is CommandState.PENDING
        answer = make_result(full, taken, await server.digest(taken))
        await as_agent(
            clean_broker,
            full,
            lambda connection: receive_command(connection, full),
            lambda connection: send_result(connection, full, answer),
        )
        await server.until_state(taken, full, CommandState.DONE)
        await as_agent(clean_broker, full)  # a login: there is room now
        await server.until_state(refused, full, CommandState.SENT)

    run(clean_broker, tmp_path, scenario)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/mig", "", "127.0.0.1", "amqp://h:99999/x", "amqp://h/x?frame_max=a"]
)
def test_a_relay_that_is_no_amqp_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(InvalidInput, match="bad-config: relay: "):
        parse_url(url)


def test_a_queue_that_goes_while_the_server_sets_up_is_waited_for(clean_broker: PrivateBroker) -> None:
    queue = "mig.late"

    async def handle(batch: Sequence[Delivery]) -> Sequence[str | None]:
        return [None] * len(batch)

    async def scenario() -> None:
        relay = Relay([clean_broker.url], clock=utc_now, random=Random(1))  # noqa: S311  (pauses)
        running = asyncio.ensure_future(relay.run({queue: handle}, lambda: None))
        assert not await relay.wait_connected(1.0)
        assert not running.done()
        await as_server(clean_broker, lambda link: link.channel().queue_declare(queue, durable=True))
        assert await relay.wait_connected(PATIENCE_S)
        running.cancel()
        await asyncio.wait([running])
        await as_server(clean_broker, lambda link: link.channel().queue_delete(queue))

    asyncio.run(scenario())


def test_a_message_that_no_handler_can_deal_with_holds_up_no_other(clean_broker: PrivateBroker) -> None:
    handled: list[bytes] = []
    attempts = 0

    async def handle(batch: Sequence[Delivery]) -> Sequence[str | None]:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise EnvironmentFailure("database-away", retryable=True)
        if any(delivery.body == b"poison" for delivery in batch):
            raise ZeroDivisionError
        handled.extend(delivery.body for delivery in batch)
        if b"last" in handled:
            finished.set()
        return [None] * len(batch)

    async def scenario() -> None:
        relay = Relay([clean_broker.url], clock=utc_now, random=Random(1))  # noqa: S311  (pauses)
        running = asyncio.ensure_future(relay.run({RESULTS_QUEUE: handle}, lambda: None))
        assert await relay.wait_connected(PATIENCE_S)
        for body in (b"first", b"poison", b"middle", b"last"):
            await as_server(clean_broker, partial(publish, routing_key=result_key("any"), body=body))
        async with asyncio.timeout(PATIENCE_S):
            await finished.wait()
        assert await as_server(clean_broker, partial(receive, queue=DEAD_QUEUE)) == b"poison"
        assert relay.dead == {"bad-document": 1}
        running.cancel()
        await asyncio.wait([running])

    finished = asyncio.Event()
    asyncio.run(scenario())
    assert handled == [b"first", b"middle", b"last"]
