"""What the parts of the store share: the lock on commands, moving them, and text that can be stored."""

from collections.abc import Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from protocol.command import TRANSITIONS, CommandState
from protocol.errors import InvalidInput
from server import schema
from server.database import Database
from server.rows import Change

# Any fixed number: the advisory lock of this database under which commands change.
_COMMANDS_LOCK = 0x6D6967636D6473
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
        return [
            Change(
                action_id=row.action_id,
                command_id=row.id,
                agent_id=row.agent_id,
                agent_name=row.name,
                state=after,
            )
            for row in chosen
        ]


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut a list of ids into pieces that fit one statement."""
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
