"""What agents saw: believed by the same rules as their answers, kept once, and then told to who listens.

1. Broker, routing key, signature and document name the same agent, and it is enrolled (`server.intake`).
2. An agent may have so many alerts taken in an hour: one whose owner is hostile must not fill the database.
   An honest one keeps below by its own bound.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from protocol.alert import open_alert
from protocol.errors import InvalidInput
from protocol.names import alert_key, is_agent_id
from server.amqp import Delivery
from server.bell import Bell
from server.checking import require_key, require_sender
from server.database import Database
from server.metrics import Meters
from server.rows import ReceivedAlert
from server.signatures import require_verified
from server.store import Store

MOST_PER_HOUR = 36_000
_HOUR = timedelta(hours=1)
_MAX_COUNTED = 100_000


class AlertIntake:
    """The handler of `mig.alerts`."""

    def __init__(
        self, *, database: Database, store: Store, bell: Bell, clock: Callable[[], datetime], meters: Meters
    ) -> None:
        self._database = database
        self._store = store
        self._bell = bell
        self._clock = clock
        self._meters = meters
        self._counted: OrderedDict[str, tuple[datetime, int]] = OrderedDict()

    async def handle(self, batch: Sequence[Delivery]) -> Sequence[str | None]:
        """Store alerts; return, for each delivery, None or the code under which it is refused.

        Raises:
            EnvironmentFailure: `database-away` or `disk-full`: nothing was stored.

        """
        checked = await self._database.read(self._check, batch)
        now = self._clock()
        limited = [self._within_rate(item, now) for item in checked]
        good = [item for item in limited if isinstance(item, ReceivedAlert)]
        if good:
            new = await self._database.run(self._store.save_alerts, good, now)
            self._meters.heard("alert", len(good))
            if new:
                self._bell.ring()
        return [item.code if isinstance(item, InvalidInput) else None for item in limited]

    def _check(self, batch: Sequence[Delivery]) -> list[ReceivedAlert | InvalidInput]:
        senders = {delivery.user_id for delivery in batch if is_agent_id(delivery.user_id)}
        keys = self._store.enrolled_keys(senders)
        return [_caught(delivery, keys) for delivery in batch]

    def _within_rate(self, item: ReceivedAlert | InvalidInput, now: datetime) -> ReceivedAlert | InvalidInput:
        if isinstance(item, InvalidInput):
            return item
        since, count = self._counted.pop(item.agent_id, (now, 0))
        if now - since >= _HOUR:
            since, count = now, 0
        self._counted[item.agent_id] = (since, count + 1)
        if len(self._counted) > _MAX_COUNTED:
            self._counted.popitem(last=False)
        if count >= MOST_PER_HOUR:
            return InvalidInput("rate-limited", f"more than {MOST_PER_HOUR} alerts of one agent in an hour")
        return item


def _caught(delivery: Delivery, keys: Mapping[str, bytes]) -> ReceivedAlert | InvalidInput:
    try:
        agent_id = require_sender(delivery.user_id, delivery.routing_key, alert_key)
        opened = open_alert(
            delivery.body, require_key(keys.get(agent_id), agent_id), agent_id, require_verified
        )
    except InvalidInput as error:
        return error
    return ReceivedAlert(
        agent_id=agent_id,
        digest=opened.digest,
        module=opened.alert.module,
        severity=opened.alert.severity,
        envelope=delivery.body,
    )
