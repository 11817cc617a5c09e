"""What a monitoring system is told."""

import asyncio
import http.client
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from protocol.command import CommandState
from protocol.errors import EnvironmentFailure
from server.broker import PrivateBroker
from server.config import Listen
from server.front import Front, listen_on
from server.metrics import MeteredApp, Meters, MetricsApp, Standing
from server.store import Store
from server.webhooks import HookStanding
from tests.support.broker import AgentKey
from tests.support.fleet import FleetAgent, create, make_action
from tests.support.ports import free_port
from tests.support.relay import (
    make_result,
    receive_command,
    running_server,
    send_result,
)

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parse(text: str) -> Figures:
    """Return each figure by its name and labels, as a monitoring system reads them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def ask(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()


async def scrape(app: Any, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    """Serve an application on a free port for one request."""
    with listen_on(Listen(host="127.0.0.1", port=free_port())) as listener:
        front = Front(app, listener, lifespan=False)
        serving = asyncio.ensure_future(front.run())
        try:
            return await asyncio.to_thread(ask, listener.getsockname()[1], path, method)
        finally:
            front.stop()
            await serving


async def one(value: dict[str, int]) -> dict[str, int]:
    return value


async def hooks(value: dict[str, HookStanding]) -> dict[str, HookStanding]:
    return value


async def away() -> dict[str, int]:
    raise EnvironmentFailure("database-away", retryable=True)


async def silent() -> dict[str, int]:
    await asyncio.Event().wait()
    return {}


def standing(**changed: Any) -> Standing:
    members: dict[str, Any] = {
        "agents": lambda: one({"online": 3}),
        "commands": lambda: one({"pending": 2}),
        "queue_depths": lambda queues: one(dict.fromkeys(queues, 7)),
        "dead": {"bad-signature": 4},
        "denied": {"replayed": 5},
        "questions": {"topic": 7},
        "followers": lambda: 1,
        "version": "1.2.3",
        "webhooks": lambda: hooks({"siem": HookStanding(6, 1, "HTTP status 500")}),
        "deliveries": {"delivered": 8},
    }
    return Standing(**{**members, **changed})


@pytest.mark.slow
def test_everything_is_told_in_the_format_that_monitoring_systems_read() -> None:
    status, text = asyncio.run(scrape(MetricsApp(Meters(), standing())))
    figures = parse(text)
    assert status == 200
    assert figures["mig_agents", (("status", "online"),)] == 3
    assert figures["mig_open_commands", (("state", "pending"),)] == 2
    assert figures["mig_queue_messages", (("queue", "mig.results"),)] == 7
    assert figures["mig_refused_messages_total", (("code", "bad-signature"),)] == 4
    assert figures["mig_denied_logins_total", (("code", "replayed"),)] == 5
    assert figures["mig_broker_questions_total", (("about", "topic"),)] == 7
    assert figures["mig_build_info", (("version", "1.2.3"),)] == 1
    assert figures["mig_followers", ()] == 1
    assert (figures["mig_database_up", ()], figures["mig_broker_up", ()]) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "down", "missing"),
    [
        ({"agents": away}, "mig_database_up", "mig_agents"),
        ({"commands": silent, "patience_s": 0.1}, "mig_database_up", "mig_agents"),
        ({"queue_depths": lambda _queues: away()}, "mig_broker_up", "mig_queue_messages"),
        (
            {"queue_depths": lambda _queues: silent(), "patience_s": 0.1},
            "mig_broker_up",
            "mig_queue_messages",
        ),
    ],
)
def test_what_is_away_is_said_and_its_figures_are_missing(
    changed: dict[str, Any], down: str, missing: str
) -> None:
    figures = parse(asyncio.run(scrape(MetricsApp(Meters(), standing(**changed))))[1])
    assert figures[down, ()] == 0
    assert not [name for name, _ in figures if name == missing]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), [("/", "GET"), ("/metrics", "POST"), ("/metrics/x", "GET")])
def test_nothing_else_is_served(path: str, method: str) -> None:
    assert asyncio.run(scrape(MetricsApp(Meters(), standing()), path, method))[0] == 404


@pytest.mark.slow
def test_the_time_of_an_answer_counts_from_when_the_command_went_out() -> None:
    ticks = iter([10.0, 10.2])
    meters = Meters(monotonic=lambda: next(ticks))
    meters.sent(["a", "b"])
    meters.answered({"a": "done", "unknown": "failed"})
    figures = parse(asyncio.run(scrape(MetricsApp(meters, standing())))[1])
    assert figures["mig_answer_seconds_count", ()] == 1
    assert figures["mig_answer_seconds_sum", ()] == pytest.approx(0.2)
    assert figures["mig_answers_total", (("state", "done"),)] == 1


@pytest.mark.slow
def test_a_client_cannot_make_labels_of_its_own() -> None:
    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    meters = Meters()
    app = MeteredApp(refuse, meters)
    for path, method in (("/api/v1/made-up", "GET"), ("/another", "BREW")):
        assert asyncio.run(scrape(app, path, method))[0] == 404
    figures = parse(asyncio.run(scrape(MetricsApp(meters, standing())))[1])
    labels = {labels for name, labels in figures if name == "mig_request_seconds_count"}
    assert labels == {
        (("method", "GET"), ("route", "none"), ("status", "404")),
        (("method", "other"), ("route", "none"), ("status", "404")),
    }


@pytest.fixture
def fleet(store: Store) -> Store:
    online = FleetAgent(store, "online", now=NOW)
    FleetAgent(store, "idle", now=NOW - timedelta(minutes=5))
    FleetAgent(store, "offline", now=NOW - timedelta(hours=1))
    FleetAgent(store, "waiting", now=NOW, policy="approval")
    create(store, make_action(now=NOW), online, now=NOW)
    return store


def test_agents_and_commands_are_counted_as_they_are_shown(fleet: Store) -> None:
    shown: dict[str, int] = {}
    for agent in fleet.find_agents(None, NOW, 100, 0)[1]:
        status = agent.status(NOW).value
        shown[status] = shown.get(status, 0) + 1
    counted = fleet.count_agents(NOW)
    assert {status: count for status, count in counted.items() if count} == shown
    assert fleet.count_open_commands() == {"acknowledged": 0, "pending": 1, "sent": 0}


@pytest.mark.system
def test_a_real_server_tells_what_it_did(broker: PrivateBroker, tmp_path: Path) -> None:
    async def story() -> Figures:
        agent = AgentKey()
        async with running_server(broker, tmp_path) as server:
            await server.enrol(agent)
            action = await server.submit(agent)
            answer = make_result(agent, action, await server.digest(action))

            def take_part() -> None:
                with agent.connection(broker) as connection:
                    assert receive_command(connection, agent)
                    send_result(connection, agent, answer)

            await asyncio.to_thread(take_part)
            await server.until_state(action, agent, CommandState.DONE)
            return parse((await scrape(server.parts.metrics))[1])

    figures = asyncio.run(story())
    assert figures["mig_answers_total", (("state", "done"),)] == 1
    assert figures["mig_answer_seconds_count", ()] == 1
    assert figures["mig_received_total", (("kind", "result"),)] == 1
    assert figures["mig_queue_messages", (("queue", "mig.results"),)] == 0
    assert figures["mig_broker_up", ()] == 1
