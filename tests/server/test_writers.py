"""Writes in groups: one commit for many, and each job as if it were alone."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.errors import EnvironmentFailure
from server import schema
from server.database import Database
from tests.support.database import migrated_database

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def sqlite(tmp_path: Path) -> Any:
    database = migrated_database(f"sqlite:///{tmp_path / 'mig.sqlite'}")
    yield database
    database.close()


def insert(database: Database, login: str) -> None:
    with database.writing() as connection:
        connection.execute(sa.insert(schema.logins).values(login=login, time=NOW))


def logins(database: Database) -> list[str]:
    with database.reading() as connection:
        return sorted(connection.execute(sa.select(schema.logins.c.login)).scalars())


def gather(database: Database, *jobs: Callable[[], Any]) -> list[Any]:
    """Run jobs that are all waiting when the first of them ends; return results and exceptions."""

    async def ask() -> list[Any]:
        is_open = threading.Event()
        first = asyncio.ensure_future(database.run(is_open.wait))
        waiting = [asyncio.ensure_future(database.run(job)) for job in jobs]
        await asyncio.sleep(0)
        is_open.set()
        await first
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    return asyncio.run(ask())


def commits(database: Database) -> list[str]:
    seen: list[str] = []
    sa.event.listen(database._engine, "commit", lambda _connection: seen.append("commit"))
    return seen


def test_what_waits_together_is_committed_once(sqlite: Database) -> None:
    seen = commits(sqlite)
    names = [f"login-{number:02d}" for number in range(20)]
    gather(sqlite, *(lambda name=name: insert(sqlite, name) for name in names))
    assert logins(sqlite) == names
    assert seen.count("commit") <= 3  # the jobs', and the readers'


def test_a_job_that_fails_takes_back_its_own_changes_only(sqlite: Database) -> None:
    def fail() -> None:
        with sqlite.writing() as connection:
            connection.execute(sa.insert(schema.logins).values(login="mine", time=NOW))
            raise ZeroDivisionError("division")

    outcomes = gather(sqlite, lambda: insert(sqlite, "a"), fail, lambda: insert(sqlite, "b"))
    assert [type(one) for one in outcomes] == [type(None), ZeroDivisionError, type(None)]
    assert logins(sqlite) == ["a", "b"]


def test_a_job_that_breaks_a_rule_of_the_database_leaves_the_others_whole(sqlite: Database) -> None:
    outcomes = gather(
        sqlite, lambda: insert(sqlite, "a"), lambda: insert(sqlite, "a"), lambda: insert(sqlite, "b")
    )
    assert isinstance(outcomes[1], sa.exc.IntegrityError)
    assert (outcomes[0], outcomes[2]) == (None, None)
    assert logins(sqlite) == ["a", "b"]


def test_a_job_sees_what_the_jobs_before_it_have_changed(sqlite: Database) -> None:
    outcomes = gather(sqlite, lambda: insert(sqlite, "a"), lambda: logins(sqlite))
    assert outcomes == [None, ["a"]]


def test_nobody_hears_of_a_result_before_it_is_committed(sqlite: Database, tmp_path: Path) -> None:
    heard: list[list[str]] = []

    def seen_by_others() -> list[str]:
        with sqlite3.connect(tmp_path / "mig.sqlite") as other:
            return sorted(row[0] for row in other.execute("SELECT login FROM logins"))

    async def ask() -> None:
        is_open = threading.Event()
        first = asyncio.ensure_future(sqlite.run(is_open.wait))

        async def job(name: str) -> None:
            await sqlite.run(insert, sqlite, name)
            heard.append(seen_by_others())

        jobs = [asyncio.ensure_future(job(name)) for name in ("a", "b")]
        await asyncio.sleep(0)
        is_open.set()
        await asyncio.gather(first, *jobs)

    asyncio.run(ask())
    assert heard == [["a", "b"], ["a", "b"]]


def test_a_transaction_that_cannot_be_committed_has_failed_for_every_job(
    sqlite: Database, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "mig.sqlite", isolation_level=None) as other:
        pages = other.execute("PRAGMA page_count").fetchone()[0]

    def fill(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    sa.event.listen(sqlite._engine, "begin", fill)
    large = "x" * 100_000
    outcomes = gather(sqlite, *(lambda n=n: insert(sqlite, f"{large}{n}") for n in range(3)))
    assert [one.code for one in outcomes if isinstance(one, EnvironmentFailure)] == ["disk-full"] * 3
    assert logins(sqlite) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(jobs=st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=12))
def test_a_group_leaves_what_the_jobs_one_after_the_other_would_leave(
    sqlite: Database, jobs: list[tuple[str, bool]]
) -> None:
    with sqlite.writing() as connection:
        connection.execute(sa.delete(schema.logins))

    def work(name: str, *, is_bad: bool) -> None:
        insert(sqlite, name)
        if is_bad:
            raise ZeroDivisionError("division")

    expected: set[str] = set()
    said = []
    for name, is_bad in jobs:
        said.append(
            sa.exc.IntegrityError if name in expected else ZeroDivisionError if is_bad else type(None)
        )
        expected.add(name)
    outcomes = gather(sqlite, *(lambda job=job: work(job[0], is_bad=job[1]) for job in jobs))
    assert [type(one) for one in outcomes] == said
    assert set(logins(sqlite)) == expected
