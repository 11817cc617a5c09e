"""How many answers a second the server takes in, each signature verified, from a queue that is full of them.

    python bench/ingest.py [--agents 100] [--actions 200] [--runs 3] [--database sqlite|postgresql]
                           [--verifiers 0 1 2]

Starts a platform of real parts, fills `mig.results` with signed answers while the server is down, starts the
server, and reads from the database when they were committed, and from the kernel how much memory the server
took at most while they waited (`--actions 1000` has 100,000 wait) and how much processor time each cost the
server and its verifiers, once they had started. Server, broker and verifiers share this machine's cores.
`--verifiers` is measured interleaved, so that the numbers of processes compare.
"""

import argparse
import contextlib
import os
import platform as machine
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pika
import sqlalchemy as sa
from measure import family
from procfs import cpu_s, peak_rss_mib

from protocol.names import AGENTS_EXCHANGE, command_id, result_key
from server.brokerfiles import ACCOUNT
from server.database import Database
from server.schema import results
from server.store import Store
from tests.support.broker import AgentKey
from tests.support.fleet import create, make_action
from tests.support.fleet import digest as digest_of
from tests.support.gpg import temporary_investigator
from tests.support.platform import Platform, wait_until
from tests.support.postgres import postgres_server
from tests.support.relay import make_result


class Filler:
    """Agents that stand in the database, and answers that they have signed."""

    def __init__(self, platform: Platform, database: str, count: int) -> None:
        self.database = Database(database)
        self.platform = platform
        self._store = Store(self.database)
        # The broker lets this account say who sent a message: a hundred logins would measure nothing here.
        words = [str(platform.broker.rabbitmqctl), "set_user_tags", ACCOUNT, "administrator", "impersonator"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        self._agents = [AgentKey() for _ in range(count)]
        for agent in self._agents:
            self._store.enrol_agent(agent.id, agent.public, "open", datetime.now(UTC))

    def fill(self, actions: int) -> int:
        """End the server, and queue all agents' answers to `actions` questions; return how many."""
        self.platform.kill("server", signal.SIGTERM)
        now = datetime.now(UTC)
        with contextlib.closing(
            pika.BlockingConnection(pika.URLParameters(self.platform.broker.url))
        ) as link:
            channel = link.channel()
            channel.tx_select()
            for _ in range(actions):
                action = make_action(now=now, minutes=60)
                create(self._store, action, *self._agents, now=now)  # type: ignore[arg-type]  # only ids count
                for agent in self._agents:
                    body = make_result(agent, action, digest_of(action))
                    properties = pika.BasicProperties(delivery_mode=2, user_id=agent.id)
                    channel.basic_publish(
                        AGENTS_EXCHANGE, result_key(agent.id), body, properties, mandatory=True
                    )
                channel.tx_commit()
                # The questions themselves are not to be sent meanwhile.
                ids = [command_id(action.id, agent.id, "") for agent in self._agents]
                self._store.mark_sent(ids, now)
        return len(self._agents) * actions

    def count(self) -> int:
        """Return the number of answers in the database."""
        with self.database.reading() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(results)).scalar_one()

    def rate(self, count: int) -> float:
        """Return how many of the last `count` answers were committed per second."""
        with self.database.reading() as connection:
            query = sa.select(results.c.received).order_by(results.c.seq.desc()).limit(count)
            times = sorted(row[0] for row in connection.execute(query))
        return len(times) / float((times[-1] - times[0]).total_seconds())

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--actions", type=int, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--verifiers", type=int, nargs="+", default=[2])
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="mig-ingest-"))
    rates: dict[int, list[float]] = {count: [] for count in options.verifiers}
    peaks: dict[int, list[float]] = {count: [] for count in options.verifiers}
    costs: dict[int, list[float]] = {count: [] for count in options.verifiers}
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        database = f"sqlite:///{directory / 'server' / 'mig.sqlite'}"
        if options.database == "postgresql":
            database = stack.enter_context(postgres_server())
        platform = Platform(directory, stack.enter_context(temporary_investigator()), database=database)
        stack.callback(platform.stop)
        platform.start()
        wait_until(platform.is_connected, "the server's connection to the broker")  # declared what is filled
        filler = Filler(platform, database, options.agents)
        stack.callback(filler.close)
        for _ in range(options.runs):
            for verifiers in options.verifiers:
                before = filler.count()
                queued = filler.fill(options.actions)
                platform.set_option("verifiers", verifiers)
                platform.start_server()
                server = platform.processes["server"].pid
                started, spent_s = filler.count(), sum(map(cpu_s, family(server)))
                wait_until(lambda: filler.count() >= before + queued, "the answers", seconds=300)  # noqa: B023
                rates[verifiers].append(filler.rate(queued))
                peaks[verifiers].append(peak_rss_mib(server))
                spent_s = sum(map(cpu_s, family(server))) - spent_s
                costs[verifiers].append(spent_s / (before + queued - started) * 1e6)
                print(f"{verifiers} verifiers: {rates[verifiers][-1]:.0f}/s", file=sys.stderr)
                time.sleep(1)
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    cpu = models[0].split(":")[1].strip() if models else machine.machine()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu}), Python {machine.python_version()}")
    print(f"{options.agents * options.actions} answers a run, n={options.runs}, {options.database}\n")
    print("| processes that verify | answers/s, median | range | µs of processor time each | peak RSS, MiB |")
    print("|---|---|---|---|---|")
    for verifiers, found in rates.items():
        middle, cost = statistics.median(found), statistics.median(costs[verifiers])
        told = (
            f"{middle:.0f} | {min(found):.0f} to {max(found):.0f} | {cost:.0f} | {max(peaks[verifiers]):.0f}"
        )
        print(f"| {verifiers or 'none'} | {told} |")


if __name__ == "__main__":
    main()
