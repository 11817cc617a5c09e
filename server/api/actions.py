"""Actions: submit, list, show; their roster and answers."""

from collections.abc import Mapping
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter, QueryParameter, RawBody
from litestar.response import Stream

from protocol.documents import ActionPage, Cancelled, ResultItem, ResultPage, Roster, StoredAction, Submitted
from protocol.envelope import MAX_ENVELOPE_BYTES
from protocol.errors import InvalidInput
from server.api.access import bearer_token, needs, require_right, session_of
from server.api.agents import Limit, Offset
from server.api.described import SECURED, EnvelopeOperation, refusals
from server.api.documents import action_document, result_document, stored_action_document
from server.api.roster import command_document
from server.api.sending import All, Concurrency, Rate, StopAt, Waves, WaveWait, read_manner
from server.api.stream import event_stream
from server.rows import ActionRow, AuditEvent
from server.services import Services
from server.sessions import Sessions
from server.store import Store
from server.submission import submit_action
from server.withdrawal import cancel_action

_ACTION_ID_LENGTH = 36
_MAX_SEQ = (1 << 63) - 1
_CREATED = 202
_THERE_ALREADY = 200

Occurrence = Annotated[
    str | None,
    QueryParameter(pattern=r"^[0-9TZ:-]{20}$", description="of an action with a schedule, one time of it"),
]
Seq = Annotated[int, QueryParameter(ge=0, le=_MAX_SEQ, description="answers behind this `seq`")]


@post(
    "/actions",
    summary="Submit a signed action",
    tags=["actions"],
    status_code=_CREATED,
    guards=[needs("submit")],
    security=SECURED,
    operation_class=EnvelopeOperation,
    request_max_body_size=MAX_ENVELOPE_BYTES,
    responses=refusals(400, 401, 403, 404, 409, 413, 503),
)
async def submit(  # noqa: PLR0917  (Litestar passes all by name)
    body: RawBody,
    services: NamedDependency[Services],
    request: Request[Any, Any, State],
    is_wide: All = False,  # noqa: FBT002  (as above)
    waves: Waves = None,
    concurrency: Concurrency = None,
    rate: Rate = None,
    stop_at: StopAt = None,
    wave_wait: WaveWait = None,
) -> Response[Submitted]:
    """Send an envelope of type `application/vnd.mig.action+json` to the agents that its target means.

    Every signature must be by an active investigator, and one of them by somebody who may submit. 202 for a
    new action; the same action again answers 200 and makes no commands, unless it brings another signature:
    then agents that refused it are asked again. 403 `too-many-agents` where more agents match than
    `max_agents` of the server's configuration, unless `all` says that they are meant.

    With `waves`, `concurrency` or `rate` the server lets a new action out bit by bit, to agents that are
    online first; with `stop_at` what was not sent is cancelled when too many answers are failures.
    """
    manner = read_manner(is_wide, waves, concurrency, rate, stop_at, wave_wait)
    submitter = session_of(request).fingerprint
    action_id, created = await submit_action(services, body, submitter, manner)
    return Response(
        Submitted(id=action_id, commands=created.commands, new=created.is_new),
        status_code=_CREATED if created.is_new else _THERE_ALREADY,
    )


@post(
    "/actions/{action_id:str}/cancel",
    summary="Cancel an action",
    tags=["actions"],
    status_code=_CREATED,
    guards=[needs("submit")],
    security=SECURED,
    operation_class=EnvelopeOperation,
    request_max_body_size=MAX_ENVELOPE_BYTES,
    responses=refusals(400, 401, 403, 404, 409, 410, 413, 503),
)
async def cancel(
    body: RawBody,
    services: NamedDependency[Services],
    request: Request[Any, Any, State],
    action_id: FromPath[str],
) -> Cancelled:
    """Send an envelope of type `application/vnd.mig.cancel+json` to the agents that were asked.

    One of its signers must have signed the action, or have the right `manage`. Commands that no broker has
    taken end at once; the others end when their agents say so.
    """
    row = await _require_action(services, action_id)
    return await cancel_action(services, row, body, session_of(request).fingerprint)


@get(
    "/actions",
    summary="List actions",
    tags=["actions"],
    guards=[needs("read")],
    security=SECURED,
    responses=refusals(400, 401, 403, 503),
)
async def list_actions(
    services: NamedDependency[Services], limit: Limit = 100, offset: Offset = 0
) -> ActionPage:
    """Return one page of all actions, the newest first."""
    total, rows = await services.database.read(services.store.list_actions, limit, offset)
    return ActionPage(total=total, actions=tuple(map(action_document, rows)))


@get(
    "/actions/{action_id:str}",
    summary="Show an action",
    tags=["actions"],
    guards=[needs("read")],
    security=SECURED,
    responses=refusals(400, 401, 403, 404, 410, 503),
)
async def show_action(services: NamedDependency[Services], action_id: FromPath[str]) -> StoredAction:
    """Return one action with the envelope that agents get."""
    return stored_action_document(await _require_action(services, action_id))


