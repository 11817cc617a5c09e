"""The audit log in the store: reading it, and recording who read answers."""

from datetime import datetime
from typing import Protocol

import sqlalchemy as sa

from protocol.audit import CHECKPOINT, Entry, Head, checkpoint
from protocol.errors import InvalidInput
from server import schema
from server.rows import AuditEvent
from server.store_base import StorePart, read_audit_head

_audit = schema.audit

MAX_PAGE_BYTES = 4 << 20
_FETCH = 100  # rows


class Archived(Protocol):
    """What was archived (`server.archive`)."""

    @property
    def first(self) -> int:
        """The first entry's number."""

    @property
    def head(self) -> Head:
        """The head of it."""

    @property
    def sha256(self) -> str:
        """The file's SHA-256."""


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

    def cut_audit(self, archive: Archived, keeps: Entry, now: datetime) -> int:
        """Record that the log was archived and where it begins now, and delete the entries before that.

        Returns how many there were.

        Raises:
            InvalidInput: `conflict` where the log is not the one that was archived.

        """
        with self._database.writing() as connection:
            self._lock_audit(connection)
            numbers = (archive.head.seq, keeps.seq - 1)
            statement = sa.select(_audit.c.seq, _audit.c.sha256).where(_audit.c.seq.in_(numbers))
            found = {row.seq: row.sha256 for row in connection.execute(statement)}
            if found != dict(zip(numbers, (archive.head.sha256, keeps.previous), strict=True)):
                raise InvalidInput("conflict", "the log is not the one that was archived; nothing was cut")
            said = {"first": archive.first, "last": archive.head.seq, "file_sha256": archive.sha256}
            self._append_audit(
                connection,
                now,
                AuditEvent(kind="archived", who=("operator",), what=said),
                AuditEvent(kind=CHECKPOINT, who=("operator",), what=checkpoint(keeps)),
            )
            return connection.execute(sa.delete(_audit).where(_audit.c.seq < keeps.seq)).rowcount

    def first_audit_entry(self) -> int:
        """Return the number of the oldest entry that is there, 1 of an empty log."""
        with self._database.reading() as connection:
            return connection.execute(sa.select(sa.func.min(_audit.c.seq))).scalar_one() or 1

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
