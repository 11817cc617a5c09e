"""What the parts of the store share: the lock on commands, moving them, and text that can be stored."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from protocol.audit import NO_HEAD, Head, encode_entry
from protocol.command import FINAL_STATES, TRANSITIONS, CommandState
from protocol.errors import InvalidInput
from server import schema
from server.database import Database
from server.rows import AuditEvent, Change

# Any fixed number: the advisory lock of this database under which commands change.
_COMMANDS_LOCK = 0x6D6967636D6473
_AUDIT_LOCK = 0x6D696761756469  # taken behind the commands' lock, never before it
_ENDED_PER_ENTRY = 250
_I = TypeVar("_I", str, int)
_CHUNK = 1000  # ids in one statement; SQLite takes 32,766 parameters at most


class StorePart:
    """One subject of the store. Each public method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _lock_commands(self, connection: sa.Connection) -> None:
        """Let one transaction at a time change commands and add results, as SQLite does anyway.

        So results are committed in the order of their `seq`, and a follower that resumes behind one never
        misses an earlier one; and transactions that change the same commands cannot deadlock.
        """
        if self._database.dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_COMMANDS_LOCK)))

    def _append_audit(self, connection: sa.Connection, now: datetime, *events: AuditEvent) -> None:
        """Append to the audit log, in the transaction of what is recorded and as its last change.

        Several servers share one chain: on PostgreSQL a lock that is held until the commit keeps them in
        order, SQLite has one writer; the primary key refuses a number that is given twice.
        """
        if not events:
            return
        self._lock_audit(connection)
        head = read_audit_head(connection)
        rows = []
        time = now.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
        for event in events:
            entry, head = encode_entry(head, time=time, kind=event.kind, who=event.who, what=event.what)
            rows.append({"seq": head.seq, "sha256": head.sha256, "entry": entry})
        connection.execute(sa.insert(schema.audit), rows)

    def _lock_audit(self, connection: sa.Connection) -> None:
        """Let one transaction at a time append to the audit log."""
        if self._database.dialect == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_AUDIT_LOCK)))

    def _insert_if_absent(self, connection: sa.Connection, table: sa.Table, **values: object) -> bool:
        """Insert a row unless its primary key is there; tell whether it was inserted."""
        insert = postgresql.insert if self._database.dialect == "postgresql" else sqlite.insert
        key = next(iter(table.primary_key.columns))
        statement = insert(table).values(**values).on_conflict_do_nothing(index_elements=[key])
        return connection.execute(statement.returning(key)).first() is not None

    def _move_commands(
        self,
        connection: sa.Connection,
        where: Sequence[sa.ColumnElement[bool]],
        after: CommandState,
        now: datetime,
    ) -> list[Change]:
        """Move all commands that meet `where` and may go to `after`; the caller holds the commands' lock."""
        before = [state.value for state, ends in TRANSITIONS.items() if after in ends]
        chosen = connection.execute(
            sa.select(
                schema.commands.c.id,
                schema.commands.c.action_id,
                schema.commands.c.agent_id,
                schema.agents.c.name,
            )
            .join(schema.agents, schema.agents.c.id == schema.commands.c.agent_id)
            .where(schema.commands.c.state.in_(before), *where)
        ).all()
        for ids in chunks([row.id for row in chosen]):
            connection.execute(
                sa.update(schema.commands)
                .where(schema.commands.c.id.in_(ids))
                .values(state=after.value, updated=now)
            )
        changes = [
            Change(
                action_id=row.action_id,
                command_id=row.id,
                agent_id=row.agent_id,
                agent_name=row.name,
                state=after,
            )
            for row in chosen
        ]
        if after in FINAL_STATES:
            self._append_audit(connection, now, *ended_events((change, "") for change in changes))
        return changes


def read_audit_head(connection: sa.Connection) -> Head:
    """Return the head of the audit log."""
    row = connection.execute(
        sa.select(schema.audit.c.seq, schema.audit.c.sha256).order_by(schema.audit.c.seq.desc()).limit(1)
    ).first()
    return NO_HEAD if row is None else Head(row.seq, row.sha256)


def ended_events(ended: Iterable[tuple[Change, str]]) -> list[AuditEvent]:
    """Return what the audit log says of commands that ended: by action, with the digests of their answers.

    `commands` lists command, agent, state and the SHA-256 of the answer's payload, empty where there is none.
    """
    by_action: dict[str, list[tuple[str, str, str, str]]] = {}
    for change, digest in ended:
        by_action.setdefault(change.action_id, []).append(
            (change.command_id, change.agent_id, change.state.value, digest)
        )
    return [
        AuditEvent(
            kind="ended",
            who=("server",),
            what={"action": action_id, "commands": commands[start : start + _ENDED_PER_ENTRY]},
        )
        for action_id, commands in by_action.items()
        for start in range(0, len(commands), _ENDED_PER_ENTRY)
    ]


def chunks(ids: Sequence[_I]) -> Iterator[Sequence[_I]]:
    """Cut a list of ids or numbers into pieces that fit one statement."""
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]


def require_storable(text: str, code: str, where: str) -> None:
    """Raise unless every database can hold the text: no NUL (PostgreSQL), no lone surrogate (UTF-8).

    Raises:
        InvalidInput: with the given code.

    """
    if not _is_storable(text):
        raise InvalidInput(code, f"{where} holds a character that cannot be stored")


def storable(text: str) -> str:
    """Return the text with what cannot be stored replaced, where a refusal would lose an answer."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _is_storable(text: str) -> bool:
    try:
        return b"\0" not in text.encode("utf-8")
    except UnicodeEncodeError:
        return False
