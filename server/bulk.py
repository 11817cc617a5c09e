"""Statements on many rows at once, whose text and parameters are as few for a thousand rows as for one.

A statement with a parameter for each value is written, read and planned anew for each number of them; here
one parameter holds them all: an array on PostgreSQL, JSON on SQLite, which has no arrays.
"""

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

_sqlite_sequence = sa.table("sqlite_sequence", sa.column("name"), sa.column("seq"))


def is_one_of(
    connection: sa.Connection, column: sa.Column[Any], values: Sequence[str]
) -> sa.ColumnElement[bool]:
    """Return the condition that a text column holds one of some values."""
    if connection.dialect.name == "postgresql":
        return column == sa.any_(_array(column, values))
    listed = sa.bindparam(None, json.dumps(list(values)), sa.String())
    return column.in_(sa.select(sa.func.json_each(listed).table_valued("value").c.value))


def take_numbers(connection: sa.Connection, column: sa.Column[Any], count: int) -> int:
    """Return the first of `count` numbers in a row that no row of a table has had in its counting column.

    The caller holds the lock under which alone rows come into this table, and adds them in this transaction.
    """
    table = column.table.name
    if connection.dialect.name == "postgresql":
        name = sa.func.pg_get_serial_sequence(table, column.name)
        numbers = sa.select(sa.func.nextval(sa.select(name).scalar_subquery())).select_from(
            sa.func.generate_series(1, count)
        )
        return connection.execute(sa.select(sa.func.min(numbers.subquery().c[0]))).scalar_one()
    last = sa.select(_sqlite_sequence.c.seq).where(_sqlite_sequence.c.name == table)
    return int(connection.execute(last).scalar() or 0) + 1


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows; each has a value for each of the table's columns, in their order.

    The driver gets them as they are: for each value only what its column's type asks for is done.
    """
    columns = [
        _as_driven(connection.dialect, column, values)
        for column, values in zip(table.columns, zip(*rows, strict=True), strict=True)
    ]
    names = ", ".join(column.name for column in table.columns)
    if connection.dialect.name == "postgresql":
        # In binary form: as text, which a plain `%s` gets, a document would grow to twice its size and more.
        arrays = ", ".join(f"%b::{column.type.compile(connection.dialect)}[]" for column in table.columns)
        statement = f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays})"  # noqa: S608  (our own names)
        connection.exec_driver_sql(statement, tuple(columns))
    else:
        marks = ", ".join("?" for _ in table.columns)
        statement = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608  (our own names)
        connection.exec_driver_sql(statement, list(zip(*columns, strict=True)))


def _as_driven(dialect: sa.Dialect, column: sa.Column[Any], values: Sequence[object]) -> list[object]:
    process = column.type.dialect_impl(dialect).bind_processor(dialect)
    return list(values) if process is None else [process(value) for value in values]


def _array(column: sa.Column[Any], values: Sequence[object]) -> sa.ColumnElement[Any]:
    return sa.bindparam(None, list(values), postgresql.ARRAY(column.type))
