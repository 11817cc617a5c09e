"""Agents: who is there, and whom a target means."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter, RawBody

from protocol.documents import Agent, AgentPage, Decision
from protocol.envelope import MAX_ENVELOPE_BYTES
from protocol.errors import EnvironmentFailure, InvalidInput
from protocol.names import is_agent_id
from protocol.target import parse_target
from protocol.target_tree import Always, print_node
from server.api.access import needs
from server.api.described import SECURED, EnvelopeOperation, refusals
from server.api.documents import agent_document
from server.approvals import apply_approval, check_approval
from server.oddities import warnings_for
from server.rows import AgentRow
from server.services import Services

_log = logging.getLogger(__name__)

MAX_TARGET = 32768
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="at most so many")]
Offset = Annotated[int, QueryParameter(ge=0, le=1 << 31, description="leave out so many at the beginning")]


@get(
    "/agents",
    summary="Find agents",
    tags=["agents"],
    guards=[needs("read")],
    security=SECURED,
    responses=refusals(400, 401, 403, 503),
)
async def find_agents(
    services: NamedDependency[Services],
    target: Annotated[
        str | None,
        QueryParameter(max_length=MAX_TARGET, description="a target, e.g. os = 'linux'; none: all agents"),
    ] = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> AgentPage:
    """Return the agents that a target means, and the target as endpoints will enforce it.

    Agents that are not enrolled get no commands: only a target that names a status finds them.
    """
    parsed = None if target is None else await asyncio.to_thread(parse_target, target)
    now = services.clock()
    total, rows = await services.database.read(services.store.find_agents, parsed, now, limit, offset)
    return AgentPage(
        total=total,
        max_agents=services.config.max_agents,
        enforced=print_node(Always()) if parsed is None else str(parsed.enforced()),
        agents=await _documents(services, rows, now),
    )


@get(
    "/agents/{agent_id:str}",
    summary="Show an agent",
    tags=["agents"],
    guards=[needs("read")],
    security=SECURED,
    responses=refusals(400, 401, 403, 404, 503),
)
async def show_agent(services: NamedDependency[Services], agent_id: FromPath[str]) -> Agent:
    """Return one agent."""
    row = await services.database.read(services.store.get_agent, agent_id) if is_agent_id(agent_id) else None
    if row is None:
        raise InvalidInput("not-found", "no such agent")
    [agent] = await _documents(services, [row], services.clock())
    return agent


@post(
    "/agents/approvals",
    summary="Approve or revoke agents by a signed decision",
    tags=["agents"],
    status_code=200,
    guards=[needs("manage")],
    security=SECURED,
    operation_class=EnvelopeOperation,
    request_max_body_size=MAX_ENVELOPE_BYTES,
    responses=refusals(400, 401, 403, 413, 503),
)
async def decide_on_agents(body: RawBody, services: NamedDependency[Services]) -> Decision:
    """Carry out an envelope of type `application/vnd.mig.approval+json`, signed by somebody who may manage.

    A decision counts for an agent only if it is newer than the last one. Revoked agents' connections are
    closed.
    """
    database, store, now = services.database, services.store, services.clock()
    investigators = await database.read(store.list_investigators)
    url = services.config.url
    approval, signers = await asyncio.to_thread(check_approval, body, investigators, url, now)
    decided = await database.run(apply_approval, store, approval, signers, now)
    who = ",".join(sorted(signers))
    for agent_id in decided.done:
        _log.info("decided", extra={"agent": agent_id, "decision": decided.decision, "by": who})
    problem = ""
    if decided.decision == "revoke" and decided.done:
        try:
            await services.shut_out(decided.done)
        except EnvironmentFailure as error:
            problem = f"{error.code}: {error.detail}"
    return Decision(
        decision=decided.decision,
        done=decided.done,
        unknown=decided.unknown,
        stale=decided.stale,
        problem=problem,
    )


async def _documents(services: Services, rows: Sequence[AgentRow], now: datetime) -> tuple[Agent, ...]:
    warnings = await services.database.read(warnings_for, services.store, rows, now)
    return tuple(agent_document(row, now, warnings[row.id]) for row in rows)
