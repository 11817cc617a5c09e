"""What is odd about agents: two processes under one id, floods, ids that share a name, trust, its log."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from server.rows import AgentRow, PublishedRow
from server.store import Store
from server.trust_oddities import trust_warnings

_MAX_NAMED = 3
LOG_WARNING = (
    "its own log was written anew or went back, or two agents run under this id: mig audit verify; "
    "when it has been looked into, approve the agent again"
)


def warnings_for(store: Store, rows: Sequence[AgentRow], now: datetime) -> Mapping[str, tuple[str, ...]]:
    """Return for each agent, by id, one line for each thing that a person should look into."""
    sharing = store.find_namesakes([row.name for row in rows if row.name], now)
    newest = next(iter(store.list_trust(1)), None)
    contradicted = store.find_contradicted([row.id for row in rows])
    warnings = {row.id: [*_warnings(row, sharing.get(row.name, ()), newest, now)] for row in rows}
    for agent_id in contradicted:
        warnings[agent_id].append(LOG_WARNING)
    return {agent_id: tuple(lines) for agent_id, lines in warnings.items()}


def _warnings(
    row: AgentRow, sharing: Sequence[str], newest: PublishedRow | None, now: datetime
) -> Iterable[str]:
    if row.is_duplicate(now):
        yield f"two agents run under this id: {_differences(row)}"
    if row.is_flooding(now):
        yield (
            f"it was cut off at {row.flooded:%Y-%m-%dT%H:%M:%SZ} for sending far more than an agent does; "
            "look at the endpoint, or revoke it"
        )
    others = [agent_id for agent_id in sharing if agent_id != row.id]
    if others and row.id in sharing:
        more = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
        yield f"the name {row.name} is also that of {', '.join(others[:_MAX_NAMED])}{more}"
    yield from trust_warnings(row, newest, now)


def _differences(row: AgentRow) -> str:
    """Say what tells the last two processes apart."""
    return " and ".join(
        f"{one.name} at {one.addresses or 'no address'}, started {one.started:%Y-%m-%dT%H:%M:%SZ}"
        for one in row.instances[-2:]
    )
