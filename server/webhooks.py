"""Brings alerts to webhooks: at least once, in order, for as long as it takes.

Rules:
1. The outbox is in the database (`server.store_webhooks`): a server that dies loses nothing, and several
   share the work without doing it twice, but for what was under way. A receiver tells doubles by the
   delivery's id, the digest of the alert.
2. One alert at a time for each hook, so they come in order. What fails is tried again, after pauses that
   double; an alert that a receiver refuses itself (4xx) is passed over after `REFUSALS` tries, and counted.
3. A hook that is too far behind passes over the oldest, and is told how many. Nothing here holds up anything
   else: not the intake, not another hook.
4. A delivery has `LONGEST_S` altogether: a receiver that hangs or drips is one that fails. Its answer's body
   is not read; redirects are not followed; proxies of the environment are not used; certificates are
   verified.
5. The body holds the envelope that the agent signed: a receiver can, and should, believe that alone.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

import httpx
import msgspec

from protocol.documents import SignedEnvelope
from protocol.errors import EnvironmentFailure
from server.bell import Bell
from server.database import Database
from server.rows import AlertRow, HookRow
from server.store import Store
from server.webhook_config import WebhookConfig

_log = logging.getLogger(__name__)

LONGEST_S = 20.0
_STEP_S = 10.0  # to connect, to send, to wait for the answer's first byte
_LEASE = timedelta(seconds=30)  # renewed before each delivery
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 600.0
_LOOK_AGAIN_S = 30.0  # what another server was told, and could not tell us
REFUSALS = 5
MOST_WAITING = 10_000
_TRY_LATER = frozenset({408, 425, 429})


class Random(Protocol):
    """The part of `random.Random` that is used."""

    def uniform(self, a: float, b: float) -> float:
        """Return a number between two."""


class Outcome(NamedTuple):
    """What became of one delivery; `is_refused` where the receiver does not want this very alert."""

    is_done: bool
    is_refused: bool = False
    problem: str = ""


class HookStanding(NamedTuple):
    """How a hook is: how many alerts wait for it, how often the next was tried, and what is wrong."""

    waiting: int
    attempts: int
    problem: str


class Webhooks:
    """The webhooks of one server; `outcomes` counts deliveries."""

    def __init__(
        self,
        hooks: Sequence[WebhookConfig],
        *,
        database: Database,
        store: Store,
        bell: Bell,
        clock: Callable[[], datetime],
        random: Random,
        lease: str = "",
    ) -> None:
        self._hooks = hooks
        self._database = database
        self._store = store
        self._bell = bell
        self._clock = clock
        self._random = random
        self._lease = lease or secrets.token_hex(16)
        self.outcomes: Counter[str] = Counter()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for hook in self._hooks:
                tasks.create_task(self._serve(hook))
            tasks.create_task(_for_ever())

    async def _serve(self, hook: WebhookConfig) -> None:
        with self._bell.listen() as wake:
            async with make_client(hook) as client:
                while True:
                    try:
                        pause_s = await self.deliver_waiting(hook, client)
                    except EnvironmentFailure as error:
                        _log.warning("a webhook waits", extra={"hook": hook.name, "reason": error})
                        pause_s = FIRST_PAUSE_S
                    await wake.wait(pause_s)

    async def deliver_waiting(self, hook: WebhookConfig, client: httpx.AsyncClient) -> float:
        """Deliver what waits, as far as it goes; return after how many seconds to look again at the latest.

        Raises:
            EnvironmentFailure: `database-away` or `disk-full`.

        """
        while True:
            place = await self._lease_it(hook)
            if place is None:
                return await self._due_s(hook)
            place = await self._keep_up(hook, place)
            row = await self._next_alert(hook, place)
            if row is None:
                await self._database.run(self._store.release_hook, hook.name, self._lease)
                return _LOOK_AGAIN_S
            outcome = await deliver(client, hook, row, place, self._clock())
            if not await self._settle(hook, place, row, outcome):
                return await self._due_s(hook)

    async def _lease_it(self, hook: WebhookConfig) -> HookRow | None:
        now = self._clock()
        return await self._database.run(self._store.lease_hook, hook.name, self._lease, now, now + _LEASE)

    async def _due_s(self, hook: WebhookConfig) -> float:
        """Return when a hook is to be looked at that is not free or not due."""
        places = {place.name: place for place in await self._database.read(self._store.list_hooks)}
        place = places.get(hook.name)
        times = [] if place is None else [place.next_try, place.leased_until]
        left = [(time - self._clock()).total_seconds() for time in times if time is not None]
        return min(max([FIRST_PAUSE_S / 10, *left]), _LOOK_AGAIN_S)

    async def _keep_up(self, hook: WebhookConfig, place: HookRow) -> HookRow:
        """Pass over the oldest where too many wait."""
        newest = await self._database.read(self._store.last_alert)
        if newest - place.position <= MOST_WAITING:
            return place
        position = newest - MOST_WAITING
        passed = await self._database.read(self._store.count_alerts, place.position, position, hook.wanted)
        skipped = place.skipped + passed
        await self._advance(hook, position, skipped)
        self.outcomes["skipped"] += passed
        _log.error("a webhook is too far behind", extra={"hook": hook.name, "skipped": passed})
        return msgspec.structs.replace(place, position=position, skipped=skipped, attempts=0)

    async def _next_alert(self, hook: WebhookConfig, place: HookRow) -> AlertRow | None:
        after: int | None = place.position
        while after is not None:
            found = await self._database.read(self._store.list_alerts, after, 1, hook.wanted)
            if found.rows:
                return found.rows[0]
            after = found.next
        return None

    async def _settle(self, hook: WebhookConfig, place: HookRow, row: AlertRow, outcome: Outcome) -> bool:
        """Write down what became of a delivery; tell whether to go on at once."""
        if outcome.is_done:
            self.outcomes["delivered"] += 1
            return await self._advance(hook, row.seq, 0)
        self.outcomes["failed"] += 1
        said = {"hook": hook.name, "alert": row.seq, "attempt": place.attempts + 1, "reason": outcome.problem}
        if outcome.is_refused and place.attempts + 1 >= REFUSALS:
            self.outcomes["skipped"] += 1
            _log.error("a webhook refuses an alert, which is passed over", extra=said)
            return await self._advance(hook, row.seq, place.skipped + 1)
        pause_s = min(FIRST_PAUSE_S * 2 ** min(place.attempts, 20), LONGEST_PAUSE_S)
        next_try = self._clock() + timedelta(seconds=self._random.uniform(pause_s / 2, pause_s))
        await self._database.run(self._store.postpone_hook, hook.name, self._lease, next_try, outcome.problem)
        _log.warning("a webhook fails", extra=said)
        return False

    async def _advance(self, hook: WebhookConfig, position: int, skipped: int) -> bool:
        until = self._clock() + _LEASE
        return await self._database.run(
            self._store.advance_hook, hook.name, self._lease, position, until, skipped
        )


async def _for_ever() -> None:
    """Keep the task of a server without webhooks alive."""
    await asyncio.Event().wait()


def make_client(hook: WebhookConfig) -> httpx.AsyncClient:
    """Return what talks to a hook, and to nobody else."""
    context = ssl.create_default_context(cafile=hook.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return httpx.AsyncClient(
        verify=context,
        trust_env=False,
        follow_redirects=False,
        timeout=_STEP_S,
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
    )


def compose_body(hook: WebhookConfig, row: AlertRow, place: HookRow) -> bytes:
    """Return what is POSTed; only what stands in `envelope` is signed, the rest is the server's word."""
    envelope = msgspec.json.decode(row.envelope, type=SignedEnvelope)
    told: dict[str, Any] = {
        "id": row.digest,
        "seq": row.seq,
        "hook": hook.name,
        "received": row.received,
        "agent": {
            "id": row.agent_id,
            "name": row.agent_name,
            "public_key": base64.b64encode(row.public_key).decode("ascii"),
        },
        "skipped": place.skipped,
        "alert": msgspec.Raw(base64.b64decode(envelope.payload)),
        "envelope": envelope,
    }
    return msgspec.json.encode(told)


