"""Deleting what is old, in the store: small transactions, each with an entry in the audit log.

What is deleted: answers by the time at which they came; commands that have ended, and actions without a
command that can no longer be run, recur or be answered. Deleted answers are counted and deleted actions
remembered by their ids, so that nobody takes them for something that never was.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median

import sqlalchemy as sa

from protocol.command import FINAL_STATES
from server import schema
from server.rows import AuditEvent
from server.store_base import StorePart

_actions = schema.actions
_commands = schema.commands
_results = schema.results
_deleted = schema.deleted_actions
_LATELY = timedelta(minutes=10)
_MOST_SKEW = timedelta(days=1)
_ENDED = sorted(state.value for state in FINAL_STATES)


class RetentionStore(StorePart):
    """The part of the store that deletes. `limit` must fit one statement and one audit entry: 500."""

    def delete_answers(self, received_before: datetime, now: datetime, limit: int) -> int:
        """Delete some of the answers that came before a time; return how many. Their commands stay."""
        with self._database.writing() as connection:
            self._lock_commands(connection)
            rows = connection.execute(
                sa.select(_results.c.seq, _results.c.action_id)
                .where(_results.c.received < received_before)
                .order_by(_results.c.received)
                .limit(limit)
            ).all()
            self._drop_answers(connection, [row.seq for row in rows], [row.action_id for row in rows], now)
        return len(rows)

    def delete_commands(self, ended_before: datetime, now: datetime, limit: int) -> int:
        """Delete some of the commands, with their answers, whose time was over and that changed no more."""
        with self._database.writing() as connection:
            self._lock_commands(connection)
            rows = connection.execute(
                sa.select(_commands.c.id, _commands.c.action_id)
                .where(
                    _commands.c.state.in_(_ENDED),
                    _commands.c.expireafter < ended_before,
                    _commands.c.updated < ended_before,
                )
                .limit(limit)
            ).all()
            if not rows:
                return 0
            ids = [row.id for row in rows]
            answers = connection.execute(
                sa.select(_results.c.seq, _results.c.action_id).where(_results.c.command_id.in_(ids))
            ).all()
            self._drop_answers(
                connection, [row.seq for row in answers], [row.action_id for row in answers], now
            )
            connection.execute(sa.delete(_commands).where(_commands.c.id.in_(ids)))
            self._say(connection, "commands", _counted(row.action_id for row in rows), now)
        return len(rows)

    def delete_actions(self, ended_before: datetime, now: datetime, limit: int) -> int:
        """Delete some of the actions that were over before a time and have no command any more."""
        has_commands = sa.exists().where(_commands.c.action_id == _actions.c.id).correlate(_actions)
        may_recur = (
            sa.exists()
            .where(
                schema.schedules.c.action_id == _actions.c.id,
                schema.schedules.c.next_start.is_not(None),
            )
            .correlate(_actions)
        )
        with self._database.writing() as connection:
            self._lock_commands(connection)
            rows = connection.execute(
                sa.select(_actions.c.id, _actions.c.digest)
                .where(
                    _actions.c.created < ended_before,
                    _actions.c.expireafter < ended_before,
                    ~has_commands,
                    ~may_recur,
                )
                .order_by(_actions.c.created)
                .limit(limit)
            ).all()
            if not rows:
                return 0
            ids = [row.id for row in rows]
            for table in (schema.schedules, schema.cancels, schema.campaigns):
                connection.execute(sa.delete(table).where(table.c.action_id.in_(ids)))
            connection.execute(sa.delete(_actions).where(_actions.c.id.in_(ids)))
            connection.execute(sa.insert(_deleted), [{"id": ident, "deleted": now} for ident in ids])
            self._say(connection, "actions", [(row.id, row.digest) for row in rows], now)
        return len(rows)

    def find_deletion(self, action_id: str) -> datetime | None:
        """Return when an action was deleted; None for one that was not."""
        with self._database.reading() as connection:
            return connection.execute(
                sa.select(_deleted.c.deleted).where(_deleted.c.id == action_id)
            ).scalar_one_or_none()

    def doubt_clock(self, now: datetime) -> str | None:
        """Return why this server's clock may be wrong, by the clocks of agents that were heard lately."""
        heard = schema.agents.c.heartbeattime
        query = sa.select(schema.agents.c.clock_skew_s).where(
            schema.agents.c.enrolment == "enrolled", heard > now - _LATELY, heard < now + _LATELY
        )
        with self._database.reading() as connection:
            rows: Sequence[float | None] = connection.execute(query).scalars().all()
        skews = [skew for skew in rows if skew is not None]
        if not skews:
            return "no agent was heard lately, so nothing says that the clock is right"
        if abs(median(skews)) > _MOST_SKEW.total_seconds():
            return f"the clock is {abs(median(skews)):,.0f} s off those of agents"
        return None

    def size_bytes(self) -> tuple[int, int]:
        """Return how large the database is, and how much of it is free for what comes (SQLite)."""
        with self._database.reading() as connection:
            if self._database.dialect == "postgresql":
                query = sa.select(sa.func.pg_database_size(sa.func.current_database(), type_=sa.BigInteger))
                return connection.execute(query).scalar_one(), 0
            pages, free, page_bytes = (
                int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
                for name in ("page_count", "freelist_count", "page_size")
            )
            return pages * page_bytes, free * page_bytes

    def _drop_answers(
        self, connection: sa.Connection, numbers: Sequence[int], action_ids: Sequence[str], now: datetime
    ) -> None:
        if not numbers:
            return
        connection.execute(sa.delete(_results).where(_results.c.seq.in_(numbers)))
        counted = _counted(action_ids)
        for action_id, count in counted:
            connection.execute(
                sa.update(_actions)
                .where(_actions.c.id == action_id)
                .values(deleted_answers=_actions.c.deleted_answers + count)
            )
        self._say(connection, "answers", counted, now)

    def _say(
        self, connection: sa.Connection, what: str, said: Collection[tuple[str, object]], now: datetime
    ) -> None:
        self._append_audit(connection, now, AuditEvent(kind="deleted", who=("server",), what={what: [*said]}))


def _counted(action_ids: Iterable[str]) -> list[tuple[str, int]]:
    return sorted(Counter(action_ids).items())
