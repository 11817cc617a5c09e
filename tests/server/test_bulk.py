"""Statements on many rows at once."""

import pytest
import sqlalchemy as sa

from server import schema
from server.bulk import insert_rows, is_one_of, take_numbers
from server.database import Database
from server.store import Store
from tests.support.fleet import LATER, NOW, FleetAgent

_HOOKS = schema.webhooks
_ODD = (
    "plain",
    'quoted "twice"',
    "'single'",
    "back\\slash",
    "{curly,comma}",
    "NULL",
    "%s ?",
    "\x01",
    "ß𝕏",
    "",
)


def hook(name: str, position: int = 1) -> tuple[object, ...]:
    return (name, position, 0, None, "", LATER, 2, "none")


def names(connection: sa.Connection, *wanted: str) -> set[str]:
    statement = sa.select(_HOOKS.c.name).where(is_one_of(connection, _HOOKS.c.name, wanted))
    return set(connection.execute(statement).scalars())


def test_rows_come_back_as_they_were_inserted(database: Database) -> None:
    rows = [hook(name, number) for number, name in enumerate(_ODD)]
    with database.writing() as connection:
        insert_rows(connection, _HOOKS, rows)
    with database.reading() as connection:
        assert [
            tuple(row) for row in connection.execute(sa.select(_HOOKS).order_by(_HOOKS.c.position))
        ] == rows


def test_bytes_truth_and_times_are_stored_as_every_other_statement_stores_them(database: Database) -> None:
    columns = [column.name for column in schema.enrolment_tokens.columns]
    rows = [
        (name, bytes(range(256)), "label", NOW, LATER, uses, 0, bool(uses))
        for name, uses in (("one", 1), ("any", None))
    ]
    with database.writing() as connection:
        insert_rows(connection, schema.enrolment_tokens, rows)
        like = sa.insert(schema.enrolment_tokens)
        connection.execute(
            like, [{**dict(zip(columns, row, strict=True)), "id": f"{row[0]}2"} for row in rows]
        )
    with database.reading() as connection:
        found = {row.id: row for row in connection.execute(sa.select(schema.enrolment_tokens))}
        assert [tuple(found[row[0]]) for row in rows] == rows
        as_stored = sa.text("SELECT id, public_key, created, revoked, uses FROM enrolment_tokens")
        raw = {row.id: row for row in connection.execute(as_stored)}
    assert [tuple(raw[name])[1:] for name in ("one", "any")] == [
        tuple(raw[name])[1:] for name in ("one2", "any2")
    ]


def test_rows_are_found_by_one_of_many_values_whatever_stands_in_them(database: Database) -> None:
    with database.writing() as connection:
        insert_rows(connection, _HOOKS, [hook(name) for name in _ODD])
        assert names(connection, *_ODD, *(f"absent {number}" for number in range(40_000))) == set(_ODD)
        assert names(connection, "plain", "absent") == {"plain"}
        assert names(connection) == set()


def test_numbers_go_on_behind_the_last_one_even_where_its_row_is_gone(database: Database) -> None:
    agent = FleetAgent(Store(database))

    def add(count: int) -> int:
        with database.writing() as connection:
            first = take_numbers(connection, schema.alerts.c.seq, count)
            rows = [
                (seq, f"{seq:064}", agent.id, "file", "high", NOW, b"{}")
                for seq in range(first, first + count)
            ]
            insert_rows(connection, schema.alerts, rows)
            return first

    assert [add(3), add(1), add(2)] == [1, 4, 5]
    with database.writing() as connection:
        connection.execute(sa.delete(schema.alerts))
    assert add(1) == 7


def test_a_time_without_a_zone_is_a_programming_error(database: Database) -> None:
    naive = LATER.replace(tzinfo=None)
    with database.writing() as connection, pytest.raises(TypeError, match="without a time zone"):
        insert_rows(connection, _HOOKS, [(*hook("x")[:5], naive, 0, "")])
