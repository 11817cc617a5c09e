"""What one server process is made of, handed to the API."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from server.bell import Bell
from server.config import ServerConfig
from server.database import Database
from server.events import Events, Wake
from server.health import HealthCheck
from server.shutout import ShutOut
from server.store import Store


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts that the API uses.

    `health` answers within seconds, whatever is away; `shut_out` ends the connections of revoked agents.
    `wake` is set when there are new commands, `trust_wake` when there is a new trust bundle,
    and `bell` rings when there are new alerts.
    """

    config: ServerConfig
    database: Database
    store: Store
    events: Events
    wake: Wake
    health: HealthCheck
    shut_out: ShutOut
    clock: Callable[[], datetime]
    version: str
    trust_wake: Wake = field(default_factory=Wake)
    bell: Bell = field(default_factory=Bell)
