"""What agents send: believed only where broker, routing key, signature and document name the same agent.

Rules:
1. The sender is who the broker says (`user_id`, which it checks against the login) and the delivered routing
   key must be that agent's. The queue proves nothing: a CC header brings a message into any queue bound.
2. The agent is enrolled. The signature is verified with its key before the payload is parsed
   (`server.checking`); that of answers in processes beside this one (`server.verifiers`).
3. A sealed answer is taken by what stands outside of the seal; nothing here could open it.
4. Answers go to the database in batches, one transaction each; followers hear of them after the commit.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from protocol.envelope import HEARTBEAT, decode_envelope
from protocol.errors import InvalidInput
from protocol.heartbeat import MAX_HEARTBEAT_BYTES, Heartbeat, decode_heartbeat
from protocol.identity import require_agent_signature
from protocol.names import heartbeat_key, is_agent_id
from server.amqp import Delivery
from server.checking import Sent, require_key, require_own, require_sender
from server.database import Database
from server.events import Events
from server.metrics import Meters
from server.notices import Notices
from server.rows import ReceivedResult
from server.scheduler import Scheduler
from server.store import Store
from server.store_agents import require_storable_heartbeat
from server.trust import TrustDistributor
from server.verifiers import Verdict, Verifiers


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
        verifiers: Verifiers,
    ) -> None:
        self._database = database
        self._store = store
        self._events = events
        self._scheduler = scheduler
        self._notices = notices
        self._trust = trust
        self._clock = clock
        self._meters = meters
        self._verifiers = verifiers

    async def handle_results(self, batch: Sequence[Delivery]) -> Sequence[str | None]:
        """Store answers.

        Raises:
            EnvironmentFailure: `database-away` or `disk-full`: nothing was stored.

        """
        checked = await self._check_results(batch)
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

    async def _check_results(self, batch: Sequence[Delivery]) -> list[ReceivedResult | InvalidInput]:
        senders = {delivery.user_id for delivery in batch if is_agent_id(delivery.user_id)}
        keys = await self._database.read(self._store.enrolled_keys, senders)
        verdicts = await self._verifiers.judge(
            [Sent(one.routing_key, one.user_id, one.body, keys.get(one.user_id)) for one in batch]
        )
        return [_received(one, verdict) for one, verdict in zip(batch, verdicts, strict=True)]

    def _check_heartbeats(self, batch: Sequence[Delivery]) -> list[Heartbeat | InvalidInput]:
        senders = {delivery.user_id for delivery in batch if is_agent_id(delivery.user_id)}
        keys = self._store.enrolled_keys(senders)
        return [_caught(delivery, keys) for delivery in batch]


def _received(delivery: Delivery, verdict: Verdict) -> ReceivedResult | InvalidInput:
    if verdict.checked is None:
        refused = verdict.refused
        return InvalidInput(refused.code if refused else "bad-document", refused.detail if refused else "")
    return ReceivedResult(
        agent_id=delivery.user_id,
        envelope_bytes=delivery.body,
        digest=verdict.checked.digest,
        facts=verdict.checked.facts,
    )


def _open_heartbeat(delivery: Delivery, keys: Mapping[str, bytes]) -> Heartbeat:
    agent_id = require_sender(delivery.user_id, delivery.routing_key, heartbeat_key)
    envelope = decode_envelope(delivery.body, HEARTBEAT, max_payload_bytes=MAX_HEARTBEAT_BYTES)
    require_agent_signature(envelope, require_key(keys.get(agent_id), agent_id), agent_id)
    heartbeat = decode_heartbeat(envelope.payload)
    require_own(heartbeat.agent, agent_id)
    require_storable_heartbeat(heartbeat)
    return heartbeat


def _caught(delivery: Delivery, keys: Mapping[str, bytes]) -> Heartbeat | InvalidInput:
    try:
        return _open_heartbeat(delivery, keys)
    except InvalidInput as error:
        return error
