"""How fast the API lists and shows while answers arrive, and how much memory a full server takes.

    python bench/loaded.py [--agents 10000] [--answers 1000000] [--rate 1000] [--seconds 30]
                           [--database sqlite|postgresql]

Enrols agents and stores answers with the server down, starts the server, reads pages of everything as `mig`
does, and then asks for lists and for single documents, one after the other on one connection, while a hundred
agents' signed answers arrive through the broker at `--rate`. All share this machine's cores, the client too.
"""

import argparse
import contextlib
import http
import itertools
import os
import platform as machine
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pika
import sqlalchemy as sa
import urllib3
from measure import family, pss_kib
from procfs import peak_rss_mib, percentile, rss_mib

from protocol.names import AGENTS_EXCHANGE, command_id, result_key
from server import schema
from server.brokerfiles import ACCOUNT
from server.database import Database
from server.store import Store
from tests.support.broker import AgentKey
from tests.support.fleet import FleetAgent, create, make_action
from tests.support.fleet import digest as digest_of
from tests.support.gpg import Investigator, temporary_investigator
from tests.support.platform import Platform, wait_until
from tests.support.postgres import postgres_server
from tests.support.relay import make_result

_SENDERS = 100
_PAGE = 1000
_SHORTEST_SLEEP_S = 0.01
_AT_ONCE = 20_000  # rows inserted together


class Message(NamedTuple):
    """One answer on its way: who sends it, and what."""

    agent: str
    body: bytes


class Stock:
    """A platform's database, filled while its server is down."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.database = Database(platform.database)
        self._store = Store(self.database)
        self._now = datetime.now(UTC)
        self.actions: list[str] = []
        self.token = secrets.token_urlsafe(32)

    def let_in(self, investigator: Investigator) -> None:
        """Open a session for whoever reads."""
        hashed = sha256(self.token.encode()).hexdigest()
        expires = self._now + timedelta(hours=12)
        self._store.create_session(hashed, investigator.fingerprint, expires, self._now)

    def enrol(self, count: int) -> list[str]:
        """Enrol agents, all like one that is real; return their ids."""
        first = FleetAgent(self._store, now=self._now)
        with self.database.writing() as connection:
            like = sa.select(schema.agents).where(schema.agents.c.id == first.id)
            row = dict(connection.execute(like).one()._mapping)  # noqa: SLF001  (public name)
            ids = [secrets.token_hex(16) for _ in range(count - 1)]
            rows = [
                {**row, "id": agent, "name": f"web{number}.example.net"} for number, agent in enumerate(ids)
            ]
            for some in _batches(rows):
                connection.execute(sa.insert(schema.agents), some)
        return [first.id, *ids]

    def answer(self, agents: Sequence[str], answers: int) -> None:
        """Store so many answers of these agents, all with one real envelope's bytes."""
        body = FleetAgent(self._store, now=self._now).answer(make_action(now=self._now)).envelope_bytes
        for _ in range(answers // len(agents)):
            action = make_action(now=self._now - timedelta(hours=1))
            create(self._store, action, *map(_Named, agents), now=self._now)  # type: ignore[arg-type]  # only ids count
            self.actions.append(action.id)
            ended = {"state": "done", "updated": self._now}
            with self.database.writing() as connection:
                of_action = schema.commands.c.action_id == action.id
                connection.execute(sa.update(schema.commands).where(of_action).values(**ended))
                rows = [
                    {
                        "command_id": command_id(action.id, agent, ""),
                        "action_id": action.id,
                        "agent_id": agent,
                        "state": "done",
                        "found": True,
                        "started": self._now,
                        "finished": self._now,
                        "received": self._now,
                        "envelope": body,
                    }
                    for agent in agents
                ]
                for some in _batches(rows):
                    connection.execute(sa.insert(schema.results), some)

    def prepare(self, count: int) -> list[Message]:
        """Sign so many answers of real agents, to questions that are stored as sent."""
        senders = [AgentKey() for _ in range(_SENDERS)]
        for agent in senders:
            self._store.enrol_agent(agent.id, agent.public, "open", self._now)
        messages: list[Message] = []
        while len(messages) < count:
            action = make_action(now=self._now, minutes=60)
            create(self._store, action, *senders, now=self._now)  # type: ignore[arg-type]  # only ids count
            self._store.mark_sent([command_id(action.id, agent.id, "") for agent in senders], self._now)
            self.actions.append(action.id)
            told = digest_of(action)
            messages += [Message(agent.id, make_result(agent, action, told)) for agent in senders]
        return messages

    def count(self) -> int:
        """Return how many answers are stored."""
        with self.database.reading() as connection:
            return connection.execute(sa.select(sa.func.max(schema.results.c.seq))).scalar_one()


class _Named(NamedTuple):
    """What the store asks of an agent that is asked something."""

    id: str


def _batches(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), _AT_ONCE):
        yield rows[start : start + _AT_ONCE]


