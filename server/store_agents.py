"""Agents in the store: enrolment, heartbeats, and who is meant by a target."""

import sys
from datetime import datetime

import msgspec
import sqlalchemy as sa

from protocol.command import CommandState
from protocol.errors import InvalidInput
from protocol.heartbeat import Heartbeat
from protocol.target import Endpoint, Target
from protocol.target_tree import And, Field
from server import schema
from server.rows import AgentRow, Change, Enrolment, EnrolmentPolicy
from server.store_base import StorePart, chunks, require_storable
from server.target_sql import prefilter

_agents = schema.agents


class AgentStore(StorePart):
    """The agents' part of the store."""

    def enrol_agent(
        self, agent_id: str, public_key: bytes, enrolment: EnrolmentPolicy, now: datetime
    ) -> AgentRow:
        """Insert an agent unless it is known, and return it as it stands: what is known is not changed.

        Args:
            agent_id: the caller has checked that the key is its, and that the agent holds it.
            public_key: raw Ed25519, 32 bytes.
            enrolment: the configured policy: `open` lets the agent take part, `approval` leaves it pending.
            now: the server's time.

        """
        with self._database.writing() as connection:
            self._insert_if_absent(
                connection,
                _agents,
                id=agent_id,
                public_key=public_key,
                enrolment="enrolled" if enrolment == "open" else "pending",
                enrolled=now,
                tags={},
                environment={},
                modules=[],
            )
            return _agent_row(connection.execute(sa.select(_agents).where(_agents.c.id == agent_id)).one())

    def get_agent(self, agent_id: str) -> AgentRow | None:
        """Return an agent, or None."""
        with self._database.reading() as connection:
            row = connection.execute(sa.select(_agents).where(_agents.c.id == agent_id)).first()
        return None if row is None else _agent_row(row)

    def approve_agent(self, agent_id: str, now: datetime) -> AgentRow:
        """Let an agent take part, also one that was revoked.

        Raises:
            InvalidInput: `not-found`.

        """
        return self._set_enrolment(agent_id, "enrolled", now)

    def revoke_agent(self, agent_id: str, now: datetime) -> AgentRow:
        """Shut an agent out; its commands that wait are cancelled.

        Raises:
            InvalidInput: `not-found`.

        """
        return self._set_enrolment(agent_id, "revoked", now)

    def _set_enrolment(self, agent_id: str, enrolment: Enrolment, now: datetime) -> AgentRow:
        with self._database.writing() as connection:
            self._lock_commands(connection)
            updated = connection.execute(
                sa.update(_agents).where(_agents.c.id == agent_id).values(enrolment=enrolment)
            )
            if updated.rowcount == 0:
                raise InvalidInput("not-found", f"no agent {agent_id}")
            if enrolment == "revoked":
                self._move_commands(
                    connection, [schema.commands.c.agent_id == agent_id], CommandState.CANCELLED, now
                )
            return _agent_row(connection.execute(sa.select(_agents).where(_agents.c.id == agent_id)).one())

    def save_heartbeat(self, heartbeat: Heartbeat, now: datetime) -> list[Change]:
        """Keep what an agent says of itself, and mark the commands that it holds acknowledged.

        A heartbeat of an agent that is unknown or revoked changes nothing; only its own commands count.

        Raises:
            InvalidInput: `bad-document` where a text cannot be stored.

        """
        _require_storable_heartbeat(heartbeat)
        with self._database.writing() as connection:
            if heartbeat.commands:
                self._lock_commands(connection)
            updated = connection.execute(
                sa.update(_agents)
                .where(_agents.c.id == heartbeat.agent, _agents.c.enrolment != "revoked")
                .values(
                    name=heartbeat.name,
                    os=heartbeat.os,
                    arch=heartbeat.arch,
                    ident=heartbeat.ident,
                    version=heartbeat.version,
                    heartbeattime=now,
                    clock_skew_s=(heartbeat.time - now).total_seconds(),
                    tags=heartbeat.tags,
                    environment=heartbeat.environment,
                    modules=list(heartbeat.modules),
                )
            )
            if updated.rowcount == 0:
                return []
            return [
                change
                for ids in chunks(heartbeat.commands)
                for change in self._move_commands(
                    connection,
                    [schema.commands.c.id.in_(ids), schema.commands.c.agent_id == heartbeat.agent],
                    CommandState.ACKNOWLEDGED,
                    now,
                )
            ]

    def find_agents(
        self, target: Target | None, now: datetime, limit: int, offset: int
    ) -> tuple[int, list[AgentRow]]:
        """Return how many agents match and one page of them, ordered by name and id; None matches all.

        The database returns at least those that match; `Target.matches` decides. Agents that are not enrolled
        get no commands, so only a target that names a status finds them.
        """
        order = (_agents.c.name, _agents.c.id)
        with self._database.reading() as connection:
            if target is None:
                total = connection.execute(sa.select(sa.func.count()).select_from(_agents)).scalar_one()
                page = connection.execute(sa.select(_agents).order_by(*order).limit(limit).offset(offset))
                return total, [_agent_row(row) for row in page]
            condition = prefilter(target, _agents, self._database.dialect, now)
            rows = connection.execute(sa.select(_agents).where(condition).order_by(*order)).all()
        matching = [row for row in map(_agent_row, rows) if _is_meant(row, target, now)]
        return len(matching), matching[offset : offset + limit]

    def find_commanded(self, target: Target, now: datetime) -> list[str]:
        """Return the ids of all agents that an action with this target is sent to."""
        _, found = self.find_agents(target, now, sys.maxsize, 0)
        return [agent.id for agent in found if agent.enrolment == "enrolled"]


def _agent_row(row: sa.Row[tuple[object, ...]]) -> AgentRow:
    return msgspec.convert(row._mapping, AgentRow)  # noqa: SLF001  (SQLAlchemy's public name for it)


def _is_meant(agent: AgentRow, target: Target, now: datetime) -> bool:
    if agent.enrolment != "enrolled" and not _names_status(target):
        return False
    return target.matches(_endpoint(agent, now))


def _names_status(target: Target) -> bool:
    # The parser lets such a term stand at the top only.
    terms = target.tree.terms if isinstance(target.tree, And) else (target.tree,)
    return any(getattr(term, "field", None) == Field(column="status") for term in terms)


def _endpoint(agent: AgentRow, now: datetime) -> Endpoint:
    return Endpoint(
        id=agent.id,
        name=agent.name,
        os=agent.os,
        arch=agent.arch,
        ident=agent.ident,
        version=agent.version,
        tags=agent.tags,
        environment=agent.environment,
        status=agent.status(now).value,
        heartbeattime=agent.heartbeattime,
        now=now,
    )


def _require_storable_heartbeat(heartbeat: Heartbeat) -> None:
    texts = [
        heartbeat.name,
        heartbeat.os,
        heartbeat.arch,
        heartbeat.ident,
        heartbeat.version,
        *heartbeat.modules,
    ]
    for table in (heartbeat.tags, heartbeat.environment):
        texts += [*table.keys(), *table.values()]
    for text in texts:
        require_storable(text, "bad-document", "heartbeat")
