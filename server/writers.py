"""Writes of many requests in one transaction: what waits while one is committed is committed together.

Rules:
1. A commit on SQLite is a sync to the disk, some milliseconds on many; a thousand agents that log in at once
   would stand in line for two thousand of them. Each transaction of a job becomes a savepoint
   (`Database.writing`), so what fails takes back its own changes only.
2. Nobody hears of a job's result before the commit; a commit that fails has failed for every job in it.
3. Where the database itself complains in the middle, everything is taken back and each job is run by itself:
   SQLite may have ended the transaction on its own (https://www.sqlite.org/lang_transaction.html, section 3).
   A job is therefore a function whose only effect is on the database.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from protocol.errors import EnvironmentFailure

R = TypeVar("R")

_MOST_TOGETHER = 64  # bounds how long the first of them waits for the last


class _Job(NamedTuple):
    work: Callable[[], Any]
    future: "Future[Any]"

    def run(self) -> None:
        """Run the job by itself; its future tells how it ended."""
        try:
            self.future.set_result(self.work())
        except Exception as error:  # noqa: BLE001  (a process loop: the asker gets what the job raised)
            self.future.set_exception(error)


class GroupWriter:
    """One thread that runs jobs in the order in which they come, several of them in one transaction.

    `begin` opens a transaction. Within a job `connection` is the one that is open already, or None.
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[sa.Connection]]) -> None:
        self._begin = begin
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database-write")
        self._waiting: deque[_Job] = deque()
        self._here = threading.local()

    @property
    def connection(self) -> sa.Connection | None:
        """The connection of the transaction that the calling thread's job is part of."""
        return getattr(self._here, "connection", None)

    def submit(self, work: Callable[[], R]) -> "Future[R]":
        """Run a job that may write; the future is done when its changes are committed."""
        future: Future[R] = Future()
        self._waiting.append(_Job(work, future))
        self._thread.submit(self._serve)
        return future

    def close(self) -> None:
        """Finish what waits."""
        self._thread.shutdown()

    def _serve(self) -> None:
        jobs: list[_Job] = []
        while self._waiting and len(jobs) < _MOST_TOGETHER:
            job = self._waiting.popleft()
            if job.future.set_running_or_notify_cancel():
                jobs.append(job)
        if len(jobs) > 1 and self._run_together(jobs):
            return
        for job in jobs:
            job.run()

    def _run_together(self, jobs: list[_Job]) -> bool:
        """Run jobs in one transaction; false where nothing was done, and each has to run by itself."""
        outcomes: list[tuple[Any, Exception | None]] = []
        try:
            with self._begin() as connection:
                self._here.connection = connection
                for job in jobs:
                    try:
                        outcomes.append((job.work(), None))
                    except (EnvironmentFailure, sa.exc.DBAPIError):
                        raise
                    except Exception as error:  # noqa: BLE001  (as in `_Job.run`; `Database.writing` has undone it)
                        outcomes.append((None, error))
        except (EnvironmentFailure, sa.exc.DBAPIError):
            return False
        finally:
            self._here.connection = None
        for job, (result, failure) in zip(jobs, outcomes, strict=True):
            if failure is not None:
                job.future.set_exception(failure)
            else:
                job.future.set_result(result)
        return True
