"""The audit log in the store: reading it, recording who read answers, and what agents have seen of it."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from protocol.audit import Head
from server import schema
from server.rows import AuditEvent, WitnessRow
from server.store_base import StorePart, read_audit_head

_audit = schema.audit
_witnesses = schema.witnesses
_agents = schema.agents

MAX_PAGE_BYTES = 4 << 20
_FETCH = 100  # rows


class AuditStore(StorePart):
    """The audit log's part of the store."""

    def record(self, event: AuditEvent, now: datetime) -> None:
        """Append what no other method of the store records."""
        with self._database.writing() as connection:
            self._append_audit(connection, now, event)

    def audit_head(self) -> Head:
        """Return the head of the audit log."""
        with self._database.reading() as connection:
            return read_audit_head(connection)

    def list_audit(self, after: int, limit: int) -> tuple[list[tuple[int, bytes]], Head]:
        """Return entries with numbers above `after`, by their exact bytes, and the head of that moment.

        At most `limit`, and no more once they have `MAX_PAGE_BYTES`; one at least, where there is one.
        """
        statement = (
            sa.select(_audit.c.seq, _audit.c.entry)
            .where(_audit.c.seq > after)
            .order_by(_audit.c.seq)
            .limit(limit)
        )
        page: list[tuple[int, bytes]] = []
        size = 0
        with self._database.reading() as connection:
            with connection.execution_options(yield_per=_FETCH).execute(statement) as rows:
                for row in rows:
                    page.append((row.seq, row.entry))
                    size += len(row.entry)
                    if size >= MAX_PAGE_BYTES:
                        break
            return page, read_audit_head(connection)

    def save_witnesses(self, heartbeats: Sequence[tuple[str, bytes]], now: datetime) -> None:
        """Keep, for each agent, the signed heartbeat in which it names heads of the audit log."""
        insert = postgresql.insert if self._database.dialect == "postgresql" else sqlite.insert
        statement = insert(_witnesses)
        newest = statement.on_conflict_do_update(
            index_elements=[_witnesses.c.agent_id],
            set_={"received": statement.excluded.received, "envelope": statement.excluded.envelope},
        )
        # In one order, so that two servers that save at once cannot wait for each other.
        rows = [
            {"agent_id": agent_id, "received": now, "envelope": envelope}
            for agent_id, envelope in sorted(dict(heartbeats).items())
        ]
        with self._database.writing() as connection:
            connection.execute(newest, rows)

    def list_witnesses(self, after: str, limit: int) -> list[WitnessRow]:
        """Return what agents have signed of the log, in the order of their ids, behind one of them."""
        statement = (
            sa.select(_witnesses, _agents.c.name.label("agent_name"), _agents.c.public_key)
            .join(_agents, _agents.c.id == _witnesses.c.agent_id)
            .where(_witnesses.c.agent_id > after)
            .order_by(_witnesses.c.agent_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        return [msgspec.convert(row._mapping, WitnessRow) for row in rows]  # noqa: SLF001  (public name)
