"""Agents in the store: heartbeats, and who is meant by a target."""

import sys
from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa

from protocol.command import CommandState
from protocol.heartbeat import Heartbeat
from protocol.names import command_id
from protocol.target import Endpoint, Target
from protocol.target_tree import And, Field
from server import schema
from server.rows import REMEMBERED, AgentRow, AuditEvent, Change, Instance
from server.store_base import StorePart, chunks, require_storable
from server.store_enrolment import agent_row
from server.target_sql import prefilter

_agents = schema.agents
_MAX_INSTANCES = 4
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
    "instances",
    "trust_version",
    "trust_expires",
    "trust_state",
)
# Made once: building it for each of a fleet's heartbeats costs more than running it.
_SAVE_HEARTBEAT = (
    sa.update(_agents)
    .where(_agents.c.id == sa.bindparam("agent_id"), _agents.c.enrolment != "revoked")
    .values({column: sa.bindparam(f"new_{column}") for column in _SAID})
)


class AgentStore(StorePart):
    """The agents' part of the store."""

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
        if not heartbeats:
            return []
        with self._database.writing() as connection:
            if any(heartbeat.commands for heartbeat in heartbeats):
                self._lock_commands(connection)
            # In the order of ids, as whoever changes several agents: so nobody waits in a circle.
            said = self._save_said(connection, sorted(heartbeats, key=lambda one: one.agent), now)
            changes = [
                change
                for heartbeat in heartbeats
                if heartbeat.agent in said
                for ids in chunks(heartbeat.commands)
                for change in self._move_commands(
                    connection,
                    [schema.commands.c.id.in_(ids), schema.commands.c.agent_id == heartbeat.agent],
                    CommandState.ACKNOWLEDGED,
                    now,
                )
            ]
            self._mark_removed(connection, [one.agent for one in heartbeats if one.leaving], now)
        return changes

    def _mark_removed(self, connection: sa.Connection, agent_ids: Sequence[str], now: datetime) -> None:
        """Let agents take part no longer that say that they remove themselves.

        Their commands stay: the answer to the last one may come behind this.
        """
        for agent_id in agent_ids:
            done = connection.execute(
                sa.update(_agents)
                .where(_agents.c.id == agent_id, _agents.c.enrolment == "enrolled")
                .values(enrolment="removed", decided=now)
            )
            if done.rowcount:
                event = AuditEvent(
                    kind="enrolment", who=(agent_id,), what={"agent": agent_id, "now": "removed"}
                )
                self._append_audit(connection, now, event)

    def note_flood(self, agent_id: str, now: datetime) -> None:
        """Keep that an agent was cut off for sending too much."""
        with self._database.writing() as connection:
            connection.execute(sa.update(_agents).where(_agents.c.id == agent_id).values(flooded=now))

    def _save_said(
        self, connection: sa.Connection, heartbeats: Sequence[Heartbeat], now: datetime
    ) -> Collection[str]:
        """Keep what agents say of themselves, the last of each; return the agents that may say something."""
        known = self._known_instances(connection, heartbeats)
        said: dict[str, dict[str, object]] = {}
        doubles = []
        for heartbeat in heartbeats:
            if heartbeat.agent not in known:
                continue
            instances, is_double = add_instance(known[heartbeat.agent], heartbeat)
            known[heartbeat.agent] = instances
            said[heartbeat.agent] = _said(heartbeat, instances, now)
            if is_double:
                doubles.append(heartbeat.agent)
        if said:
            connection.execute(_SAVE_HEARTBEAT, list(said.values()))
        for ids in chunks(doubles):
            connection.execute(sa.update(_agents).where(_agents.c.id.in_(ids)).values(duplicated=now))
        return said.keys()

    def _known_instances(
        self, connection: sa.Connection, heartbeats: Sequence[Heartbeat]
    ) -> dict[str, tuple[Instance, ...]]:
        ids = sorted({heartbeat.agent for heartbeat in heartbeats})
        return {
            row.id: msgspec.convert(row.instances, tuple[Instance, ...])
            for some in chunks(ids)
            for row in connection.execute(
                sa.select(_agents.c.id, _agents.c.instances).where(
                    _agents.c.id.in_(some), _agents.c.enrolment != "revoked"
                )
            )
        }

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
                return total, [agent_row(row) for row in page]
            condition = prefilter(target, _agents, self._database.dialect, now)
            rows = connection.execute(sa.select(_agents).where(condition).order_by(*order)).all()
        matching = [row for row in map(agent_row, rows) if _is_meant(row, target, now)]
        return len(matching), matching[offset : offset + limit]

    def find_namesakes(self, names: Sequence[str], now: datetime) -> dict[str, list[str]]:
        """Return, of these names, those that several agents had within the last day, with the agents' ids."""
        found: dict[str, list[str]] = {}
        with self._database.reading() as connection:
            for some in chunks(sorted(set(names))):
                rows = connection.execute(
                    sa.select(_agents.c.name, _agents.c.id)
                    .where(
                        _agents.c.name.in_(some),
                        _agents.c.enrolment.not_in(["revoked", "removed"]),
                        sa.or_(
                            _agents.c.heartbeattime > now - REMEMBERED,
                            sa.and_(_agents.c.heartbeattime.is_(None), _agents.c.enrolled > now - REMEMBERED),
                        ),
                    )
                    .order_by(_agents.c.id)
                )
                for row in rows:
                    found.setdefault(row.name, []).append(row.id)
        return {name: ids for name, ids in found.items() if len(ids) > 1}

    def find_commanded(self, target: Target, now: datetime) -> list[str]:
        """Return the ids of all agents that an action with this target is sent to."""
        _, found = self.find_agents(target, now, sys.maxsize, 0)
        return [agent.id for agent in found if agent.enrolment == "enrolled"]

    def find_without_occurrence(
        self, action_id: str, occurrence: str, target: Target, agent_ids: Collection[str], now: datetime
    ) -> list[str]:
        """Return those of some agents that a recurring action means, and that have no command of this one."""
        wanted = {command_id(action_id, agent_id, occurrence): agent_id for agent_id in agent_ids}
        commands = schema.commands.c
        with self._database.reading() as connection:
            for ids in chunks([*wanted]):
                for row in connection.execute(sa.select(commands.id).where(commands.id.in_(ids))):
                    wanted.pop(row.id)
            rows = [
                row
                for ids in chunks([*wanted.values()])
                for row in connection.execute(
                    sa.select(_agents).where(_agents.c.id.in_(ids), _agents.c.enrolment == "enrolled")
                )
            ]
        return [row.id for row in map(agent_row, rows) if _is_meant(row, target, now)]


