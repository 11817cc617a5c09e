"""Takes trust bundles in and brings the newest to every agent.

Rules:
1. The server checks what it can: the shape, every certificate, and that the version is greater than all
   before, and not by a mistake's length. Where the configuration names the roots (`trust_roots`), enough of
   them must have signed: so nobody can put a bundle that no agent takes in the way of good ones. That keeps
   the way free and no more: each agent judges for itself, and nothing that is stored or sent here can change
   what the roots signed.
2. A published bundle goes at once to every agent that does not say that it holds it; afterwards at each login
   and, at growing intervals, at heartbeats, until the agent says so. An agent without roots never will.
3. It goes as it came, byte for byte, over the queue that brings commands.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from protocol.envelope import TRUST, decode_envelope
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.openpgp import parse_certificate
from protocol.trust import (
    Roots,
    TrustBundle,
    decode_bundle,
    make_keyring,
    make_roots,
    open_bundle,
    require_current,
)
from server.config import ServerConfig
from server.database import Database
from server.events import Wake
from server.lookups import Together
from server.rows import TrustRow
from server.services import Services
from server.store import Store

_log = logging.getLogger(__name__)

_FIRST_PATIENCE = timedelta(seconds=120)
_LONGEST_PATIENCE = timedelta(hours=12)
_LONGEST_TTL_S = 7 * 86400
_BATCH = 250
_PAUSE_S = 5.0


class Publishing(Protocol):
    """The part of the relay that is used."""

    async def publish_documents(self, bodies: Mapping[str, bytes], ttl_s: int) -> frozenset[str]:
        """Publish one document to each agent; return those whose queue took theirs."""


class TrustDistributor:
    """Brings the newest bundle to agents; `wake` is what the API sets when one was published."""

    def __init__(
        self,
        *,
        database: Database,
        store: Store,
        relay: Publishing,
        wake: Wake,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._relay = relay
        self.wake = wake
        self._clock = clock
        self._welcomed: Together[str, None] = Together(self._welcome)
        self._asked: dict[
            str, tuple[datetime, timedelta]
        ] = {}  # agent: when it was sent, and how long to wait

    async def run(self) -> None:
        """Send what is published to everyone, until cancelled."""
        while True:
            await self.wake.wait()
            try:
                await self._send_to_all()
            except EnvironmentFailure as error:
                _log.warning("a trust bundle waits", extra={"reason": error})
                await asyncio.sleep(_PAUSE_S)
                self.wake.set()

    async def welcome(self, agent_id: str) -> None:
        """Send the newest bundle to an agent that has logged in, unless it holds it."""
        self._asked.pop(agent_id, None)
        await self._welcomed.ask(agent_id)

    async def _welcome(self, agent_ids: Sequence[str]) -> Sequence[None]:
        await self.heard(agent_ids)
        return [None] * len(agent_ids)

    async def heard(self, agent_ids: Collection[str]) -> None:
        """Send the newest bundle to those of these agents that do not hold it and were not sent it lately."""
        try:
            behind = await self._database.read(self._store.agents_behind, list(agent_ids))
            for agent_id in set(agent_ids) - set(behind):
                self._asked.pop(agent_id, None)
            now = self._clock()
            due = [agent_id for agent_id in behind if self._is_due(agent_id, now)]
            newest = await self._database.read(self._store.newest_trust) if due else None
            if newest is not None:
                await self._send(newest, due)
        except EnvironmentFailure as error:
            _log.warning("no trust bundle was sent", extra={"reason": error})

    def _is_due(self, agent_id: str, now: datetime) -> bool:
        asked = self._asked.get(agent_id)
        return asked is None or now >= asked[0] + asked[1]

    async def _send_to_all(self) -> None:
        newest = await self._database.read(self._store.newest_trust)
        self._asked.clear()
        after = ""
        while newest is not None:
            page = await self._database.read(self._store.next_behind, after, _BATCH)
            if not page:
                return
            await self._send(newest, page)
            after = page[-1]

    async def _send(self, newest: TrustRow, agent_ids: Sequence[str]) -> None:
        now = self._clock()
        ttl_s = min(int((newest.expires - now).total_seconds()), _LONGEST_TTL_S)
        if ttl_s <= 0 or not agent_ids:
            return
        taken = await self._relay.publish_documents(dict.fromkeys(agent_ids, newest.envelope), ttl_s)
        for agent_id in taken:
            patience = self._asked[agent_id][1] * 2 if agent_id in self._asked else _FIRST_PATIENCE
            self._asked[agent_id] = (now, min(patience, _LONGEST_PATIENCE))
        _log.info("sent a trust bundle", extra={"version": newest.version, "agents": len(taken)})


async def publish_bundle(services: Services, body: bytes, publisher: str) -> tuple[TrustBundle, bool]:
    """Check and store a bundle, and have it sent; return it and whether it, or a signature of it, is new.

    Raises:
        InvalidInput: what is wrong with envelope, bundle or certificates; `unsigned`, `trust-expired`,
            `stale-trust`, `trust-gap`; `bad-config` where the configured roots cannot be read.

    """
    now = services.clock()
    bundle, digest = await asyncio.to_thread(check_bundle, body, services.config, now)
    is_new = await services.database.run(services.store.publish_trust, bundle, body, digest, publisher, now)
    if is_new:
        services.trust_wake.set()
    return bundle, is_new


def check_bundle(body: bytes, config: ServerConfig, now: datetime) -> tuple[TrustBundle, str]:
    """Return a bundle that may be published, and its digest.

    Raises:
        InvalidInput: as `publish_bundle`.

    """
    envelope = decode_envelope(body, TRUST)
    if not envelope.signatures:
        raise InvalidInput("unsigned", "nobody has signed the bundle")
    bundle = decode_bundle(envelope.payload)
    make_keyring(bundle)
    require_current(bundle, now)
    roots = load_roots(config)
    if roots is not None:
        open_bundle(body, roots, now)
    return bundle, envelope.digest


def load_roots(config: ServerConfig) -> Roots | None:
    """Return whose signatures a bundle needs here; None where the configuration does not say.

    Raises:
        InvalidInput: `bad-config`.

    """
    if not config.trust_roots:
        return None
    directory = Path(config.trust_roots)
    try:
        files = [path.read_bytes() for path in sorted(directory.glob("*.asc"))]
        certificates = [parse_certificate(data) for data in files]
        roots = make_roots(files, [one.fingerprint for one in certificates], config.trust_threshold)
    except OSError as error:
        raise InvalidInput("bad-config", f"trust_roots: {error.filename}: {error.strerror}") from None
    except InvalidInput as error:
        raise InvalidInput("bad-config", f"trust_roots: {directory}: {error.detail}") from None
    if not files:
        raise InvalidInput("bad-config", f"trust_roots: no certificate (*.asc) in {directory}")
    return roots
