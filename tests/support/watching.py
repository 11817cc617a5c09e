"""Persistent modules without a link: real watchers and alerts; what would be published is collected."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.runtime.alerts import Alerts
from agent.runtime.loop import SelectorLoop
from agent.runtime.watchers import Watchers
from agent.watch_config import AlertsConfig
from protocol.alert import Alert, open_alert
from protocol.envelope import ALERT, encode_envelope
from protocol.identity import agent_id, sign_envelope
from tests.support.endpoint import utc_now
from tests.support.resident import LONGEST_S

FIRST = "2026-11-20T12:00:00+00:00"


def report(kind: str = "changed", **changes: Any) -> bytes:
    """Return what a watcher says, with some members changed."""
    members = {
        "kind": kind,
        "severity": "high",
        "count": 1,
        "first": FIRST,
        "last": FIRST,
        "record": {"path": "/etc/passwd"},
    }
    return json.dumps({**members, **changes}).encode()


class Watched:
    """An agent's watching side; `is_ready` is whether there is a broker, which confirms at once."""

    def __init__(
        self,
        directory: Path,
        watched: dict[str, dict[str, Any]],
        *,
        per_minute: int = 600,
        max_kept: int = 1000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        directory.chmod(0o700)
        self.key = Ed25519PrivateKey.generate()
        self.public_key = self.key.public_key().public_bytes_raw()
        self.agent_id = agent_id(self.public_key)
        self.loop = SelectorLoop()
        self.is_ready = True
        self.confirms = True
        self.published: list[bytes] = []
        self.recorded: list[tuple[str, str, str]] = []
        self.alerts = Alerts(
            directory,
            AlertsConfig(per_minute, max_kept),
            agent_id=self.agent_id,
            loop=self.loop,
            clock=utc_now,
            monotonic=monotonic,
            sign=lambda payload: encode_envelope(sign_envelope(self.key, ALERT, payload)),
            publish=self._publish,
            is_ready=lambda: self.is_ready,
        )
        self.watchers = Watchers(
            loop=self.loop,
            alerts=self.alerts,
            watched=watched,
            directory=directory,
            memory_bytes=1 << 30,
            per_minute=per_minute,
            record=lambda *told: self.recorded.append(told),
            random=lambda: 0.0,
            monotonic=time.monotonic,
        )

    def _publish(self, body: bytes, done: Callable[[bool], None]) -> None:
        if self.confirms:
            self.published.append(body)
        done(self.confirms)

    def told(self, kind: str = "") -> list[Alert]:
        """Return the alerts that were published, each verified; of one kind, or all."""
        opened = [open_alert(body, self.public_key, self.agent_id).alert for body in self.published]
        return [alert for alert in opened if kind in {"", alert.kind}]

    def paths(self, kind: str) -> list[str]:
        """Return the paths that alerts of one kind named."""
        return [alert.record["path"] for alert in self.told(kind) if "path" in alert.record]

    def run_until(self, is_done: Callable[[], bool]) -> None:
        """Serve until something is so."""
        over: list[bool] = []
        timer = self.loop.call_later(LONGEST_S, lambda: over.append(True))
        self.loop.run_until(lambda: is_done() or bool(over))
        self.loop.cancel(timer)
        assert is_done(), ([alert.kind for alert in self.told()], self.watchers.states())

    def state(self, module: str) -> dict[str, Any]:
        """Return how a watcher is."""
        return self.watchers.states()[module]

    def close(self) -> None:
        """End it, as the agent's end does."""
        self.watchers.close()
        self.loop.close()


MakeWatched = Callable[..., Watched]


@pytest.fixture
def make_watched(tmp_path: Path) -> Iterator[MakeWatched]:
    """Make the watching side of an agent; a second one on the same directory is its next start."""
    made: list[Watched] = []
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)

    def make(watched: dict[str, dict[str, Any]] | None = None, **options: Any) -> Watched:
        for earlier in made:
            earlier.close()
        made.clear()
        made.append(Watched(directory, watched or {}, **options))
        return made[-1]

    yield make
    for watched in made:
        watched.close()
