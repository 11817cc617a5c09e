"""Agents: who is there, and whom a target means."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from protocol.errors import InvalidInput
from protocol.names import is_agent_id
from protocol.target import parse_target
from protocol.target_tree import Always, print_node
from server.api.access import needs
from server.api.described import SECURED, refusals
from server.api.documents import Agent, AgentPage, agent_document
from server.services import Services

_MAX_TARGET = 32768
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
        QueryParameter(max_length=_MAX_TARGET, description="a target, e.g. os = 'linux'; none: all agents"),
    ] = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> AgentPage:
    """Return the agents that a target means, and the target as endpoints will enforce it.

    Agents that are not enrolled get no commands: only a target that names a status finds them.
    """
    parsed = None if target is None else parse_target(target)
    now = services.clock()
    total, rows = await services.database.read(services.store.find_agents, parsed, now, limit, offset)
    return AgentPage(
        total=total,
        enforced=print_node(Always()) if parsed is None else str(parsed.enforced()),
        agents=tuple(agent_document(row, now) for row in rows),
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
    return agent_document(row, services.clock())