class Reader:
    """One connection to the API, and how long each request took, by what was asked."""

    def __init__(self, url: str, token: str) -> None:
        self._pool = urllib3.connection_from_url(url, maxsize=1)
        self._headers = {"Authorization": f"Bearer {token}"}
        self.took_s: dict[str, list[float]] = {}

    def get(self, what: str, path: str) -> Any:
        """Ask once; `what` is the row of the table that it counts in."""
        began = time.perf_counter()
        answer = self._pool.request("GET", f"/api/v1{path}", headers=self._headers)
        self.took_s.setdefault(what, []).append(time.perf_counter() - began)
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"GET {path}: {answer.status} {answer.data[:200]!r}")
        return answer.json()

    def read_all(self, actions: Sequence[str]) -> None:
        """Read every agent, and the roster and all answers of some actions, page by page."""
        for offset in itertools.count(0, _PAGE):
            if not self.get("pages", f"/agents?limit={_PAGE}&offset={offset}")["agents"]:
                break
        for action in actions:
            self.get("pages", f"/actions/{action}/commands")
            after = 0
            while page := self.get("pages", f"/actions/{action}/results?limit={_PAGE}&after={after}")[
                "results"
            ]:
                after = page[-1]["seq"]

    def ask_in_turn(self, actions: Sequence[str], agents: Sequence[str], until: threading.Event) -> None:
        """List and show, in turn, until told to end."""
        for number in itertools.count():
            if until.is_set():
                return
            action = actions[number % len(actions)]
            self.get("list actions", "/actions?limit=20")
            self.get("show an action", f"/actions/{action}")
            self.get("list agents", "/agents?limit=100")
            self.get("show an agent", f"/agents/{agents[number % len(agents)]}")
            self.get("list answers", f"/actions/{action}/results?limit=100")
            until.wait(0.02)


def send(url: str, messages: Sequence[Message], rate: int) -> float:
    """Publish answers evenly at a rate; return how many a second it was."""
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as link:
        channel = link.channel()
        began = time.perf_counter()
        for number, message in enumerate(messages):
            early_s = number / rate - (time.perf_counter() - began)
            if early_s > _SHORTEST_SLEEP_S:
                time.sleep(early_s)
            properties = pika.BasicProperties(delivery_mode=2, user_id=message.agent)
            channel.basic_publish(AGENTS_EXCHANGE, result_key(message.agent), message.body, properties)
        return len(messages) / (time.perf_counter() - began)


def measure(platform: Platform, investigator: Investigator, options: argparse.Namespace) -> None:
    """Fill, read, load, and print."""
    platform.kill("server", signal.SIGTERM)
    words = [str(platform.broker.rabbitmqctl), "set_user_tags", ACCOUNT, "administrator", "impersonator"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    stock = Stock(platform)
    stock.let_in(investigator)
    agents = stock.enrol(options.agents)
    stock.answer(agents, options.answers)
    stored = list(stock.actions)
    messages = stock.prepare(options.rate * options.seconds)
    asked = stock.actions[len(stored) :]
    print(f"filled: {stock.count():,} answers", file=sys.stderr)
    platform.start_server()
    # No server may have lived for long enough yet to declare what is published to below.
    wait_until(platform.is_connected, "the server's connection to the broker")
    server = platform.processes["server"].pid
    reader = Reader(platform.url, stock.token)
    reader.get("pages", "/actions")
    memory = [("after its start", rss_mib(server), _all_pss_mib(server))]
    reader.read_all(stored[:3])
    memory.append(("after reading all agents and 30,000 answers", rss_mib(server), _all_pss_mib(server)))
    reader.took_s.clear()
    end = threading.Event()
    reading = threading.Thread(target=reader.ask_in_turn, args=(asked, agents, end))
    before = stock.count()
    reading.start()
    sent = send(platform.broker.url, messages, options.rate)
    end.set()
    reading.join()
    late = before + len(messages) - stock.count()
    wait_until(lambda: stock.count() >= before + len(messages), "the answers", seconds=300)
    memory.append(("after the load, at most", peak_rss_mib(server), _all_pss_mib(server)))
    stock.database.close()
    print(f"\n{stock_line(options)}; {sent:.0f} answers/s sent, {late} of them not committed at the end\n")
    print(describe_latencies(reader.took_s))
    print("\n| server's memory, MiB | RSS of the server | PSS with its verifiers |\n|---|---|---|")
    for when, rss, pss in memory:
        print(f"| {when} | {rss:.0f} | {pss:.0f} |")


def stock_line(options: argparse.Namespace) -> str:
    """Return what was stored, in words."""
    return f"{options.database}, {options.agents:,} agents, {options.answers:,} answers stored"


def describe_latencies(took_s: dict[str, list[float]]) -> str:
    """Return the table of latencies, all requests together last."""
    lines = ["| request | n | median, ms | p99, ms | longest, ms |", "|---|---|---|---|---|"]
    everything = [one for times in took_s.values() for one in times]
    for what, times in [*took_s.items(), ("all", everything)]:
        figures = (statistics.median(times), percentile(times, 0.99), max(times))
        lines.append(
            f"| {what} | {len(times)} | " + " | ".join(f"{1000 * one:.1f}" for one in figures) + " |"
        )
    return "\n".join(lines)


def _all_pss_mib(pid: int) -> float:
    return sum(map(pss_kib, family(pid))) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="mig-loaded-"))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {machine.python_version()}")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        database = stack.enter_context(postgres_server()) if options.database == "postgresql" else ""
        investigator = stack.enter_context(temporary_investigator())
        platform = Platform(directory, investigator, database=database)
        stack.callback(platform.stop)
        platform.start()
        measure(platform, investigator, options)


if __name__ == "__main__":
    main()
