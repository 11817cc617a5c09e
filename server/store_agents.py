"""Agents in the store: enrolment, heartbeats, and who is meant by a target."""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

from protocol.command import OPEN_STATES, CommandState
from protocol.errors import InvalidInput
from protocol.heartbeat import Heartbeat
from protocol.target import Endpoint, Target
from protocol.target_tree import And, Field
from server import schema
from server.rows import AgentRow, AuditEvent, Change, Enrolment, EnrolmentPolicy
from server.store_base import StorePart, chunks, require_storable
from server.target_sql import prefilter

_agents = schema.agents
_OPEN = sorted(OPEN_STATES)
_SAID = (
    "name",
    "os",
    "arch",
    "ident",
    "version",
    "heartbeattime",
    "clock_skew_s",
    "tags",
    "environment",
    "modules",
)
# Made once: building it for each of a fleet's heartbeats costs more than running it.
_SAVE_HEARTBEAT = (
    sa.update(_agents)
    .where(_agents.c.id == sa.bindparam("agent_id"), _agents.c.enrolment != "revoked")
    .values({column: sa.bindparam(f"new_{column}") for column in _SAID})
)


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
            state: Enrolment = "enrolled" if enrolment == "open" else "pending"
            is_new = self._insert_if_absent(
                connection,
                _agents,
                id=agent_id,
                public_key=public_key,
                enrolment=state,
                enrolled=now,
                tags={},
                environment={},
                modules=[],
            )
            if is_new:
                self._append_audit(connection, now, _enrolment_event("server", agent_id, state))
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
                    connection,
                    [schema.commands.c.agent_id == agent_id, schema.commands.c.state.in_(_OPEN)],
                    CommandState.CANCELLED,
                    now,
                )
            self._append_audit(connection, now, _enrolment_event("operator", agent_id, enrolment))
            return _agent_row(connection.execute(sa.select(_agents).where(_agents.c.id == agent_id)).one())

    def save_heartbeat(self, heartbeat: Heartbeat, now: datetime) -> list[Change]:
        """Keep one heartbeat: `save_heartbeats`."""
        return self.save_heartbeats([heartbeat], now)

    def save_heartbeats(self, heartbeats: Sequence[Heartbeat], now: datetime) -> list[Change]:
        """Keep what agents say of themselves, and mark the commands that they hold acknowledged.

        A heartbeat of an agent that is unknown or revoked changes nothing; only its own commands count.

        Raises:
            InvalidInput: `bad-document` where a text cannot be stored; nothing is stored then.

        """
        for heartbeat in heartbeats:
            require_storable_heartbeat(heartbeat)
        with self._database.writing() as connection:
            if any(heartbeat.commands for heartbeat in heartbeats):
                self._lock_commands(connection)
            return [
                change
                for heartbeat in heartbeats
                for change in self._save_heartbeat(connection, heartbeat, now)
            ]

    def _save_heartbeat(
        self, connection: sa.Connection, heartbeat: Heartbeat, now: datetime
    ) -> Iterator[Change]:
        said = {
            "name": heartbeat.name,
            "os": heartbeat.os,
            "arch": heartbeat.arch,
            "ident": heartbeat.ident,
            "version": heartbeat.version,
            "heartbeattime": now,
            "clock_skew_s": (heartbeat.time - now).total_seconds(),
            "tags": heartbeat.tags,
            "environment": heartbeat.environment,
            "modules": list(heartbeat.modules),
        }
        values = {f"new_{column}": value for column, value in said.items()}
        if connection.execute(_SAVE_HEARTBEAT, {"agent_id": heartbeat.agent, **values}).rowcount == 0:
            return
        for ids in chunks(heartbeat.commands):
            yield from self._move_commands(
                connection,
                [schema.commands.c.id.in_(ids), schema.commands.c.agent_id == heartbeat.agent],
                CommandState.ACKNOWLEDGED,
                now,
            )

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


def _enrolment_event(who: str, agent_id: str, enrolment: Enrolment) -> AuditEvent:
    return AuditEvent(kind="enrolment", who=(who,), what={"agent": agent_id, "enrolment": enrolment})


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


def require_storable_heartbeat(heartbeat: Heartbeat) -> None:
    """Raise unless every database can hold what a heartbeat says.

    Raises:
        InvalidInput: `bad-document`.

    """
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
