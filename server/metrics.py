"""What a server tells a monitoring system: Prometheus' text format, on a listener of its own.

Rules:
1. Counts and times only: no name, id, parameter or answer, so whoever may scrape learns how much, never what.
   The listener asks for no login all the same: it is off unless `metrics_listen` names an address.
2. What stands in the database or at the broker is asked for at each scrape; where one is away, or does not
   answer within seconds, its figures are missing and `mig_database_up` or `mig_broker_up` is 0. Each server
   of several tells of itself; agents, commands and queues, which they share, are told alike by all.
3. The labels' values are from fixed sets: codes, states, route templates, the configuration's names of
   webhooks. A client cannot make new ones.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import time
from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from protocol.errors import EnvironmentFailure
from protocol.names import ALERTS_QUEUE, DEAD_QUEUE, HEARTBEATS_QUEUE, RESULTS_QUEUE
from server.single_flight import PATIENCE_S, SingleFlight
from server.webhooks import HookStanding

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# ASGI as each framework spells it in types of its own.
_App = Callable[[Any, Any, Any], Awaitable[None]]

_REMEMBERED = 100_000  # commands under way whose times are known
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})
# A stream lasts as long as its reader wants: no latency.
_STREAMS = ("text/event-stream",)
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
QUEUES = (RESULTS_QUEUE, HEARTBEATS_QUEUE, ALERTS_QUEUE, DEAD_QUEUE)


class Meters:
    """What this process counts while it works; `monotonic` is in seconds."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.registry = CollectorRegistry()
        self.received: Tally[str] = Tally()
        self.answers: Tally[str] = Tally()
        self._monotonic = monotonic
        self._sent: OrderedDict[str, float] = OrderedDict()
        self._answer_s = Histogram(
            "mig_answer_seconds",
            "From the broker's taking of a command to the commit of its answer",
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._request_s = Histogram(
            "mig_request_seconds",
            "Requests to the API, event streams left out",
            ["method", "route", "status"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def sent(self, command_ids: Iterable[str]) -> None:
        """Remember when commands went out."""
        now = self._monotonic()
        for command_id in command_ids:
            self._sent[command_id] = now
        while len(self._sent) > _REMEMBERED:
            self._sent.popitem(last=False)

    def answered(self, states: Mapping[str, str]) -> None:
        """Count answers that were committed: command ids and the states in which they ended."""
        now = self._monotonic()
        for command_id, state in states.items():
            self.answers[state] += 1
            sent = self._sent.pop(command_id, None)
            if sent is not None:
                self._answer_s.observe(now - sent)

    def heard(self, kind: str, count: int) -> None:
        """Count messages of agents that were believed."""
        self.received[kind] += count

    def requested(self, *, method: str, route: str, status: int, took_s: float) -> None:
        """Count a request to the API."""
        known = method if method in _METHODS else "other"
        self._request_s.labels(known, route, str(status)).observe(took_s)


class MeteredApp:
    """The API, each request timed."""

    def __init__(self, app: _App, meters: Meters) -> None:
        self._app = app
        self._meters = meters

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one request, or whatever else the protocol asks for."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = 0
        is_stream = False

        async def watch(message: MutableMapping[str, Any]) -> None:
            nonlocal status, is_stream
            if message["type"] == "http.response.start":
                status = message["status"]
                kind = dict(message.get("headers", ())).get(b"content-type", b"").decode("latin-1")
                is_stream = kind.startswith(_STREAMS)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            if not is_stream:
                self._meters.requested(
                    method=scope["method"],
                    route=scope.get("path_template") or "none",
                    status=status,
                    took_s=time.monotonic() - began,
                )


class Standing:
    """What is asked for at each scrape: each a callable that may raise `EnvironmentFailure`."""

    def __init__(
        self,
        *,
        agents: Callable[[], Awaitable[Mapping[str, int]]],
        commands: Callable[[], Awaitable[Mapping[str, int]]],
        queue_depths: Callable[[Collection[str]], Awaitable[Mapping[str, int]]],
        dead: Mapping[str, int],
        denied: Mapping[str, int],
        questions: Mapping[str, int],
        followers: Callable[[], int],
        version: str,
        webhooks: Callable[[], Awaitable[Mapping[str, HookStanding]]],
        deliveries: Mapping[str, int],
        patience_s: float = PATIENCE_S,
    ) -> None:
        async def ask_database() -> tuple[Mapping[str, int], Mapping[str, int], Mapping[str, HookStanding]]:
            return await agents(), await commands(), await webhooks()

        self._database = SingleFlight(ask_database, patience_s)
        self._broker = SingleFlight(lambda: queue_depths(QUEUES), patience_s)
        self._dead = dead
        self._denied = denied
        self._questions = questions
        self._followers = followers
        self._version = version
        self._deliveries = deliveries

    async def read(self, meters: Meters) -> list[Metric]:
        """Return all figures that are not kept in histograms."""
        found = [
            _gauge("mig_build_info", "Version of this server", "version", {self._version: 1}),
            _gauge("mig_followers", "Event streams that are open", "", {"": self._followers()}),
            _counter("mig_received", "Messages of agents that were believed", "kind", meters.received),
            _counter("mig_answers", "Answers committed, by the command's state", "state", meters.answers),
            _counter(
                "mig_refused_messages",
                "Messages put among the dead letters, or dropped (rate-limited)",
                "code",
                self._dead,
            ),
            _counter("mig_denied_logins", "Agents' logins denied", "code", self._denied),
            _counter("mig_broker_questions", "What the broker asked about agents", "about", self._questions),
            _counter("mig_webhook_deliveries", "Alerts brought to webhooks", "outcome", self._deliveries),
        ]
        try:
            agents, commands, hooks = await self._database.answer()
        except (EnvironmentFailure, TimeoutError):
            found.append(_gauge("mig_database_up", "Whether the database answers", "", {"": 0}))
        else:
            found.append(_gauge("mig_database_up", "Whether the database answers", "", {"": 1}))
            found.append(_gauge("mig_agents", "Agents by status", "status", agents))
            found.append(_gauge("mig_open_commands", "Commands that have not ended", "state", commands))
            waiting = {name: hook.waiting for name, hook in hooks.items()}
            found.append(_gauge("mig_webhook_waiting", "Alerts that wait for a webhook", "hook", waiting))
        try:
            depths = await self._broker.answer()
        except (EnvironmentFailure, TimeoutError):
            found.append(_gauge("mig_broker_up", "Whether the broker answers", "", {"": 0}))
        else:
            found.append(_gauge("mig_broker_up", "Whether the broker answers", "", {"": 1}))
            found.append(_gauge("mig_queue_messages", "Messages ready in a queue", "queue", depths))
        return found


class MetricsApp:
    """An ASGI application that answers `GET /metrics` and nothing else."""

    def __init__(self, meters: Meters, standing: Standing) -> None:
        self._meters = meters
        self._standing = standing

    async def __call__(self, scope: _Scope, _receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        if (scope["method"], scope["path"]) != ("GET", "/metrics"):
            await _respond(send, 404, b"text/plain", b"GET /metrics\n")
            return
        found = await self._standing.read(self._meters)
        registry = CollectorRegistry()
        registry.register(_Found(found))
        body = generate_latest(self._meters.registry) + generate_latest(registry)
        await _respond(send, 200, CONTENT_TYPE_LATEST.encode(), body)


class _Found:
    """Figures that were read before, as prometheus_client collects them."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        """Yield them."""
        yield from self._found


def _gauge(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    return _fill(
        GaugeMetricFamily(name, text, labels=[label] if label else []), values, is_labelled=bool(label)
    )


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    return _fill(CounterMetricFamily(name, text, labels=[label]), values, is_labelled=True)


def _fill(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, int], *, is_labelled: bool
) -> Metric:
    for value, count in sorted(values.items()):
        family.add_metric([value] if is_labelled else [], count)
    return family


async def _respond(send: _Send, status: int, kind: bytes, body: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
