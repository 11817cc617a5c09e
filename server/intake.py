"""What agents send: believed only where broker, routing key, signature and document name the same agent.

Rules:
1. The sender is who the broker says (`user_id`, which it checks against the login) and the delivered routing
   key must be that agent's. The queue proves nothing: a CC header brings a message into any queue bound.
2. The agent is enrolled. The signature is verified with its key before the payload is parsed
   (`server.checking`); that of answers in processes beside this one (`server.verifiers`).
3. A sealed answer is taken by what stands outside of the seal; nothing here could open it.
4. Of an agent that floods no more is looked at than `server.floods` grants it.
5. Answers go to the database in batches, one transaction each; followers hear of them after the commit.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from protocol.envelope import HEARTBEAT, decode_envelope
from protocol.errors import InvalidInput
from protocol.heartbeat import MAX_HEARTBEAT_BYTES, Heartbeat, decode_heartbeat
from protocol.names import command_id, heartbeat_key, is_agent_id
from server.amqp import Delivery
from server.checking import Sent, require_key, require_own, require_sender
from server.database import Database
from server.events import Events
from server.floods import ANSWERS, HEARTBEATS, RATE_LIMITED, Floods
from server.metrics import Meters
from server.notices import Notices
from server.rows import Change, ReceivedResult
from server.scheduler import Scheduler
from server.signatures import require_signed_by
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
        on_flood: Callable[[str], None],
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
        self._worthless = Floods(ANSWERS, lambda source: on_flood(_agent_of(source)))
        self._heartbeats = Floods(HEARTBEATS, lambda source: on_flood(_agent_of(source)))

    async def handle_results(self, batch: Sequence[Delivery]) -> Sequence[str | None]:
        """Store answers.

        Raises:
            EnvironmentFailure: `database-away` or `disk-full`: nothing was stored.

        """
        kept, verdicts = _without_dropped(batch, self._worthless)
        checked = await self._check_results(kept) if kept else []
        good = [item for item in checked if isinstance(item, ReceivedResult)]
        changes: Sequence[Change] = ()
        if good:
            changes = await self._database.run(self._store.save_results, good, self._clock())
            self._events.publish(changes)
            self._meters.heard("result", len(good))
            self._meters.answered({change.command_id: change.state.value for change in changes})
        answered = {change.command_id for change in changes}
        pairs = zip(kept, checked, strict=True)
        self._worthless.charge(_source(one) for one, item in pairs if _is_worthless(one, item, answered))
        return _in_order(verdicts, checked)

    async def handle_heartbeats(self, batch: Sequence[Delivery]) -> Sequence[str | None]:
        """Keep what agents say of themselves, and send again what they seem not to have got.

        How far commands are is told to followers and not stored.

        Raises:
            EnvironmentFailure: `database-away` or `disk-full`: what was stored is stored again.

        """
        kept, verdicts = _without_dropped(batch, self._heartbeats)
        checked = await self._database.read(self._check_heartbeats, kept) if kept else []
        good = [item for item in checked if isinstance(item, Heartbeat)]
        if good:
            now = self._clock()
            self._events.publish(await self._database.run(self._store.save_heartbeats, good, now))
            self._meters.heard("heartbeat", len(good))
            if any(heartbeat.running for heartbeat in good):
                self._events.publish(await self._database.read(self._store.find_progress, good, now))
            await self._scheduler.heard({heartbeat.agent for heartbeat in good})
            await self._trust.heard({heartbeat.agent for heartbeat in good})
            pairs = zip(checked, kept, strict=True)
            heard = [(item, delivery.body) for item, delivery in pairs if isinstance(item, Heartbeat)]
            await self._notices.heard(heard)
        self._heartbeats.charge(_source(delivery) for delivery in kept)
        return _in_order(verdicts, checked)

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


def _without_dropped(batch: Sequence[Delivery], floods: Floods) -> tuple[list[Delivery], list[str | None]]:
    """Return what is to be looked at, and each delivery's verdict so far: None, or that it is dropped."""
    verdicts = [RATE_LIMITED if floods.is_dropped(_source(delivery)) else None for delivery in batch]
    return [delivery for delivery, verdict in zip(batch, verdicts, strict=True) if verdict is None], verdicts


def _source(delivery: Delivery) -> str:
    """Return who sent a message, or its routing key where it names nobody.

    The broker checks both of an agent. But others may have any routing key, so what names nobody is held
    against nothing that does: an agent's true answers do.
    """
    return delivery.user_id or delivery.routing_key


def _agent_of(source: str) -> str:
    return source.partition(".")[2] or source


def _in_order(verdicts: Sequence[str | None], checked: Sequence[object]) -> list[str | None]:
    """Return the verdicts of a batch, with those of what was looked at in their places."""
    looked_at = iter(checked)
    return [verdict or _code_of(next(looked_at)) for verdict in verdicts]


def _code_of(item: object) -> str | None:
    return item.code if isinstance(item, InvalidInput) else None


def _is_worthless(delivery: Delivery, item: object, answered: Collection[str]) -> bool:
    """Tell whether an answer has changed nothing; what was delivered before may have, at that time."""
    if isinstance(item, ReceivedResult):
        facts = item.facts
        ident = command_id(facts.action, item.agent_id, facts.occurrence)
        return ident not in answered and not delivery.redelivered
    return not delivery.redelivered


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
    require_signed_by(envelope, require_key(keys.get(agent_id), agent_id), agent_id)
    heartbeat = decode_heartbeat(envelope.payload)
    require_own(heartbeat.agent, agent_id)
    require_storable_heartbeat(heartbeat)
    return heartbeat


def _caught(delivery: Delivery, keys: Mapping[str, bytes]) -> Heartbeat | InvalidInput:
    try:
        return _open_heartbeat(delivery, keys)
    except InvalidInput as error:
        return error
