"""Alerts: what agents saw without being asked, as pages and as a stream."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, QueryParameter
from litestar.response import Stream

from protocol.alert import ModuleName, Severity
from protocol.alert_documents import AlertItem, AlertPage
from protocol.documents import SignedEnvelope
from protocol.errors import InvalidInput, MigError
from protocol.target import parse_target
from server.api.access import bearer_token, needs, require_right, session_of
from server.api.agents import MAX_TARGET, Limit
from server.api.described import SECURED, refusals
from server.api.stream import PING_S, encode_event
from server.events import Wake
from server.rows import AlertFilter, AlertRow, AuditEvent
from server.services import Services
from server.sessions import Sessions

_MAX_SEQ = (1 << 63) - 1
_PAGE = 64
_MOST_AGENTS = 1_000_000
_MOST_NAMED = 16
After = Annotated[int, QueryParameter(ge=0, le=_MAX_SEQ, description="alerts behind this one")]
Target = Annotated[
    str | None, QueryParameter(max_length=MAX_TARGET, description="of agents that match; none: of all")
]
Modules = Annotated[
    list[ModuleName] | None, QueryParameter(max_items=_MOST_NAMED, description="by these modules")
]
Severities = Annotated[list[Severity] | None, QueryParameter(max_items=4, description="of these severities")]
Since = Annotated[datetime | None, QueryParameter(description="that came at this time or later")]


@get(
    "/alerts",
    summary="List alerts",
    tags=["alerts"],
    guards=[needs("read")],
    security=SECURED,
    responses=refusals(400, 401, 403, 503),
)
async def list_alerts(
    *,
    services: NamedDependency[Services],
    request: Request[Any, Any, State],
    target: Target = None,
    module: Modules = None,
    severity: Severities = None,
    since: Since = None,
    after: After = 0,
    limit: Limit = 100,
) -> AlertPage:
    """Return alerts in the order in which they came; each is to be believed by its agent's signature alone.

    A page may be empty and yet have a `next`: so far was looked through.
    """
    wanted = await _make_filter(services, target, module, severity, since)
    found = await services.database.read(services.store.list_alerts, after, limit, wanted)
    last = await services.database.read(services.store.last_alert)
    if found.rows:
        read = {"alerts": len(found.rows), "after": after, "last": found.rows[-1].seq}
        event = AuditEvent(kind="read", who=(session_of(request).fingerprint,), what=read)
        await services.database.run(services.store.record, event, services.clock())
    return AlertPage(alerts=tuple(map(alert_document, found.rows)), next=found.next, last=last)


@get(
    "/alerts/events",
    summary="Follow alerts",
    tags=["alerts"],
    guards=[needs("read")],
    security=SECURED,
    media_type="text/event-stream",
    responses=refusals(400, 401, 403, 503),
)
async def follow_alerts(
    *,
    services: NamedDependency[Services],
    sessions: NamedDependency[Sessions],
    request: Request[Any, Any, State],
    target: Target = None,
    module: Modules = None,
    severity: Severities = None,
    after: Annotated[
        int | None, QueryParameter(ge=0, le=_MAX_SEQ, description="alerts behind this one; none: new ones")
    ] = None,
    last_event_id: Annotated[
        str | None,
        HeaderParameter(name="Last-Event-ID", pattern=r"^[0-9]{0,18}$", description="resume behind it"),
    ] = None,
) -> Stream:
    """Return alerts as server-sent events, `alert` each, for as long as the session lasts."""
    wanted = await _make_filter(services, target, module, severity, None)
    start = int(last_event_id) if last_event_id else after
    if start is None:
        start = await services.database.read(services.store.last_alert)
    token = bearer_token(request)
    read = {"alerts": "followed", "after": start}
    event = AuditEvent(kind="read", who=(session_of(request).fingerprint,), what=read)
    await services.database.run(services.store.record, event, services.clock())

    async def refreshed() -> AlertFilter | None:
        """Return the filter of now: agents come and go; None where the session is over."""
        try:
            await require_right(sessions, token, "read")
        except InvalidInput:
            return None
        return await _make_filter(services, target, module, severity, None)

    return Stream(
        _stream(services, wanted, start, refreshed),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(
    services: Services,
    wanted: AlertFilter,
    after: int,
    refreshed: Callable[[], Awaitable[AlertFilter | None]],
) -> AsyncIterator[bytes]:
    """Yield alerts until session, database or server end; the reader comes back with its last id."""
    with services.bell.listen() as wake:
        yield b": following\n\n"
        try:
            async for event in _events(services, wanted, after, wake, refreshed):
                yield event
        except MigError:
            return


async def _events(
    services: Services,
    wanted: AlertFilter,
    after: int,
    wake: Wake,
    refreshed: Callable[[], Awaitable[AlertFilter | None]],
) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    next_check = loop.time() + PING_S
    while not services.bell.is_closed:
        found = await services.database.read(services.store.list_alerts, after, _PAGE, wanted)
        for row in found.rows:
            after = row.seq
            yield encode_event("alert", alert_document(row), seq=row.seq)
        if found.next is not None:
            after = found.next
            continue
        await wake.wait(max(0.0, next_check - loop.time()))
        if loop.time() >= next_check:
            renewed = await refreshed()
            if renewed is None:
                return
            wanted = renewed
            yield b": ping\n\n"
            next_check = loop.time() + PING_S


async def _make_filter(
    services: Services,
    target: str | None,
    modules: list[str] | None,
    severities: list[Severity] | None,
    since: datetime | None,
) -> AlertFilter:
    if since is not None and since.tzinfo is None:
        raise InvalidInput("usage", "since has no time zone")
    agents = None
    if target is not None:
        parsed = await asyncio.to_thread(parse_target, target)
        now = services.clock()
        _, rows = await services.database.read(services.store.find_agents, parsed, now, _MOST_AGENTS, 0)
        agents = frozenset(row.id for row in rows)
    return AlertFilter(
        agents=agents, modules=tuple(modules or ()), severities=tuple(severities or ()), since=since
    )


def alert_document(row: AlertRow) -> AlertItem:
    """Show an alert."""
    return AlertItem(
        seq=row.seq,
        digest=row.digest,
        agent=row.agent_id,
        agent_name=row.agent_name,
        public_key=base64.b64encode(row.public_key).decode("ascii"),
        received=row.received,
        envelope=msgspec.json.decode(row.envelope, type=SignedEnvelope),
    )
