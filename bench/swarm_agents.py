"""One process of `bench/swarm.py`: agents, real on the wire, without a process and a disk of their own.

Each agent has its own identity, AMQP connection, queue, heartbeats and signed answers, by the very code of
the resident agent (`agent.runtime.link`, gate, composer of answers). What it has not: a journal, a spool and
a child; so what is measured is the platform, and the gate of every agent on the cores that the swarm shares.

    python bench/swarm_agents.py SETTINGS     a JSON document, see `Settings`

A line for each event goes to standard output: `ready` when all who are to come have come.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.config import AgentLimits
from agent.execute import run_operation
from agent.facts import collect_facts
from agent.module import Context, Limits
from agent.registry import module_names
from agent.runtime.amqp import IOLoop
from agent.runtime.answers import compose_result
from agent.runtime.gate import Gate, make_endpoint
from agent.runtime.heartbeat import encode_heartbeat
from agent.runtime.identity import Identity
from agent.runtime.link import Link, Relay
from agent.runtime.trust import Trust, make_trust
from protocol.action import Action, decode_action
from protocol.audit import Head
from protocol.envelope import ACTION, HEARTBEAT, NOTICE, RESULT, decode_envelope, encode_envelope, peek_type
from protocol.identity import agent_id, sign_envelope
from protocol.names import heartbeat_key, result_key
from protocol.notice import open_notice

_MAX_VALIDITY_S = 7 * 86400


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one process of the swarm is to be; times in seconds, `ramp` in logins per second."""

    relay: str
    broker: str
    key: str  # file of the investigator's public key
    fingerprint: str
    first: int
    count: int
    ramp: float
    heartbeat_s: float = 60.0
    has_gate: bool = True
    # Of a hundred agents so many: answer `slow_s` late, answer that the module failed, or stay away.
    slow: int = 0
    slow_s: float = 2.0
    failing: int = 0
    offline: int = 0


class SwarmAgent:
    """One agent: it logs in, tells of itself, and answers each action once."""

    def __init__(
        self,
        number: int,
        *,
        settings: Settings,
        ioloop: IOLoop,
        trust: Trust,
        facts: dict[str, Any],
        on_ready: Callable[[], None],
    ) -> None:
        key = Ed25519PrivateKey.generate()
        self._identity = Identity(key, agent_id(key.public_key().public_bytes_raw()), is_new=True)
        self._settings = settings
        self._ioloop = ioloop
        self._trust = trust
        self._facts = {**facts, "id": self._identity.agent_id, "name": f"swarm-{number:05d}"}
        self._on_ready = on_ready
        self._started = datetime.now(UTC)
        self._timer: object = None
        self._answered: set[str] = set()
        self._server_heads: tuple[Head, ...] = ()
        share = number % 100
        self._is_slow = share < settings.slow
        self._is_failing = settings.slow <= share < settings.slow + settings.failing
        self.is_offline = share >= 100 - settings.offline
        self._link = Link(
            ioloop=ioloop,
            relay=Relay((settings.relay,), settings.broker),
            identity=self._identity,
            clock=lambda: datetime.now(UTC),
            on_delivery=self._take,
            on_ready=self._come,
            on_trouble=lambda: None,
            random=random.random,
            facts=lambda: self._facts,
        )

    def connect(self) -> None:
        """Log in."""
        self._link.connect()

    def _come(self) -> None:
        self._beat()
        self._on_ready()

    def _beat(self) -> None:
        if self._timer is not None:
            self._ioloop.remove_timeout(self._timer)
        delay_s = self._settings.heartbeat_s * (0.95 + random.random() / 10)  # noqa: S311  (jitter)
        self._timer = self._ioloop.call_later(delay_s, self._beat)
        payload = encode_heartbeat(
            self._facts,
            now=datetime.now(UTC),
            started=self._started,
            commands=(),
            server_heads=self._server_heads,
        )
        body = encode_envelope(sign_envelope(self._identity.private_key, HEARTBEAT, payload))
        self._link.publish(
            heartbeat_key(self._identity.agent_id), body, lambda _confirmed: None, lasting=False
        )

    def _take(self, body: bytes, acknowledge: Callable[[], None]) -> None:
        kind = peek_type(body)
        if kind != ACTION:
            if kind == NOTICE:  # repeated in heartbeats; who does not is told again every few minutes
                self._server_heads = (open_notice(body).head,)
            acknowledge()
        elif self._is_slow:
            self._ioloop.call_later(self._settings.slow_s, lambda: self._answer(body, acknowledge))
        else:
            self._answer(body, acknowledge)

    def _answer(self, body: bytes, acknowledge: Callable[[], None]) -> None:
        started = datetime.now(UTC)
        action, digest = self._admit(body, started)
        if digest in self._answered:
            acknowledge()
            return
        self._answered.add(digest)
        context = Context(limits=Limits(), facts=self._facts)
        results = [run_operation(one.module, one.parameters, context) for one in action.operations]
        if self._is_failing:
            results = [msgspec.structs.replace(one, found=False, status="failed") for one in results]
        payload = compose_result(
            action_id=action.id,
            digest=digest,
            occurrence="",
            agent_id=self._identity.agent_id,
            started=started,
            finished=datetime.now(UTC),
            status="failed" if self._is_failing else "done",
            results=msgspec.json.encode(results),
        )
        answer = encode_envelope(sign_envelope(self._identity.private_key, RESULT, payload))
        self._publish(answer, acknowledge)

    def _admit(self, body: bytes, now: datetime) -> tuple[Action, str]:
        if self._settings.has_gate:
            endpoint = make_endpoint(self._facts)
            admission = Gate(body, trust=self._trust, endpoint=endpoint, now=now).admit()
            return admission.action, admission.digest
        envelope = decode_envelope(body, ACTION)
        return decode_action(envelope.payload), envelope.digest

    def _publish(self, answer: bytes, acknowledge: Callable[[], None]) -> None:
        def done(confirmed: bool) -> None:  # noqa: FBT001  (the link's callback)
            if confirmed:
                acknowledge()
            else:
                self._ioloop.call_later(1.0, lambda: self._publish(answer, acknowledge))

        self._link.publish(result_key(self._identity.agent_id), answer, done)


def main() -> None:
    """Run the agents until this process is ended."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    key = Path(settings.key).read_bytes()
    acl = {"default": {"minimum_weight": 1, "investigators": {settings.fingerprint: 1}}}
    trust = make_trust((key,), acl, _MAX_VALIDITY_S, AgentLimits())
    facts = collect_facts(agent_id="", version="0.0-swarm", tags={"swarm": "yes"}, modules=module_names())
    ioloop = IOLoop()
    come = 0

    def on_ready() -> None:
        nonlocal come
        come += 1
        if come == expected:
            print(json.dumps({"ready": expected, "time": time.time()}), flush=True)

    agents = [
        SwarmAgent(number, settings=settings, ioloop=ioloop, trust=trust, facts=facts, on_ready=on_ready)
        for number in range(settings.first, settings.first + settings.count)
    ]
    coming = [agent for agent in agents if not agent.is_offline]
    expected = len(coming)
    for place, agent in enumerate(coming):
        ioloop.call_later(place / settings.ramp, agent.connect)
    ioloop.start()


if __name__ == "__main__":
    main()