def _said(heartbeat: Heartbeat, instances: Sequence[Instance], now: datetime) -> dict[str, object]:
    """Return the parameters of `_SAVE_HEARTBEAT`."""
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
        "instances": msgspec.to_builtins(instances),
        "trust_version": heartbeat.trust_version,
        "trust_expires": heartbeat.trust_expires,
        "trust_state": heartbeat.trust_state,
    }
    return {"agent_id": heartbeat.agent, **{f"new_{column}": value for column, value in said.items()}}


def add_instance(known: Sequence[Instance], heartbeat: Heartbeat) -> tuple[tuple[Instance, ...], bool]:
    """Add a heartbeat's process to those known under its id; tell whether two of them live.

    A restart gives a new process and ends the old one. So a process that says something new after another has
    spoken shows that both live: a cloned state directory. Heartbeats that come twice say nothing new.
    """
    spoken = next((entry for entry in known if entry.started == heartbeat.started), None)
    if spoken is not None and heartbeat.time <= spoken.time:
        return tuple(known), False
    instance = Instance(
        started=heartbeat.started,
        time=heartbeat.time,
        name=heartbeat.name,
        addresses=heartbeat.environment.get("addresses", ""),
    )
    others = [entry for entry in known if entry.started != heartbeat.started]
    is_double = spoken is not None and known[-1].started != heartbeat.started
    return (*others, instance)[-_MAX_INSTANCES:], is_double


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