def sign_delivery(secret: str, time: int, body: bytes) -> str:
    """Return the value of the header `X-MIG-Signature`: the time, and the HMAC-SHA-256 of `TIME.BODY`."""
    mac = hmac.new(secret.encode("utf-8"), b"%d." % time + body, hashlib.sha256).hexdigest()
    return f"t={time},v1={mac}"


async def deliver(
    client: httpx.AsyncClient, hook: WebhookConfig, row: AlertRow, place: HookRow, now: datetime
) -> Outcome:
    """POST one alert."""
    body = compose_body(hook, row, place)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "mig-server",
        "X-MIG-Delivery": row.digest,
        "X-MIG-Attempt": str(place.attempts + 1),
    }
    if hook.secret:
        headers["X-MIG-Signature"] = sign_delivery(hook.secret, int(now.timestamp()), body)
    try:
        async with asyncio.timeout(LONGEST_S):
            async with client.stream("POST", hook.url, content=body, headers=headers) as response:
                status = response.status_code
    except TimeoutError:
        return Outcome(is_done=False, problem=f"no answer within {LONGEST_S:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
        return Outcome(is_done=False, problem=f"{type(error).__name__}: {error}")
    if 200 <= status < 300:  # noqa: PLR2004  (2xx)
        return Outcome(is_done=True)
    is_refused = 400 <= status < 500 and status not in _TRY_LATER  # noqa: PLR2004  (4xx)
    return Outcome(is_done=False, is_refused=is_refused, problem=f"HTTP status {status}")


def read_standing(store: Store, hooks: Sequence[WebhookConfig]) -> dict[str, HookStanding]:
    """Return how each configured hook is."""
    places = {place.name: place for place in store.list_hooks()}
    newest = store.last_alert()
    return {
        hook.name: HookStanding(
            store.count_alerts(place.position, newest, hook.wanted), place.attempts, place.problem
        )
        for hook in hooks
        if (place := places.get(hook.name)) is not None
    }
