"""Alerts in the store: kept once each, in one order, read behind the last one that was seen."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from server import schema
from server.rows import AlertFilter, AlertRow, AlertsFound, ReceivedAlert
from server.store_base import StorePart, chunks

_ALERTS_LOCK = 0x6D6967616C7274  # of nothing else: alerts and commands do not wait for each other
_SCANNED = 5000  # numbers that are looked through for one page
_alerts = schema.alerts
_agents = schema.agents
_EVERYTHING = AlertFilter()


class AlertStore(StorePart):
    """The alerts' part of the store."""

    def save_alerts(self, received: Sequence[ReceivedAlert], now: datetime) -> int:
        """Store alerts; one that is stored already changes nothing. Returns how many are new."""
        insert = postgresql.insert if self._database.dialect == "postgresql" else sqlite.insert
        rows = {
            one.digest: {
                "digest": one.digest,
                "agent_id": one.agent_id,
                "module": one.module,
                "severity": one.severity,
                "received": now,
                "envelope": one.envelope,
            }
            for one in received
        }
        with self._database.writing() as connection:
            if self._database.dialect == "postgresql":
                # So they are committed in the order of `seq`: a reader never misses an earlier one.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ALERTS_LOCK)))
            # What is there already would use up a number without need.
            for digests in chunks([*rows]):
                known = sa.select(_alerts.c.digest).where(_alerts.c.digest.in_(digests))
                stored: Sequence[str] = connection.execute(known).scalars().all()
                for digest in stored:
                    del rows[digest]
            if rows:
                statement = insert(_alerts).on_conflict_do_nothing(index_elements=[_alerts.c.digest])
                connection.execute(statement, [*rows.values()])
        return len(rows)

    def list_alerts(self, after: int, limit: int, wanted: AlertFilter = _EVERYTHING) -> AlertsFound:
        """Return alerts behind one number, the oldest first; `limit` at most, and maybe none of a page."""
        where = [_alerts.c.seq > after]
        if wanted.modules:
            where.append(_alerts.c.module.in_(wanted.modules))
        if wanted.severities:
            where.append(_alerts.c.severity.in_(wanted.severities))
        if wanted.since is not None:
            where.append(_alerts.c.received >= wanted.since)
        numbers = (
            sa.select(_alerts.c.seq, _alerts.c.agent_id).where(*where).order_by(_alerts.c.seq).limit(_SCANNED)
        )
        with self._database.reading() as connection:
            scanned = connection.execute(numbers).all()
            matching = [row.seq for row in scanned if wanted.agents is None or row.agent_id in wanted.agents]
            page = matching[:limit]
            rows = [
                msgspec.convert(row._mapping, AlertRow)  # noqa: SLF001  (public name)
                for some in chunks(page)
                for row in connection.execute(_SELECT.where(_alerts.c.seq.in_(some)).order_by(_alerts.c.seq))
            ]
        if len(matching) > limit:
            return AlertsFound(rows=rows, next=page[-1])
        return AlertsFound(rows=rows, next=scanned[-1].seq if len(scanned) == _SCANNED else None)

    def last_alert(self) -> int:
        """Return the number of the newest alert; 0 where there is none."""
        with self._database.reading() as connection:
            return connection.execute(sa.select(sa.func.max(_alerts.c.seq))).scalar_one() or 0

    def count_alerts(self, after: int, until: int, wanted: AlertFilter = _EVERYTHING) -> int:
        """Count alerts behind one number up to another, by module and severity."""
        where = [_alerts.c.seq > after, _alerts.c.seq <= until]
        if wanted.modules:
            where.append(_alerts.c.module.in_(wanted.modules))
        if wanted.severities:
            where.append(_alerts.c.severity.in_(wanted.severities))
        with self._database.reading() as connection:
            return connection.execute(
                sa.select(sa.func.count()).select_from(_alerts).where(*where)
            ).scalar_one()

    def delete_alerts(self, received_before: datetime, _now: datetime, limit: int) -> int:
        """Delete some of the alerts that came before a time; return how many."""
        with self._database.writing() as connection:
            old = (
                sa.select(_alerts.c.seq)
                .where(_alerts.c.received < received_before)
                .order_by(_alerts.c.received)
                .limit(limit)
            )
            numbers: Sequence[int] = connection.execute(old).scalars().all()
            connection.execute(sa.delete(_alerts).where(_alerts.c.seq.in_(numbers)))
        return len(numbers)


_SELECT = sa.select(
    _alerts.c.seq,
    _alerts.c.digest,
    _alerts.c.agent_id,
    _alerts.c.received,
    _alerts.c.envelope,
    _agents.c.name.label("agent_name"),
    _agents.c.public_key,
).join(_agents, _agents.c.id == _alerts.c.agent_id)
