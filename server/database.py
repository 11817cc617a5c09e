"""The database: engine, durability, and the threads that may use it.

Rules:
1. The event loop never waits for the database: `run` for anything, `read` for what only reads.
2. SQLite has one writer thread and takes its write lock at the start of a transaction, so that no transaction
   fails half-way for want of it; readers see the last commit (WAL) and never wait. What waits for the writer
   is committed together (`server.writers`); PostgreSQL does that by itself.
3. SQLite runs with synchronous=FULL: what the server acknowledged to the broker must survive a power cut too,
   since an agent runs an action once and answers once. NORMAL would survive kill -9 only. Answers are saved
   in batches, where the sync costs nothing measurable (3.9 instead of 3.6 ms for 1,000).
"""

import asyncio
import logging
import math
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError

from protocol.errors import EnvironmentFailure, InvalidInput
from server.writers import GroupWriter

_log = logging.getLogger(__name__)

_READERS = 4
_WRITERS = 4  # on PostgreSQL
_BUSY_S = 30
_LONGEST_LOCK_S = 60
_LEAST_FREE_BYTES = 4 << 20  # SQLite's log grows to about this before it starts over
# A network that swallows packets tells nobody: without these a query is sent again for a quarter of an hour,
# and its answer awaited for ever (libpq, "Parameter Key Words"; the first in ms). Unix sockets have none.
_TCP = {"tcp_user_timeout": 30_000, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
_WRITE = "mig_write"
P = ParamSpec("P")
R = TypeVar("R")


class Database:
    """One engine and its threads.

    Args:
        url: `sqlite:////path`, or `postgresql://user@host/name` (psycopg 3).

    Raises:
        InvalidInput: `bad-config` for a URL that is neither.

    """

    def __init__(self, url: str) -> None:
        self._engine = _make_engine(url)
        self._writing = self._engine.execution_options(**{_WRITE: True})
        self._had_no_room = False  # at the last write
        self.dialect = self._engine.dialect.name
        self._group = GroupWriter(self._begin_writing) if self.dialect == "sqlite" else None
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="database-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="database-read")

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One read transaction: everything read in it is of one moment.

        Raises:
            EnvironmentFailure: `database-away` or `disk-full`, retryable.

        """
        shared = self._shared
        if shared is not None:  # what the jobs before this one have changed counts, as if it were committed
            with _translated():
                yield shared
            return
        with _translated(), self._engine.begin() as connection:
            if self.dialect == "postgresql":
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One write transaction, committed at the end and rolled back on any exception.

        Within a job of the group's it is a part of the transaction that all its jobs share.

        Raises:
            EnvironmentFailure: `database-away` or `disk-full`, retryable.

        """
        shared = self._shared
        if shared is not None:
            with _translated(), shared.begin_nested():
                yield shared
        else:
            with self._begin_writing() as connection:
                yield connection

    @property
    def _shared(self) -> sa.Connection | None:
        return self._group.connection if self._group is not None else None

    @contextmanager
    def _begin_writing(self) -> Iterator[sa.Connection]:
        try:
            with _translated(), self._writing.begin() as connection:
                yield connection
        except EnvironmentFailure as error:
            self._had_no_room = error.code == "disk-full"
            raise
        self._had_no_room = False

    def _submit(self, work: Callable[[], R]) -> "Future[R]":
        return self._writers.submit(work) if self._group is None else self._group.submit(work)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function that may write in a database thread."""
        return await asyncio.wrap_future(self._submit(lambda: function(*args, **kwargs)))

    def run_anyway(self, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run a function that may write, even if whoever asked goes away; its failure is logged."""

        def work() -> None:
            try:
                function(*args, **kwargs)
            except EnvironmentFailure as error:
                _log.warning("not written", extra={"reason": error})

        self._submit(work)

    async def read(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function that only reads in a database thread, beside the writers."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, lambda: function(*args, **kwargs))

    def acquire(self, key: int) -> Callable[[], None]:
        """Wait for a lock that all servers on this database share; return what frees it, and may raise alike.

        It is freed by the database when its holder dies. SQLite has one server, and nothing to wait for.

        Raises:
            EnvironmentFailure: `database-away`, also where another server holds it for very long.

        """
        if self.dialect != "postgresql":
            return lambda: None
        with _translated(), ExitStack() as stack:
            connection = stack.enter_context(self._engine.connect())
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LONGEST_LOCK_S}s'")
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
            held = stack.pop_all()

        def release() -> None:
            with _translated():  # the database may die meanwhile, and has let go of it then
                held.close()

        return release

    def require_writable(self) -> None:
        """Require that a transaction that may write can begin, and that the last one had room.

        It waits for as long as somebody else holds the lock, or the database says nothing.

        Raises:
            EnvironmentFailure: `database-away` or `disk-full`.

        """
        with _translated(), self._writing.begin() as connection:
            connection.execute(sa.select(1))
        if self._had_no_room or self._free_bytes() < _LEAST_FREE_BYTES:
            raise EnvironmentFailure("disk-full", retryable=True)

    def _free_bytes(self) -> float:
        file = self._engine.url.database
        if self.dialect != "sqlite" or not file:
            return math.inf
        try:
            return shutil.disk_usage(Path(file).parent).free
        except OSError as error:
            raise EnvironmentFailure("database-away", str(error.strerror), retryable=True) from None

    def close(self) -> None:
        """Finish what runs, and close all connections."""
        if self._group is not None:
            self._group.close()
        self._writers.shutdown()
        self._readers.shutdown()
        self._engine.dispose()


def _make_engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        raise InvalidInput("bad-config", "server.database is not a database URL") from None
    if parsed.drivername == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise InvalidInput("bad-config", "server.database: sqlite needs a file: sqlite:////path")
        if not Path(parsed.database).parent.is_dir():
            raise EnvironmentFailure("database-away", f"no directory {Path(parsed.database).parent}")
        engine = sa.create_engine(
            parsed,
            hide_parameters=True,  # in what a failure says, and so in the log
            connect_args={"timeout": _BUSY_S, "check_same_thread": False},
        )
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        # pre_ping: a server that was restarted must not cost the first request after it.
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=_READERS + _WRITERS,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"connect_timeout": 10, **_TCP},
        )
    raise InvalidInput("bad-config", f"server.database: {parsed.drivername} is neither sqlite nor postgresql")


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: _begin_sqlite does
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    is_write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the drivers raise when the database is away into our own failure."""
    try:
        yield
    except DBAPIError as error:
        code = _environment_code(error)
        if code is None:
            raise
        text = str(error.orig).strip().splitlines()
        raise EnvironmentFailure(code, text[0] if text else "", retryable=True) from error


def _environment_code(error: DBAPIError) -> str | None:
    if "database or disk is full" in str(error.orig) or getattr(error.orig, "sqlstate", None) == "53100":
        return "disk-full"
    # sqlite3 says of a damaged file only "database error".
    if type(error.orig) is sqlite3.DatabaseError:
        return "database-away"
    if isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError)) or error.connection_invalidated:
        return "database-away"
    return None
