"""What agents send: believed only where broker, routing key, signature and document name the same agent.

Rules:
1. The sender is who the broker says (`user_id`, which it checks against the login) and the delivered routing
   key must be that agent's. The queue proves nothing: a CC header brings a message into any queue bound.
2. The agent is enrolled. The signature is verified with its key before the payload is parsed.
3. A sealed answer is taken by what stands outside of the seal; nothing here could open it.
4. Answers go to the database in batches, one transaction each; followers hear of them after the commit.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from protocol.envelope import HEARTBEAT, SEALED_RESULT, decode_envelope, decode_envelope_of
from protocol.errors import InvalidInput
from protocol.heartbeat import MAX_HEARTBEAT_BYTES, Heartbeat, decode_heartbeat
from protocol.identity import require_agent_signature
from protocol.names import heartbeat_key, is_agent_id, result_key
from protocol.result import ANSWER_LIMITS, decode_result, decode_sealed_result
from server.amqp import Delivery
from server.database import Database
from server.events import Events
from server.metrics import Meters
from server.notices import Notices
from server.rows import ReceivedResult
from server.scheduler import Scheduler
from server.store import Store
from server.store_agents import require_storable_heartbeat
from server.trust import TrustDistributor

_D = TypeVar("_D")


class Intake:
    """The handlers of `mig.results` and `mig.heartbeats`.

    Each gets a batch and returns, for each delivery, None to acknowledge it or the code of its refusal.
    """

    def __init__(
        self,
        *,
        database: Database,
        store: Store,
        events: Events,
        scheduler: Scheduler,
        notices: Notices,
        trust: TrustDistributor,
        clock: Callable[[], datetime],
        meters: Meters,
    ) -> None:
        self._database = database
        self._store = store
        self._events = events
        self._scheduler = scheduler
        self._notices = notices
        self._trust = trust
        self._clock = clock
        self._meters = meters

    async def handle_results(self, batch: Sequence[Delivery]) -> Sequence[str | None]:
        """Store answers.

        Raises:
            EnvironmentFailure: `database-away` or `disk-full`: nothing was stored.

        """
        checked = await self._database.read(self._check_results, batch)
        good = [item for item in checked if isinstance(item, ReceivedResult)]
        if good:
            changes = await self._database.run(self._store.save_results, good, self._clock())
            self._events.publish(changes)
            self._meters.heard("result", len(good))
            self._meters.answered({change.command_id: change.state.value for change in changes})
        return [item.code if isinstance(item, InvalidInput) else None for item in checked]

    async def handle_heartbeats(self, batch: Sequence[Delivery]) -> Sequence[str | None]:
        """Keep what agents say of themselves, and send again what they seem not to have got.

        How far commands are is told to followers and not stored.

        Raises:
            EnvironmentFailure: `database-away` or `disk-full`: what was stored is stored again.

        """
        checked = await self._database.read(self._check_heartbeats, batch)
        good = [item for item in checked if isinstance(item, Heartbeat)]
        if good:
            now = self._clock()
            self._events.publish(await self._database.run(self._store.save_heartbeats, good, now))
            self._meters.heard("heartbeat", len(good))
            if any(heartbeat.running for heartbeat in good):
                self._events.publish(await self._database.read(self._store.find_progress, good, now))
            await self._scheduler.heard({heartbeat.agent for heartbeat in good})
            await self._trust.heard({heartbeat.agent for heartbeat in good})
            pairs = zip(checked, batch, strict=True)
            heard = [(item, delivery.body) for item, delivery in pairs if isinstance(item, Heartbeat)]
            await self._notices.heard(heard)
        return [item.code if isinstance(item, InvalidInput) else None for item in checked]

    def _check_results(self, batch: Sequence[Delivery]) -> list[ReceivedResult | InvalidInput]:
        keys = _Keys(self._store)
        return [_caught(_open_result, delivery, keys) for delivery in batch]

    def _check_heartbeats(self, batch: Sequence[Delivery]) -> list[Heartbeat | InvalidInput]:
        keys = _Keys(self._store)
        return [_caught(_open_heartbeat, delivery, keys) for delivery in batch]


class _Keys:
    """The public keys of enrolled agents, each read once per batch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, bytes] = {}

    def require(self, agent_id: str) -> bytes:
        """Return an enrolled agent's key.

        Raises:
            InvalidInput: `forbidden`.

        """
        if agent_id not in self._known:
            row = self._store.get_agent(agent_id)
            if row is None or row.enrolment != "enrolled":
                raise InvalidInput("forbidden", f"agent {agent_id} is not enrolled")
            self._known[agent_id] = row.public_key
        return self._known[agent_id]


def require_sender(delivery: Delivery, key_of: Callable[[str], str]) -> str:
    """Return the id of the agent that sent a message under its own routing key.

    Raises:
        InvalidInput: `forbidden`.

    """
    if not is_agent_id(delivery.user_id) or delivery.routing_key != key_of(delivery.user_id):
        raise InvalidInput("forbidden", "user id and routing key do not name the same agent")
    return delivery.user_id


def _open_result(delivery: Delivery, keys: _Keys) -> ReceivedResult:
    agent_id = require_sender(delivery, result_key)
    envelope = decode_envelope_of(delivery.body, ANSWER_LIMITS)
    require_agent_signature(envelope, keys.require(agent_id), agent_id)
    is_sealed = envelope.payload_type == SEALED_RESULT
    result = decode_sealed_result(envelope.payload) if is_sealed else decode_result(envelope.payload)
    _require_own(result.agent, agent_id)
    return ReceivedResult(
        agent_id=agent_id, envelope_bytes=delivery.body, digest=envelope.digest, result=result
    )


def _open_heartbeat(delivery: Delivery, keys: _Keys) -> Heartbeat:
    agent_id = require_sender(delivery, heartbeat_key)
    envelope = decode_envelope(delivery.body, HEARTBEAT, max_payload_bytes=MAX_HEARTBEAT_BYTES)
    require_agent_signature(envelope, keys.require(agent_id), agent_id)
    heartbeat = decode_heartbeat(envelope.payload)
    _require_own(heartbeat.agent, agent_id)
    require_storable_heartbeat(heartbeat)
    return heartbeat


def _require_own(named: str, agent_id: str) -> None:
    if named != agent_id:
        raise InvalidInput("forbidden", "the document speaks for another agent than the one that signed it")


def _caught(
    open_document: Callable[[Delivery, _Keys], _D], delivery: Delivery, keys: _Keys
) -> _D | InvalidInput:
    try:
        return open_document(delivery, keys)
    except InvalidInput as error:
        return error
