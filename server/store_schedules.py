"""Recurring actions in the store: which occurrence is to be started when, and who was sent it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from protocol.action import Action, decode_action
from protocol.command import CommandState
from protocol.envelope import ACTION, decode_envelope
from protocol.names import command_id
from protocol.schedule import format_occurrence
from server import schema
from server.rows import AuditEvent, Recurrence
from server.store_base import StorePart, chunks

_actions = schema.actions
_commands = schema.commands
_agents = schema.agents
_schedules = schema.schedules
_BATCH = 50
# Clocks of endpoints differ from ours by a little: what came a moment early would be refused there.
_MARGIN = timedelta(seconds=2)


class ScheduleStore(StorePart):
    """The recurring actions' part of the store."""

    def recurrences_to_start(self, now: datetime) -> list[Recurrence]:
        """Return recurring actions whose next occurrence is to be started now."""
        return self._recurrences([_schedules.c.next_start <= now])

    def recurrences_due(self, now: datetime) -> list[Recurrence]:
        """Return recurring actions whose occurrence was started and is still due."""
        return self._recurrences([_schedules.c.due_until > now])

    def _recurrences(self, where: Sequence[sa.ColumnElement[bool]]) -> list[Recurrence]:
        with self._database.reading() as connection:
            rows = connection.execute(
                sa.select(_actions.c.envelope, _schedules.c.occurrence)
                .join(_schedules, _schedules.c.action_id == _actions.c.id)
                .where(*where)
                .order_by(_schedules.c.next_start, _actions.c.id)
                .limit(_BATCH)
            ).all()
        return [
            Recurrence(
                action=decode_action(decode_envelope(row.envelope, ACTION).payload),
                occurrence=row.occurrence,
            )
            for row in rows
        ]

    def next_start(self) -> datetime | None:
        """Return when the next occurrence is to be started, or None."""
        with self._database.reading() as connection:
            soonest: datetime | None = connection.execute(
                sa.select(sa.func.min(_schedules.c.next_start))
            ).scalar_one()
        return soonest

    def start_occurrence(self, action: Action, agent_ids: Sequence[str], now: datetime) -> int:
        """Make a command of the occurrence that is due for each of these agents that has none yet.

        What was missed is not made up for: agents would refuse it. Returns how many commands were made.
        """
        calendar = action.calendar
        if calendar is None:
            raise ValueError("an action without a schedule has no occurrences")
        due = calendar.due(now)
        with self._database.writing() as connection:
            self._lock_commands(connection)
            values: dict[str, object] = {"next_start": next_start(action, now)}
            made: list[str] = []
            if due is not None:
                occurrence, until = format_occurrence(due), due + calendar.grace
                made = self._insert_commands(connection, action, occurrence, until, agent_ids, now)
                values |= {"occurrence": occurrence, "due_until": until}
            connection.execute(
                sa.update(_schedules)
                .where(_schedules.c.action_id == action.id, ~_is_cancelled())
                .values(values)
            )
            if due is not None and made:
                what = {"action": action.id, "occurrence": format_occurrence(due), "commands": len(made)}
                self._append_audit(connection, now, AuditEvent(kind="occurrence", who=("server",), what=what))
        return len(made)

    def _insert_commands(  # noqa: PLR0917  (an occurrence, its end, and whom it is for)
        self,
        connection: sa.Connection,
        action: Action,
        occurrence: str,
        until: datetime,
        agent_ids: Sequence[str],
        now: datetime,
    ) -> list[str]:
        is_there = sa.select(schema.cancels.c.action_id).where(schema.cancels.c.action_id == action.id)
        if connection.execute(is_there).first() is not None:
            return []
        wanted = {command_id(action.id, agent_id, occurrence): agent_id for agent_id in agent_ids}
        known = {
            row.id
            for ids in chunks([*wanted])
            for row in connection.execute(sa.select(_commands.c.id).where(_commands.c.id.in_(ids)))
        }
        made = [ident for ident in wanted if ident not in known]
        if made:
            connection.execute(
                sa.insert(_commands),
                [
                    {
                        "id": ident,
                        "action_id": action.id,
                        "agent_id": wanted[ident],
                        "occurrence": occurrence,
                        "state": CommandState.PENDING.value,
                        "updated": now,
                        "expireafter": until,
                    }
                    for ident in made
                ],
            )
        return made


def next_start(action: Action, now: datetime) -> datetime | None:
    """Return when the next occurrence after now is to be started: a moment after its time."""
    calendar = action.calendar
    following = None if calendar is None else calendar.following(now)
    if calendar is None or following is None:
        return None
    return following + min(_MARGIN, calendar.grace / 4)


def first_start(action: Action, now: datetime) -> datetime | None:
    """Return when a new recurring action is first to be looked at: now, where an occurrence is due."""
    calendar = action.calendar
    if calendar is not None and calendar.due(now) is not None:
        return now
    return next_start(action, now)


def _is_cancelled() -> sa.ColumnElement[bool]:
    return sa.exists().where(schema.cancels.c.action_id == _schedules.c.action_id).correlate(_schedules)
