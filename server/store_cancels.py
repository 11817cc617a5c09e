"""Cancels in the store: what was taken back, by whom, and which agents are still to be told."""

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa

from protocol.command import CommandState
from server import schema
from server.rows import AuditEvent, CancelToSend, Change
from server.store_base import StorePart, chunks

_actions = schema.actions
_commands = schema.commands
_cancels = schema.cancels
_schedules = schema.schedules
_TOLD = (CommandState.SENT.value, CommandState.ACKNOWLEDGED.value)
_RAN = (CommandState.DONE.value, CommandState.FAILED.value, CommandState.TIMED_OUT.value)


class CancelStore(StorePart):
    """The cancels' part of the store."""

    def list_concerned(self, action_id: str) -> list[str]:
        """Return the agents that hold, or may yet get, a command of an action that has not run."""
        with self._database.reading() as connection:
            return list(
                connection.execute(
                    sa.select(_commands.c.agent_id)
                    .distinct()
                    .where(_commands.c.action_id == action_id, _commands.c.state.not_in(_RAN))
                    .order_by(_commands.c.agent_id)
                ).scalars()
            )

    def save_cancel(  # noqa: PLR0917  (a cancel, who signed it, who brought it, whom it is for)
        self,
        action_id: str,
        envelope: bytes,
        signers: Sequence[str],
        submitter: str,
        agent_ids: Sequence[str],
        now: datetime,
    ) -> list[Change]:
        """Keep a cancel, to be sent to these agents; commands that no queue has taken yet end at once.

        A later one for the same action is sent too, in place of the first.
        """
        values = {
            "signers": sorted(signers),
            "envelope": envelope,
            "unsent": list(agent_ids),
            "is_sent": not agent_ids,
        }
        with self._database.writing() as connection:
            self._lock_commands(connection)
            is_new = self._insert_if_absent(
                connection, _cancels, action_id=action_id, cancelled=now, **values
            )
            if not is_new:
                connection.execute(
                    sa.update(_cancels).where(_cancels.c.action_id == action_id).values(values)
                )
            connection.execute(
                sa.update(_schedules)
                .where(_schedules.c.action_id == action_id)
                .values(next_start=None, due_until=None)
            )
            waiting = [_commands.c.action_id == action_id, _commands.c.state == CommandState.PENDING.value]
            changes = self._move_commands(connection, waiting, CommandState.CANCELLED, now)
            what = {"action": action_id, "signers": sorted(signers), "agents": len(agent_ids)}
            self._append_audit(connection, now, AuditEvent(kind="cancel", who=(submitter,), what=what))
        return changes

    def cancels_to_send(self, now: datetime) -> list[CancelToSend]:
        """Return cancels of unexpired actions that some agents have not been sent yet."""
        with self._database.reading() as connection:
            rows = connection.execute(
                _select_cancels(now).where(sa.not_(_cancels.c.is_sent)).order_by(_cancels.c.cancelled)
            ).all()
        return [_cancel_to_send(row, row.unsent) for row in rows]

    def agents_with_cancels(self, agent_ids: Collection[str], now: datetime) -> frozenset[str]:
        """Return those of some agents for which `cancels_for` is not empty."""
        found: set[str] = set()
        with self._database.reading() as connection:
            for ids in chunks(sorted(set(agent_ids))):
                found.update(
                    connection.execute(_select_cancelled(now).where(_commands.c.agent_id.in_(ids))).scalars()
                )
        return frozenset(found)

    def cancels_for(self, agent_id: str, now: datetime) -> list[CancelToSend]:
        """Return cancels of what an agent was sent and has not answered: its queue may have been lost."""
        concerned = sa.select(_commands.c.action_id).where(
            _commands.c.agent_id == agent_id, _commands.c.state.in_(_TOLD)
        )
        with self._database.reading() as connection:
            rows = connection.execute(_select_cancels(now).where(_cancels.c.action_id.in_(concerned))).all()
        return [_cancel_to_send(row, [agent_id]) for row in rows]

    def mark_cancel_sent(self, action_id: str, unsent: Sequence[str]) -> None:
        """Note which agents are left."""
        with self._database.writing() as connection:
            connection.execute(
                sa.update(_cancels)
                .where(_cancels.c.action_id == action_id)
                .values(unsent=list(unsent), is_sent=not unsent)
            )


def _select_cancels(now: datetime) -> sa.Select[tuple[str, bytes, list[str], datetime]]:
    return (
        sa.select(_cancels.c.action_id, _cancels.c.envelope, _cancels.c.unsent, _actions.c.expireafter)
        .join(_actions, _actions.c.id == _cancels.c.action_id)
        .where(_actions.c.expireafter > now)
    )


def _select_cancelled(now: datetime) -> sa.Select[str]:
    return (
        sa.select(_commands.c.agent_id)
        .distinct()
        .join(_cancels, _cancels.c.action_id == _commands.c.action_id)
        .join(_actions, _actions.c.id == _cancels.c.action_id)
        .where(_commands.c.state.in_(_TOLD), _actions.c.expireafter > now)
    )


def _cancel_to_send(row: sa.Row[tuple[str, bytes, list[str], datetime]], ids: Sequence[str]) -> CancelToSend:
    return CancelToSend(
        action_id=row.action_id, envelope=row.envelope, expireafter=row.expireafter, agent_ids=tuple(ids)
    )
