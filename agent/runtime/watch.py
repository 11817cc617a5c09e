"""What the resident holds for persistent modules: their watchers, and the alerts on their way to the broker.

Standard library only: the resident agent imports this module.
"""

import random
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Dict, Protocol

from agent.config import Baked
from agent.runtime.alerts import Alerts
from agent.runtime.loop import Loop
from agent.runtime.watchers import Watchers
from protocol.names import alert_key


class Link(Protocol):
    """The part of `agent.runtime.link.Link` that is used."""

    is_ready: bool

    def publish(self, routing_key: str, body: bytes, done: Callable[[bool], None]) -> None:
        """Publish once; `done(confirmed)` is called when the broker has answered or is gone."""


class Watch:
    """Watchers and alerts of one agent.

    Args:
        baked: which modules are on, and how many alerts may be made.
        directory: the state directory.
        agent_id: this agent's id.
        loop: the process's event loop.
        link: publishes.
        sign: makes the signed envelope of an alert's payload.
        record: writes into the machine's own log that a watcher has ended.
        watches: false where this agent is not there for long enough to watch; what waits is sent still.

    """

    def __init__(
        self,
        baked: Baked,
        directory: Path,
        *,
        agent_id: str,
        loop: Loop,
        link: Link,
        sign: Callable[[bytes], bytes],
        record: Callable[[str, str, str], None],
        watches: bool,
    ) -> None:
        config = baked.config
        self._alerts = Alerts(
            directory,
            config.alerts,
            agent_id=agent_id,
            loop=loop,
            clock=lambda: datetime.now(timezone.utc),
            monotonic=time.monotonic,
            sign=sign,
            publish=lambda body, done: link.publish(alert_key(agent_id), body, done),
            is_ready=lambda: link.is_ready,
        )
        self._watchers = Watchers(
            loop=loop,
            alerts=self._alerts,
            watched=config.watched() if watches else {},
            directory=directory,
            memory_bytes=config.limits.memory_bytes,
            per_minute=config.alerts.per_minute,
            record=record,
            random=random.random,
            monotonic=time.monotonic,
        )
        self.start = self._watchers.start
        self.close = self._watchers.close
        self.states = self._watchers.states
        self.publish = self._alerts.publish_next

    @property
    def waiting(self) -> int:
        """How many alerts the broker has not confirmed."""
        return self._alerts.waiting

    def status(self) -> Dict[str, Any]:
        """Return what the agent's status says of them."""
        return {"spooled_alerts": self._alerts.waiting, "watchers": self._watchers.describe()}
