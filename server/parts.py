"""The parts of one server, put together: who knows whom."""

import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any

from protocol.names import ALERTS_QUEUE, HEARTBEATS_QUEUE, RESULTS_QUEUE, server_queue
from protocol.version import VERSION
from server.alert_intake import AlertIntake
from server.amqp import parse_url
from server.bell import Bell
from server.brokerauth import BrokerAuth
from server.config import ServerConfig
from server.database import Database
from server.events import Events, Wake
from server.floods import CutOff
from server.health import HealthCheck
from server.inflow import Handler
from server.intake import Intake
from server.metrics import Meters, MetricsApp, Standing
from server.neighbours import Neighbours
from server.notices import NOTICE_KEY_FILE, Notices, load_notice_key
from server.relay import Relay
from server.retention import Retention
from server.scheduler import Scheduler
from server.services import Services
from server.shutout import shut_out
from server.store import Store
from server.trust import TrustDistributor
from server.verifiers import Verifiers
from server.webhooks import Webhooks, read_standing


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of one server, ready to run."""

    services: Services
    relay: Relay
    scheduler: Scheduler
    trust: TrustDistributor
    handlers: Mapping[str, Handler]
    broker_auth: BrokerAuth
    meters: Meters
    metrics: MetricsApp
    neighbours: Neighbours
    retention: Retention
    cut_off: CutOff
    webhooks: Webhooks

    def workers(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what runs as long as the server runs."""
        return (
            self.relay.run(self.handlers, self.scheduler.connected),
            self.scheduler.run(),
            self.trust.run(),
            self.neighbours.run(),
            self.retention.run(),
            self.cut_off.run(),
            self.webhooks.run(),
        )


def assemble(
    config: ServerConfig,
    database: Database,
    *,
    clock: Callable[[], datetime],
    verifiers: Verifiers | None = None,
) -> Parts:
    """Put the parts together; nothing runs yet. Without `verifiers` this process checks all signatures.

    Raises:
        InvalidInput: `bad-config`.
        EnvironmentFailure: `state-failed`.

    """
    for url in config.relays:
        parse_url(url, config.relay_ca)
    store, events, wake, bell, meters = Store(database), Events(), Wake(), Bell(), Meters()
    is_shared = database.dialect == "postgresql"  # other servers may use it too
    name = secrets.token_hex(8)
    relay = Relay(
        config.relays,
        is_cluster=config.is_cluster,
        clock=clock,
        random=SystemRandom(),
        ca=config.relay_ca,
        own_queue=server_queue(name) if is_shared else "",
    )
    neighbours = Neighbours(
        name,
        events=events,
        broadcast=relay.broadcast,
        on_commands=wake.set_here,
        on_alerts=bell.ring_here,
    )
    scheduler = Scheduler(
        database=database,
        store=store,
        events=events,
        relay=relay,
        wake=wake,
        clock=clock,
        on_sent=meters.sent,
    )
    trust = TrustDistributor(database=database, store=store, relay=relay, wake=Wake(), clock=clock)

    async def welcome(agent_id: str) -> None:
        await scheduler.welcome(agent_id)
        await trust.welcome(agent_id)

    notices = Notices(
        database=database,
        store=store,
        relay=relay,
        key=load_notice_key(Path(config.state_dir) / NOTICE_KEY_FILE),
        server=config.name,
        clock=clock,
    )
    cut_off = CutOff(database=database, store=store, shut_out=partial(shut_out, config), clock=clock)
    intake = Intake(
        database=database,
        store=store,
        events=events,
        scheduler=scheduler,
        trust=trust,
        notices=notices,
        clock=clock,
        meters=meters,
        verifiers=verifiers or Verifiers(),
        on_flood=cut_off.add,
    )
    alert_intake = AlertIntake(database=database, store=store, bell=bell, clock=clock, meters=meters)
    webhooks = Webhooks(
        config.webhook, database=database, store=store, bell=bell, clock=clock, random=SystemRandom()
    )
    broker_auth = BrokerAuth(
        config=config,
        database=database,
        store=store,
        wait_connected=relay.wait_connected,
        welcome=welcome,
        clock=clock,
    )
    services = Services(
        config=config,
        database=database,
        store=store,
        events=events,
        wake=wake,
        health=HealthCheck(database=database, ask_broker=relay.check),
        shut_out=partial(shut_out, config),
        clock=clock,
        version=VERSION,
        trust_wake=trust.wake,
        bell=bell,
    )
    standing = Standing(
        agents=lambda: database.read(store.count_agents, clock()),
        commands=lambda: database.read(store.count_open_commands),
        queue_depths=relay.queue_depths,
        dead=relay.dead,
        denied=broker_auth.denied,
        questions=broker_auth.asked,
        followers=events.count_all,
        webhooks=lambda: database.read(read_standing, store, config.webhook),
        deliveries=webhooks.outcomes,
        version=VERSION,
    )
    handlers = {
        RESULTS_QUEUE: intake.handle_results,
        HEARTBEATS_QUEUE: intake.handle_heartbeats,
        ALERTS_QUEUE: alert_intake.handle,
    }
    if is_shared:
        handlers[server_queue(name)] = neighbours.handle
        events.tell_others(neighbours.tell_changes)
        wake.also = neighbours.tell_commands
        bell.also = neighbours.tell_alerts
    return Parts(
        services=services,
        relay=relay,
        scheduler=scheduler,
        trust=trust,
        handlers=handlers,
        broker_auth=broker_auth,
        meters=meters,
        metrics=MetricsApp(meters, standing),
        neighbours=neighbours,
        cut_off=cut_off,
        retention=Retention(config=config, database=database, store=store, clock=clock),
        webhooks=webhooks,
    )
