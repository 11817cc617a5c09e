"""`mig-server serve`: one server in one event loop, started and ended in order.

Rules:
1. What is only away (the broker) is waited for; what is wrong (a port taken, no database, another server on
   the same state directory) ends the start with one line.
2. On SIGTERM or SIGINT streams are ended, requests finished, then the relay and the scheduler; what is under
   way is in the database or unacknowledged at the broker, so nothing has to be saved.
"""

import asyncio
import logging
import resource
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from server.api.app import make_app
from server.config import ServerConfig
from server.database import Database
from server.front import Front, listen_on
from server.metrics import MeteredApp
from server.migrations import migrate
from server.parts import assemble, utc_now
from server.questions import Questions
from server.statelock import state_lock
from server.verifiers import Verifiers

_log = logging.getLogger(__name__)


def serve(config: ServerConfig) -> None:
    """Run a server until SIGTERM or SIGINT.

    Raises:
        InvalidInput: `bad-config`.
        EnvironmentFailure: `port-in-use`, `state-in-use`, `state-failed`, `database-away`, `disk-full`.

    """
    _raise_open_files()
    with ExitStack() as stack:
        verifiers = Verifiers.fork(config.verifiers)
        stack.callback(verifiers.close)
        stack.enter_context(state_lock(Path(config.state_dir)))
        api = stack.enter_context(listen_on(config.api_address))
        auth = stack.enter_context(listen_on(config.broker_auth_address))
        metrics = None
        if config.metrics_address is not None:
            metrics = stack.enter_context(listen_on(config.metrics_address))
        database = Database(config.database)
        stack.callback(database.close)
        migrate(database)
        asyncio.run(_run(config, database, verifiers, _Listeners(api, auth, metrics)))


def _raise_open_files() -> None:
    """Take as many open files as we may: each question of the broker that is under way is a connection."""
    if sys.platform == "linux":  # elsewhere "no limit" is not always granted
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Listeners(NamedTuple):
    api: socket.socket
    auth: socket.socket
    metrics: socket.socket | None


async def _run(config: ServerConfig, database: Database, verifiers: Verifiers, listeners: _Listeners) -> None:
    parts = assemble(config, database, clock=utc_now, verifiers=verifiers)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    fronts: list[Front | Questions] = [
        Front(MeteredApp(make_app(parts.services), parts.meters), listeners.api, lifespan=True),
        Questions(parts.broker_auth.answer, listeners.auth),
    ]
    if listeners.metrics is not None:
        fronts.append(Front(parts.metrics, listeners.metrics, lifespan=False))
    async with asyncio.TaskGroup() as tasks:
        working = [tasks.create_task(worker) for worker in parts.workers()]
        serving = [tasks.create_task(front.run()) for front in fronts]
        _log.info("serving", extra={"api": config.listen, "broker_auth": config.broker_auth_listen})
        stopping = tasks.create_task(stop.wait())
        await asyncio.wait([stopping, *working, *serving], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            raise RuntimeError("a part of the server ended by itself")
        _log.info("stopping")
        parts.services.events.close()
        parts.services.bell.close()
        for front in fronts:
            front.stop()
        await asyncio.wait(serving)
        for task in working:
            task.cancel()
