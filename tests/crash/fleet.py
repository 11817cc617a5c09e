"""A platform with some agents, and a hand that kills its processes."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from server import schema
from tests.support.disk import SmallDisk
from tests.support.endpoint import sign_action
from tests.support.gpg import Investigator
from tests.support.platform import Platform, wait_until

MODULES = Path(__file__).resolve().parent / "modules"
_FROZEN_S = 1.0
_FINAL = frozenset({"done", "failed", "refused", "timed-out", "expired", "cancelled"})


_PACINGS: tuple[tuple[str, ...], ...] = (
    (),
    ("--waves", "1,5", "--wave-wait", "3s"),
    ("--concurrency", "4", "--wave-wait", "3s"),
    ("--rate", "10"),
)


class Outcome(NamedTuple):
    """One command as the database has it, and how often its module ran on the endpoint."""

    token: str
    agent: str
    state: str
    problem: str
    answers: int
    runs: int


class Fleet:
    """`count` agents from one build, each with a state of its own; actions, and what became of them."""

    def __init__(self, directory: Path, ada: Investigator, *, count: int, seed: int, **options: Any) -> None:
        """Keep what it is made of; `options` are those of a `Platform`."""
        self.random = random.Random(seed)  # noqa: S311  (which process dies next is no secret)
        self.platform = Platform(directory, ada, modules=MODULES, **options)
        self._ada = ada
        self._marks = directory / "marks"
        self._marks.mkdir()
        self.names = [f"agent{number:02d}" for number in range(count)]
        self._actions: list[str] = []
        self.did: Counter[str] = Counter()

    def start(self) -> None:
        """Start everything; returns when all agents are known to the server."""
        self.platform.start()
        for name in self.names:
            self.start_agent(name)
        wait_until(self._are_all_online, "the agents", seconds=180)

    def state_directory(self, name: str) -> Path:
        """Return where an agent keeps what it must not forget."""
        return self.platform.directory / f"state-{name}"

    def start_agent(self, name: str) -> None:
        """Start one agent, in the state that it left."""
        words = ("run", "--foreground", "--state-dir", str(self.state_directory(name)))
        prologue = self.platform.prologues.get(name, "")
        self.platform.spawn(name, self.platform.agent_command("shared", *words, prologue=prologue))

    def _are_all_online(self) -> bool:
        heard = sa.select(schema.agents.c.id).where(schema.agents.c.heartbeattime.is_not(None))
        return len(self._query(heard)) == len(self.names)

    def _query(self, query: "sa.Select[Any]") -> list[Any]:
        engine = sa.create_engine(self.platform.database)
        try:
            with engine.connect() as connection:
                return list(connection.execute(query))
        finally:
            engine.dispose()

    # -- questions

    def sign(self, token: str, *, minutes: int = 30) -> Path:
        """Sign a question that leaves this mark; return its file."""
        parameters = {"directory": str(self._marks), "token": token}
        body = sign_action(
            self._ada,
            name=token,
            target="os = 'linux'",
            operations=[{"module": "mark", "parameters": parameters}],
            expireafter=(datetime.now(UTC) + timedelta(minutes=minutes)).isoformat(),
        )
        file = self.platform.directory / f"{token}.signed.json"
        file.write_bytes(body)
        return file

    def submit(self, *, minutes: int = 30, pacing: Sequence[str] | None = None) -> str:
        """Ask everybody to leave a mark, at once or bit by bit, the same again until the server has it.

        Returns the mark.
        """
        chosen = self.random.choice(_PACINGS) if pacing is None else pacing
        token = f"mark-{uuid.uuid4()}"
        file = self.sign(token, minutes=minutes)

        def is_taken() -> bool:
            done = self.platform.mig("action", "submit", str(file), "--yes", *chosen, check=False)
            assert done.returncode in {0, 1, 3, 5}, (done.stdout, done.stderr)
            return done.returncode != 5

        wait_until(is_taken, "the server", seconds=120)
        self._actions.append(token)
        return token

    def is_settled(self) -> bool:
        """Tell whether every command of every action has ended."""
        open_states = sa.select(schema.commands.c.id).where(schema.commands.c.state.not_in(_FINAL))
        return not self._query(open_states)

    def states(self, token: str) -> list[str]:
        """Return the states of one question's commands."""
        return [one.state for one in self.outcomes() if one.token == token]

    def fill_server_disk(self, disk: SmallDisk) -> None:
        """Take what is free of the disk that the database is on, and what is free in SQLite's log.

        The log can be emptied only while nobody reads or writes, and it may be written before the disk is
        full: it is tried again until it is empty on a full disk, where the next write finds no room.
        """
        database = self.platform.database.removeprefix("sqlite:///")

        def is_full() -> bool:
            disk.free()
            with contextlib.closing(sqlite3.connect(database, timeout=0)) as connection:
                (is_busy, *_pages) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if is_busy:
                    return False
                disk.fill()
                return Path(f"{database}-wal").stat().st_size == 0

        wait_until(is_full, "a full disk with an empty log", seconds=60)

    def outcomes(self) -> list[Outcome]:
        """Return what became of every command."""
        joined = (
            sa.select(
                schema.actions.c.name,
                schema.commands.c.agent_id,
                schema.commands.c.state,
                schema.commands.c.problem,
                sa.func.count(schema.results.c.seq),
            )
            .join(schema.actions, schema.actions.c.id == schema.commands.c.action_id)
            .outerjoin(schema.results, schema.results.c.command_id == schema.commands.c.id)
            .group_by(schema.commands.c.id, schema.actions.c.name)
        )
        marks: dict[str, Counter[str]]
        marks = {path.name: Counter(path.read_text().split()) for path in self._marks.iterdir()}
        return [
            Outcome(
                token=token,
                agent=agent,
                state=state,
                problem=(problem or {}).get("code", ""),
                answers=answers,
                runs=marks.get(agent, Counter())[token],
            )
            for token, agent, state, problem, answers in self._query(joined)
        ]

    @property
    def asked(self) -> int:
        """How many commands there must be."""
        return len(self._actions) * len(self.names)

    def settle(self, *, seconds: float = 240) -> list[Outcome]:
        """Wait until every command has ended; return what became of them."""
        try:
            wait_until(self.is_settled, "every answer", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}: {describe(self.outcomes())}") from None
        return self.outcomes()

    # -- the hand

    def strike(self, what: str) -> None:
        """Do one bad thing to one process, and start again what a service manager would start again."""
        self.did[what] += 1
        getattr(self, f"_{what}")()

    def _kill_server(self) -> None:
        self.platform.kill("server", signal.SIGKILL)
        self.platform.start_server()

    def _kill_agent(self) -> None:
        name = self.random.choice(self.names)
        self.platform.kill(name, signal.SIGKILL)
        self.start_agent(name)

    def _kill_child(self) -> None:
        name = self.random.choice(self.names)
        for pid in _children(self.platform.processes[name].pid):
            _signal(pid, signal.SIGKILL)

    def _kill_broker(self) -> None:
        pid = int((self.platform.broker.directory / "rabbitmq.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        self.platform.broker.stop()
        self.platform.start_broker()

    def _freeze_server(self) -> None:
        self._freeze(self.platform.processes["server"].pid)

    def _freeze_broker(self) -> None:
        self._freeze(int((self.platform.broker.directory / "rabbitmq.pid").read_text()))

    def _freeze_agent(self) -> None:
        self._freeze(self.platform.processes[self.random.choice(self.names)].pid)

    def _freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(_FROZEN_S)
        finally:
            os.kill(pid, signal.SIGCONT)

    def verify_audit(self) -> dict[str, Any]:
        """Compare the server's log with what all agents signed of it; return exit code and text."""
        done = self.platform.mig("audit", "verify", check=False)
        return {"exit": done.returncode, "text": done.stdout + done.stderr}

    def stop(self) -> None:
        """End everything."""
        self.platform.stop()


def wait_for(seconds: float) -> None:
    """Let time pass: how long somebody is dead or frozen is what is tested."""
    signal.sigtimedwait([], seconds)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def describe(outcomes: Sequence[Outcome]) -> str:
    """Say in a line what became of the commands."""
    return json.dumps(Counter(f"{one.state} {one.problem}".strip() for one in outcomes))