@get(
    "/actions/{action_id:str}/commands",
    summary="Show an action's roster",
    tags=["actions"],
    guards=[needs("read")],
    security=SECURED,
    responses=refusals(400, 401, 403, 404, 410, 503),
)
async def list_commands(
    services: NamedDependency[Services], action_id: FromPath[str], occurrence: Occurrence = None
) -> Roster:
    """Return everyone who was asked, how each stands, and how far those are that run."""
    await _require_action(services, action_id)
    rows = await services.database.read(services.store.list_commands, action_id, occurrence)
    told = services.events.last_progress
    return Roster(commands=tuple(command_document(row, told(row.id)) for row in rows))


@get(
    "/actions/{action_id:str}/results",
    summary="Show an action's answers",
    tags=["actions"],
    guards=[needs("read")],
    security=SECURED,
    responses=refusals(400, 401, 403, 404, 410, 503),
)
async def list_results(  # noqa: PLR0917  (Litestar passes all by name)
    services: NamedDependency[Services],
    request: Request[Any, Any, State],
    action_id: FromPath[str],
    after: Seq = 0,
    limit: Limit = 100,
    occurrence: Occurrence = None,
) -> ResultPage:
    """Return one page of answers in the order of their arrival; a page may hold fewer than `limit`.

    The audit log says who has read how many, before they are given. 410 `gone` where all that there were have
    been deleted because of their age.
    """
    row = await _require_action(services, action_id)
    page = await services.database.read(_result_page, services.store, action_id, after, limit, occurrence)
    if page.results:
        read = {"answers": len(page.results), "after": after, "last": page.results[-1].seq}
        await _record_read(services, session_of(request).fingerprint, {"action": action_id, **read})
    elif row.deleted_answers and not after:
        raise InvalidInput("gone", f"{row.deleted_answers:,} answers were deleted because of their age")
    return page


@get(
    "/actions/{action_id:str}/events",
    summary="Follow an action",
    tags=["actions"],
    guards=[needs("read")],
    security=SECURED,
    media_type="text/event-stream",
    responses=refusals(400, 401, 403, 404, 410, 503),
)
async def follow(
    services: NamedDependency[Services],
    sessions: NamedDependency[Sessions],
    request: Request[Any, Any, State],
    action_id: FromPath[str],
    last_event_id: Annotated[
        str | None,
        HeaderParameter(name="Last-Event-ID", pattern=r"^[0-9]{0,18}$", description="resume behind it"),
    ] = None,
) -> Stream:
    """Return the action's changes as server-sent events.

    `result` for each answer, stored ones first; `command` for other changes of state; `progress` for how far
    a command is; `campaign` for how a paced action stands, when that has changed; `done` with the counts when
    no command is open, which ends the stream. The audit log says who follows, and afterwards how many answers
    they were given.
    """
    row = await _require_action(services, action_id)
    token = bearer_token(request)
    reader = session_of(request).fingerprint
    after = int(last_event_id or 0)
    await _record_read(services, reader, {"action": action_id, "follows": True, "after": after})

    async def still_allowed() -> bool:
        try:
            await require_right(sessions, token, "read")
        except InvalidInput:
            return False
        return True

    def record(answers: int, last: int) -> None:
        read = {"action": action_id, "answers": answers, "after": after, "last": last}
        services.database.run_anyway(services.store.record, _read_event(reader, read), services.clock())

    is_paced = row.campaign is not None
    stream = event_stream(services, action_id, after, still_allowed, record, is_paced=is_paced)
    return Stream(
        stream,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _record_read(services: Services, reader: str, what: Mapping[str, object]) -> None:
    await services.database.run(services.store.record, _read_event(reader, what), services.clock())


def _read_event(reader: str, what: Mapping[str, object]) -> AuditEvent:
    return AuditEvent(kind="read", who=(reader,), what=what)


async def _require_action(services: Services, action_id: str) -> ActionRow:
    row = None
    if len(action_id) == _ACTION_ID_LENGTH and action_id.isascii() and action_id.isprintable():
        row = await services.database.read(services.store.get_action, action_id)
        deleted = (
            await services.database.read(services.store.find_deletion, action_id) if row is None else None
        )
        if deleted is not None:
            raise InvalidInput("gone", f"the action was deleted because of its age on {deleted:%Y-%m-%d}")
    if row is None:
        raise InvalidInput("not-found", "no such action")
    return row


def _result_page(store: Store, action_id: str, after: int, limit: int, occurrence: str | None) -> ResultPage:
    rows = store.list_results(action_id, after, limit, occurrence)
    results: tuple[ResultItem, ...] = tuple(map(result_document, rows))
    has_more = bool(rows) and bool(store.list_results(action_id, rows[-1].seq, 1, occurrence))
    return ResultPage(results=results, next=rows[-1].seq if has_more else None)
