"""Commands and answers in the store: the outbox that the scheduler empties, and what comes back.

Every change of state goes through the table of `protocol.command`; whoever comes late changes nothing.
"""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from protocol.command import CommandState, is_transition
from protocol.documents import Progress
from protocol.heartbeat import Heartbeat, RunningCommand
from protocol.names import command_id
from server import schema
from server.bulk import insert_rows, is_one_of, take_numbers
from server.checking import AnswerFacts
from server.rows import Change, PendingCommand, ReceivedResult
from server.store_base import StorePart, chunks, ended_events, storable

_log = logging.getLogger(__name__)

_actions = schema.actions
_commands = schema.commands
_agents = schema.agents
_results = schema.results

# `expireafter` ends the time in which an agent may start; one that said it started gets this long to answer.
ANSWER_GRACE = timedelta(minutes=10)
_WAITING = (CommandState.PENDING.value, CommandState.SENT.value)


class CommandStore(StorePart):
    """The commands' part of the store."""

    def pending_commands(self, now: datetime, limit: int) -> list[PendingCommand]:
        """Return commands to publish, those that expire first in front; each body stands in memory once.

        What is held back is not among them.
        """
        statement = (
            sa.select(_commands.c.id, _commands.c.agent_id, _commands.c.action_id, _commands.c.expireafter)
            .join(_agents, _agents.c.id == _commands.c.agent_id)
            .where(
                _commands.c.state == CommandState.PENDING.value,
                _commands.c.wave > 0,
                _commands.c.expireafter > now,
                _agents.c.enrolment == "enrolled",
            )
            .order_by(_commands.c.expireafter, _commands.c.id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
            bodies = {
                row.id: row.envelope
                for ids in chunks(list({row.action_id for row in rows}))
                for row in connection.execute(
                    sa.select(_actions.c.id, _actions.c.envelope).where(_actions.c.id.in_(ids))
                )
            }
        return [
            PendingCommand(
                id=row.id,
                agent_id=row.agent_id,
                action_id=row.action_id,
                expireafter=row.expireafter,
                body=bodies[row.action_id],
            )
            for row in rows
        ]

    def mark_sent(self, command_ids: Sequence[str], now: datetime) -> list[Change]:
        """Pending commands that the broker confirmed are sent; what an agent already answered stays."""
        with self._database.writing() as connection:
            self._lock_commands(connection)
            return [
                change
                for ids in chunks(command_ids)
                for change in self._move_commands(
                    connection, [_commands.c.id.in_(ids)], CommandState.SENT, now
                )
            ]

    def mark_pending(self, command_ids: Sequence[str], now: datetime) -> list[Change]:
        """Sent commands that the broker returned or lost are pending again."""
        with self._database.writing() as connection:
            self._lock_commands(connection)
            return [
                change
                for ids in chunks(command_ids)
                for change in self._move_commands(
                    connection,
                    [_commands.c.id.in_(ids), _commands.c.state == CommandState.SENT.value],
                    CommandState.PENDING,
                    now,
                )
            ]

    def count_unacknowledged(
        self, agent_ids: Collection[str], now: datetime, sent_before: datetime
    ) -> Counter[str]:
        """Count, of each of some agents, its unexpired commands sent before a time and never acknowledged."""
        counts: Counter[str] = Counter()
        with self._database.reading() as connection:
            for ids in chunks(sorted(set(agent_ids))):
                rows = connection.execute(
                    sa.select(_commands.c.agent_id, sa.func.count().label("commands"))
                    .where(_commands.c.agent_id.in_(ids), *_is_unacknowledged(now, sent_before))
                    .group_by(_commands.c.agent_id)
                )
                counts.update({row.agent_id: row.commands for row in rows})
        return counts

    def silent_agents(self, agent_ids: Sequence[str], now: datetime, sent_before: datetime) -> list[str]:
        """Return those of some agents for which `count_unacknowledged` is not zero."""
        with self._database.reading() as connection:
            return [
                row.agent_id
                for ids in chunks(agent_ids)
                for row in connection.execute(
                    sa.select(_commands.c.agent_id)
                    .distinct()
                    .where(_commands.c.agent_id.in_(ids), *_is_unacknowledged(now, sent_before))
                )
            ]

    def requeue_agent(self, agent_id: str, now: datetime, sent_before: datetime) -> int:
        """Make pending again what `count_unacknowledged` counts; return how many."""
        with self._database.writing() as connection:
            self._lock_commands(connection)
            where = [_commands.c.agent_id == agent_id, *_is_unacknowledged(now, sent_before)]
            return len(self._move_commands(connection, where, CommandState.PENDING, now))

    def save_results(self, received: Sequence[ReceivedResult], now: datetime) -> list[Change]:
        """Store answers and end their commands; what is stored already, or fits no command, changes nothing.

        An answer fits where its action, agent and occurrence name a command and its digest is the action's.
        The answer to a command replaces an earlier refusal of it, under a new `seq`.
        """
        with self._database.writing() as connection:
            self._lock_commands(connection)
            ending = _find_ending(connection, received)
            if not ending:
                return []
            # A refusal may have been left behind, whatever became of its command since: a second signature
            # makes that pending again.
            answered = [one.command_id for one in ending]
            connection.execute(
                sa.delete(_results).where(is_one_of(connection, _results.c.command_id, answered))
            )
            first = take_numbers(connection, _results.c.seq, len(ending))
            insert_rows(
                connection, _results, [one.columns(first + number, now) for number, one in enumerate(ending)]
            )
            _end_commands(connection, ending, now)
            changes = [one.change(first + number) for number, one in enumerate(ending)]
            digests = [one.answer.digest for one in ending]
            self._append_audit(connection, now, *ended_events(zip(changes, digests, strict=True)))
        return changes

    def find_progress(self, heartbeats: Sequence[Heartbeat], now: datetime) -> list[Change]:
        """Return how far commands are of which agents say that they run; only an agent's own count."""
        said = {
            (heartbeat.agent, running.command): running
            for heartbeat in heartbeats
            for running in heartbeat.running
        }
        columns = (_commands.c.id, _commands.c.action_id, _commands.c.agent_id, _agents.c.name)
        started = (
            sa.select(*columns)
            .join(_agents, _agents.c.id == _commands.c.agent_id)
            .where(_commands.c.state == CommandState.ACKNOWLEDGED.value)
        )
        with self._database.reading() as connection:
            rows = [
                row
                for ids in chunks(sorted({command for _, command in said}))
                for row in connection.execute(started.where(_commands.c.id.in_(ids)))
            ]
        return [
            Change(
                action_id=row.action_id,
                command_id=row.id,
                agent_id=row.agent_id,
                agent_name=row.name,
                state=CommandState.ACKNOWLEDGED,
                progress=_progress(said[row.agent_id, row.id], now),
            )
            for row in rows
            if (row.agent_id, row.id) in said
        ]

    def expire_commands(self, now: datetime) -> list[Change]:
        """End commands whose time is over: unstarted ones at once, acknowledged ones after `ANSWER_GRACE`."""
        overdue = sa.or_(
            sa.and_(_commands.c.state.in_(_WAITING), _commands.c.expireafter <= now),
            sa.and_(
                _commands.c.state == CommandState.ACKNOWLEDGED.value,
                _commands.c.expireafter <= now - ANSWER_GRACE,
            ),
        )
        with self._database.writing() as connection:
            self._lock_commands(connection)
            return self._move_commands(connection, [overdue], CommandState.EXPIRED, now)

    def next_expiry(self) -> datetime | None:
        """Return when `expire_commands` will next have something to do, or None."""
        soonest = sa.select(sa.func.min(_commands.c.expireafter))
        with self._database.reading() as connection:
            waiting: datetime | None = connection.execute(
                soonest.where(_commands.c.state.in_(_WAITING))
            ).scalar_one()
            acknowledged: datetime | None = connection.execute(
                soonest.where(_commands.c.state == CommandState.ACKNOWLEDGED.value)
            ).scalar_one()
        times = [] if waiting is None else [waiting]
        if acknowledged is not None:
            times.append(acknowledged + ANSWER_GRACE)
        return min(times, default=None)


def _is_unacknowledged(now: datetime, sent_before: datetime) -> Sequence[sa.ColumnElement[bool]]:
    return [
        _commands.c.state == CommandState.SENT.value,
        _commands.c.updated < sent_before,
        _commands.c.expireafter > now,
    ]


class _Ending(NamedTuple):
    """An answer that ends a command: which, and whose."""

    command_id: str
    agent_name: str
    answer: ReceivedResult

    def columns(self, seq: int, now: datetime) -> tuple[object, ...]:
        """Return the answer's row, in the order of the table's columns."""
        facts = self.answer.facts
        # Of a sealed answer nobody here can tell what it found, or when it ran.
        return (
            seq,
            self.command_id,
            facts.action,
            self.answer.agent_id,
            facts.status,
            facts.found,
            facts.started,
            facts.finished,
            now,
            self.answer.envelope_bytes,
        )

    def change(self, seq: int) -> Change:
        """Return what followers are told."""
        return Change(
            action_id=self.answer.facts.action,
            command_id=self.command_id,
            agent_id=self.answer.agent_id,
            agent_name=self.agent_name,
            state=CommandState(self.answer.facts.status),
            seq=seq,
        )


def _find_ending(connection: sa.Connection, received: Sequence[ReceivedResult]) -> list[_Ending]:
    """Return which answers end commands; of two to one command that both may, the later one."""
    answers = [
        (command_id(item.facts.action, item.agent_id, item.facts.occurrence), item) for item in received
    ]
    known = {
        row.id: row
        for group in chunks(list({ident for ident, _ in answers}))
        for row in connection.execute(_SELECT_ANSWERED.where(is_one_of(connection, _commands.c.id, group)))
    }
    states = {ident: CommandState(row.state) for ident, row in known.items()}
    ending: dict[str, _Ending] = {}
    for ident, item in answers:
        if ident not in known or known[ident].digest != item.facts.action_sha256:
            said = {"agent": item.agent_id, "action": item.facts.action}
            _log.warning("an answer fits no command", extra=said)
            continue
        after = CommandState(item.facts.status)
        if is_transition(states[ident], after):
            states[ident] = after
            ending[ident] = _Ending(ident, known[ident].name, item)
    return list(ending.values())


_SELECT_ANSWERED = (
    sa.select(_commands.c.id, _commands.c.state, _actions.c.digest, _agents.c.name)
    .join(_actions, _actions.c.id == _commands.c.action_id)
    .join(_agents, _agents.c.id == _commands.c.agent_id)
)


def _end_commands(connection: sa.Connection, ending: Sequence[_Ending], now: datetime) -> None:
    """Move commands to how their answers say that they ended: all that ended alike at once."""
    plain: dict[str, list[str]] = {}
    for one in ending:
        if one.answer.facts.problem is None:
            plain.setdefault(one.answer.facts.status, []).append(one.command_id)
    for status, idents in plain.items():
        connection.execute(
            sa.update(_commands)
            .where(is_one_of(connection, _commands.c.id, idents))
            .values(state=status, updated=now, problem=None)
        )
    others = [
        {"command": one.command_id, "after": one.answer.facts.status, "why": _problem(one.answer.facts)}
        for one in ending
        if one.answer.facts.problem is not None
    ]
    if others:
        connection.execute(
            sa.update(_commands)
            .where(_commands.c.id == sa.bindparam("command"))
            .values(state=sa.bindparam("after"), updated=now, problem=sa.bindparam("why")),
            others,
        )


def _progress(running: RunningCommand, now: datetime) -> Progress:
    return Progress(
        operation=running.operation,
        elapsed_s=running.elapsed_s,
        statistics=dict(running.statistics),
        told=now,
    )


def _problem(facts: AnswerFacts) -> dict[str, object] | None:
    problem = facts.problem
    if problem is None:
        return None
    return {"code": storable(problem.code), "step": problem.step, "detail": storable(problem.detail)}
