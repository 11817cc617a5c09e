"""Tells agents the head of the audit log, and keeps what they sign of it.

Rules:
1. A notice goes to an agent that has just been heard, so to one that is there: at its first heartbeat, then
   at most every `NOTICE_EVERY`, and only where the newest head that it repeats is not ours.
2. It lives for `NOTICE_TTL_S`. One that is lost costs nothing: the next comes with a later heartbeat.
3. Of each agent the newest heartbeat that names other heads than the one before, of the server's log or of
   its own, is kept as it was signed (`server.store_witnesses`).
4. The key that signs notices is made at the first start, in the state directory. It commands nothing.
"""

import contextlib
import logging
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.audit import NO_HEAD, Head
from protocol.envelope import encode_envelope
from protocol.errors import EnvironmentFailure
from protocol.heartbeat import Heartbeat
from protocol.notice import sign_notice
from server.database import Database
from server.store import Store

_log = logging.getLogger(__name__)

NOTICE_EVERY = timedelta(minutes=5)
NOTICE_TTL_S = 30
NOTICE_KEY_FILE = "notice.key"
_KEY_BYTES = 32


class Publishing(Protocol):
    """The part of the relay that is used here."""

    async def publish_documents(self, bodies: Mapping[str, bytes], ttl_s: int) -> frozenset[str]:
        """Publish a document to each of some agents."""


class Notices:
    """The notices of one server; `server` is its configured name."""

    def __init__(
        self,
        *,
        database: Database,
        store: Store,
        relay: Publishing,
        key: Ed25519PrivateKey,
        server: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._relay = relay
        self._key = key
        self._server = server
        self._clock = clock
        self._told: OrderedDict[str, datetime] = OrderedDict()  # the longest ago first
        self._kept: dict[str, int] = {}  # of enrolled agents: as many as the fleet has

    async def heard(self, heartbeats: Sequence[tuple[Heartbeat, bytes]]) -> None:
        """Keep what heartbeats say of the log, and tell their agents where it is now.

        Args:
            heartbeats: each with the signed envelope that it came in, both checked.

        """
        try:
            await self._keep(heartbeats)
            await self._tell([heartbeat for heartbeat, _ in heartbeats])
        except EnvironmentFailure as error:
            _log.warning("notices wait", extra={"reason": error})

    async def _keep(self, heartbeats: Sequence[tuple[Heartbeat, bytes]]) -> None:
        new = [
            (heartbeat, envelope)
            for heartbeat, envelope in heartbeats
            if _names_heads(heartbeat) and self._kept.get(heartbeat.agent) != _heads_hash(heartbeat)
        ]
        if not new:
            return
        problems = await self._database.run(self._store.save_witnesses, new, self._clock())
        for agent_id, problem in problems:
            _log.error("an agent's own log is not what it was", extra={"agent": agent_id, "reason": problem})
        self._kept |= {heartbeat.agent: _heads_hash(heartbeat) for heartbeat, _ in new}

    async def _tell(self, heartbeats: Sequence[Heartbeat]) -> None:
        now = self._clock()
        while self._told and now - next(iter(self._told.values())) >= NOTICE_EVERY:
            self._told.popitem(last=False)
        waiting = [heartbeat for heartbeat in heartbeats if heartbeat.agent not in self._told]
        if not waiting:
            return
        head = await self._database.read(self._store.audit_head)
        for heartbeat in waiting:
            if _newest(heartbeat).seq > head.seq:
                said = {"agent": heartbeat.agent, "entry": _newest(heartbeat).seq, "ends": head.seq}
                _log.error("an agent has seen a later entry of the audit log than there is", extra=said)
        agents = {heartbeat.agent for heartbeat in waiting if _newest(heartbeat) != head}
        if not agents or head == NO_HEAD:
            return
        time = now.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
        body = encode_envelope(sign_notice(self._key, server=self._server, time=time, head=head))
        taken = await self._relay.publish_documents(dict.fromkeys(sorted(agents), body), NOTICE_TTL_S)
        self._told |= dict.fromkeys(taken, now)


def _names_heads(heartbeat: Heartbeat) -> bool:
    return bool(heartbeat.server_heads or heartbeat.own_heads)


def _heads_hash(heartbeat: Heartbeat) -> int:
    """Return a short stand-in for what a heartbeat says of logs: only who said it could make two alike."""
    return hash((heartbeat.server_heads, heartbeat.own_heads))


def _newest(heartbeat: Heartbeat) -> Head:
    return Head(*heartbeat.server_heads[-1]) if heartbeat.server_heads else NO_HEAD


def load_notice_key(path: Path) -> Ed25519PrivateKey:
    """Return the key that signs notices; it is made, 0600, where it is missing.

    Raises:
        EnvironmentFailure: `state-failed`.

    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(Ed25519PrivateKey.generate().private_bytes_raw())
            with contextlib.suppress(FileExistsError):  # another process was faster
                path.hardlink_to(temporary)
            temporary.unlink()
        raw = path.read_bytes()
    except OSError as error:
        raise EnvironmentFailure("state-failed", f"{error.filename}: {error.strerror}") from None
    if len(raw) != _KEY_BYTES:
        raise EnvironmentFailure("state-failed", f"{path} holds no key of {_KEY_BYTES} bytes")
    return Ed25519PrivateKey.from_private_bytes(raw)
