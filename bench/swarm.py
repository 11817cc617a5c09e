"""How long a fleet takes to answer, and what server, broker and endpoints use meanwhile.

    python bench/swarm.py N [--runs 5] [--processes 2] [--database sqlite|postgresql] [--no-gate]
                            [--slow PERCENT] [--failing PERCENT] [--offline PERCENT] [--idle SECONDS]
                            [--settle SECONDS] [--heartbeat SECONDS] [--volatile] [--concurrency N] [--storm]

Starts a platform of real parts (private RabbitMQ, `mig-server serve`) and N agents that are real on the wire
(`bench/swarm_agents.py`: own identity, connection, queue, signed heartbeats and answers, the real gate), all
on loopback and on this machine's cores. Then it asks all of them `mig agentinfo`, some times over, and prints
a table in Markdown. Times count from the moment at which the action stood in the database, by the server's
clock. With `--idle` it also says what heartbeats cost. With `--storm` the broker is killed instead and
started again, while everybody is asked something: the table then says when all have returned and answered,
and what that cost.

What this machine must allow for that many agents `bench/room.py` says; where it does not, that is said.
"""

import argparse
import contextlib
import json
import os
import platform as machine
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sqlalchemy as sa
from room import require_room, spare_files

from server.notices import NOTICE_EVERY
from server.schema import actions, agents, commands, results
from tests.support.gpg import temporary_investigator
from tests.support.platform import ROOT, Platform
from tests.support.postgres import postgres_server

_TICK = os.sysconf("SC_CLK_TCK")
_HEARTBEAT_S = 60.0  # as agents have it


class Use(NamedTuple):
    """What a group of processes used: processor time in seconds, proportional memory in MiB."""

    cpu_s: float
    pss_mib: float


class Round(NamedTuple):
    """One question: seconds until the first, half, 99 % and all of the answers were committed."""

    first_s: float
    half_s: float
    most_s: float
    all_s: float
    client_s: float
    cpu_s: dict[str, float]
    answered: int


class Storm(NamedTuple):
    """One outage: seconds from the broker's return until half, 99 %, all agents were heard, and answered."""

    half_s: float
    most_s: float
    all_s: float
    answers_s: float
    logins: int
    published: int
    cpu_s: dict[str, float]


class Swarm:
    """The platform, the processes of the swarm, and the database that tells what has arrived."""

    def __init__(self, platform: Platform, database: str, options: argparse.Namespace) -> None:
        self.platform = platform
        self.options = options
        self._engine = sa.create_engine(database)
        self._processes: list[subprocess.Popen[str]] = []
        self.expected = 0

    def start_agents(self) -> float:
        """Start all agents; return the seconds until the last one's login."""
        options = self.options
        key = self.platform.directory / f"{self.platform.investigator.fingerprint}.asc"
        share = -(-options.agents // options.processes)
        began = time.monotonic()
        for first in range(0, options.agents, share):
            settings = {
                "relay": self.platform.broker.agent_url,
                "broker": "mig",
                "key": str(key),
                "fingerprint": self.platform.investigator.fingerprint,
                "first": first,
                "count": min(share, options.agents - first),
                "ramp": options.ramp / options.processes,
                "heartbeat_s": options.heartbeat,
                "has_gate": not options.no_gate,
                "slow": options.slow,
                "failing": options.failing,
                "offline": options.offline,
            }
            command = [sys.executable, str(ROOT / "bench" / "swarm_agents.py"), json.dumps(settings)]
            with (self.platform.directory / f"swarm-{first}.log").open("wb") as log:
                self._processes.append(
                    subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
                )
        for process in self._processes:
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line:
                raise SystemExit("a process of the swarm ended; see its log")
            self.expected += json.loads(line)["ready"]
        while (
            self._count(sa.select(sa.func.count()).where(agents.c.heartbeattime.is_not(None))) < self.expected
        ):
            time.sleep(0.2)
        return time.monotonic() - began

    def stop(self) -> None:
        """End the agents."""
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._engine.dispose()

    def _count(self, query: "sa.Select[int]") -> int:
        with self._engine.begin() as connection:
            return int(connection.execute(query).scalar_one())

    def groups(self) -> dict[str, list[int]]:
        """Return the processes of server, broker and swarm."""
        broker = int((self.platform.broker.directory / "rabbitmq.pid").read_text())
        return {
            "server": list(_family(self.platform.processes["server"].pid)),
            "broker": list(_family(broker)),
            "swarm": [process.pid for process in self._processes],
        }

    def ask(self) -> Round:
        """Ask everybody once, as an investigator does."""
        before = {name: _use(pids) for name, pids in self.groups().items()}
        began = time.monotonic()
        words = [
            "agentinfo",
            "-t",
            "name LIKE 'swarm-%' AND status = 'online'",
            "--expire",
            "10m",
            "--all-agents",
        ]
        if self.options.concurrency:
            words += ["--concurrency", str(self.options.concurrency)]
        done = self.platform.mig(*words, "--json", "--yes", check=False, timeout=600)
        client_s = time.monotonic() - began
        if not done.stdout:
            raise SystemExit(done.stderr)
        after = {name: _use(pids) for name, pids in self.groups().items()}
        cpu_s = {name: after[name].cpu_s - before[name].cpu_s for name in after}
        return self._times(client_s, cpu_s)

    def storm(self) -> Storm:
        """Kill the broker, ask everybody meanwhile, start it again, and wait until all have answered."""
        platform = self.platform
        known, logged = self._newest_action(), self._logged()
        words = [
            "agentinfo",
            "-t",
            "name LIKE 'swarm-%'",
            "--expire",
            "10m",
            "--all-agents",
            "--json",
            "--yes",
        ]
        pid = int((platform.broker.directory / "rabbitmq.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        platform.broker.stop()
        asking = platform.start_mig(*words, stderr=subprocess.DEVNULL)
        while self._newest_action() == known:
            time.sleep(0.05)
        platform.broker.start()
        back = datetime.now(UTC)
        # The broker's own start is none of the storm's cost.
        before = {name: _use(pids) for name, pids in self.groups().items()}
        heard = sa.select(sa.func.count()).where(agents.c.heartbeattime > back)
        marks: list[float] = []
        for share in (0.5, 0.99, 1.0):
            while self._count(heard) < share * self.expected:
                time.sleep(0.05)
            marks.append((datetime.now(UTC) - back).total_seconds())
        asking.communicate(timeout=600)
        after = {name: _use(pids) for name, pids in self.groups().items()}
        cpu_s = {name: after[name].cpu_s - before[name].cpu_s for name in after}
        with self._engine.begin() as connection:
            of_it = results.c.action_id == self._newest_action()
            last: datetime = connection.execute(
                sa.select(sa.func.max(results.c.received)).where(of_it)
            ).scalar_one()
            count = connection.execute(sa.select(sa.func.count()).where(of_it)).scalar_one()
        if count != self.expected:
            raise SystemExit(f"{count} answers of {self.expected} agents")
        logins, published = self._logged()
        logins, published = logins - logged[0], published - logged[1]
        answers_s = (last - back).total_seconds()
        return Storm(marks[0], marks[1], marks[2], answers_s, logins, published, cpu_s)

    def _logged(self) -> tuple[int, int]:
        """Return how many logins and published commands the server has logged."""
        log = self.platform.log("server")
        sent = re.findall(r" msg=sent commands=([0-9]+)", log)
        return len(re.findall(r" msg=login agent=", log)), sum(map(int, sent))

    def _newest_action(self) -> str:
        with self._engine.begin() as connection:
            newest = sa.select(actions.c.id).order_by(actions.c.created.desc()).limit(1)
            return str(connection.execute(newest).scalar() or "")

    def _times(self, client_s: float, cpu_s: dict[str, float]) -> Round:
        with self._engine.begin() as connection:
            newest = sa.select(actions.c.id, actions.c.created).order_by(actions.c.created.desc()).limit(1)
            action_id, created = connection.execute(newest).one()
            asked = sa.select(sa.func.count()).where(commands.c.action_id == action_id)
            total = connection.execute(asked).scalar_one()
            query = sa.select(results.c.received).where(results.c.action_id == action_id)
            received = sorted((row[0] - created).total_seconds() for row in connection.execute(query))
        most = received[max(0, -(-len(received) * 99 // 100) - 1)]
        if total != self.expected:
            raise SystemExit(f"{total} commands for {self.expected} agents")
        half = received[len(received) // 2]
        return Round(received[0], half, most, received[-1], client_s, cpu_s, len(received))


def _family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants (proc(5), children)."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _family(int(child))


def _use(pids: list[int]) -> Use:
    cpu, pss = 0, 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        cpu += int(fields[11]) + int(fields[12])
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                pss += int(line.split()[1])
    return Use(cpu / _TICK, pss / 1024)


def _idle(swarm: Swarm, options: argparse.Namespace) -> dict[str, float]:
    """Return the share of one core that each group used while nothing was asked, in per cent."""
    time.sleep(options.settle)
    before = {name: _use(pids) for name, pids in swarm.groups().items()}
    time.sleep(options.idle)
    after = {name: _use(pids) for name, pids in swarm.groups().items()}
    return {name: 100 * (after[name].cpu_s - before[name].cpu_s) / options.idle for name in after}


def _print_rows(rows: list[tuple[str, list[float], str]]) -> None:
    for name, values, unit in rows:
        print(f"| {name} | {statistics.median(values):.3g} {unit} | {min(values):.3g} to {max(values):.3g} |")


def _report(swarm: Swarm, login_s: float, rounds: list[Round], idle: dict[str, float]) -> None:
    options = swarm.options
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    cpu = models[0].split(":")[1].strip() if models else machine.machine()
    gate = "without the gate's cost" if options.no_gate else "the gate in every agent"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu}), Python {machine.python_version()}")
    print(f"{swarm.expected} agents, {options.database}, {gate}; n={len(rounds)}, medians\n")
    print("| measure | median | range |\n|---|---|---|")
    rows: list[tuple[str, list[float], str]] = [
        ("first answer committed", [one.first_s for one in rounds], "s"),
        ("half of the answers", [one.half_s for one in rounds], "s"),
        ("99 % of the answers", [one.most_s for one in rounds], "s"),
        ("all answers", [one.all_s for one in rounds], "s"),
        ("the whole `mig` command, every signature verified", [one.client_s for one in rounds], "s"),
        ("answers", [float(one.answered) for one in rounds], ""),
    ]
    for name in ("server", "broker", "swarm"):
        per_command = [one.cpu_s[name] / max(1, one.answered) * 1000 for one in rounds]
        rows.append((f"processor time per command, {name}", per_command, "ms"))
    _print_rows(rows)
    print(f"| all agents logged in after | {login_s:.3g} s | |")
    for name, pids in swarm.groups().items():
        print(f"| memory, {name}, PSS | {_use(pids).pss_mib:.0f} MiB | |")
    for name, share in idle.items():
        print(f"| processor while nothing is asked, {name} | {share:.3g} % of a core | |")
    if idle:
        both = idle["server"] + idle["broker"]
        each_ms = both / 100 / (swarm.expected / swarm.options.heartbeat) * 1000
        print(f"| heartbeats, server and broker together | {both:.3g} % of a core | {each_ms:.2f} ms each |")


def _report_storm(swarm: Swarm, login_s: float, storms: list[Storm]) -> None:
    print(f"{swarm.expected} agents, {swarm.options.database}; n={len(storms)}, medians\n")
    print("| measure, from the broker's return | median | range |\n|---|---|---|")
    rows: list[tuple[str, list[float], str]] = [
        ("half of the agents heard again", [one.half_s for one in storms], "s"),
        ("99 % of the agents", [one.most_s for one in storms], "s"),
        ("all agents", [one.all_s for one in storms], "s"),
        ("the last answer to what was asked meanwhile", [one.answers_s for one in storms], "s"),
        ("logins of each agent", [one.logins / swarm.expected for one in storms], ""),
        ("commands published for each agent", [one.published / swarm.expected for one in storms], ""),
    ]
    for name in ("server", "broker", "swarm"):
        each = [1000 * one.cpu_s[name] / swarm.expected for one in storms]
        rows.append((f"processor time per agent, {name}", each, "ms"))
    _print_rows(rows)
    print(f"| all agents logged in for the first time after | {login_s:.3g} s | |")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("agents", type=int, metavar="N", help="how many agents")
    parser.add_argument("--runs", type=int, default=5, help="questions asked, after one to warm up")
    parser.add_argument("--processes", type=int, default=2, help="processes that share the agents")
    parser.add_argument("--ramp", type=float, default=200.0, help="logins per second")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--volatile", action="store_true", help="agents' queues as in a cluster, not on disk")
    parser.add_argument("--concurrency", type=int, default=0, metavar="N", help="ask at most N at a time")
    parser.add_argument("--no-gate", action="store_true", help="agents answer without verifying")
    for name, text in (
        ("slow", "answer two seconds late"),
        ("failing", "answer that it failed"),
        ("offline", "stay away"),
    ):
        parser.add_argument(f"--{name}", type=int, default=0, metavar="PERCENT", help=f"agents that {text}")
    parser.add_argument("--idle", type=float, default=0.0, help="seconds to measure with nothing asked")
    parser.add_argument(
        "--settle",
        type=float,
        default=NOTICE_EVERY.total_seconds() + 2 * _HEARTBEAT_S,
        help="seconds to wait before that, until every agent was told of the last question's log entries",
    )
    parser.add_argument(
        "--heartbeat",
        type=float,
        default=_HEARTBEAT_S,
        help="seconds between two heartbeats of an agent: 320 agents at 2 send as many as 10,000 at 60",
    )
    parser.add_argument("--storm", action="store_true", help="kill the broker instead, once for each run")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = _parse()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    require_room(options.agents, options.processes)
    signal.signal(
        signal.SIGTERM, lambda _number, _frame: sys.exit(1)
    )  # broker and agents are to be ended too
    directory = Path(tempfile.mkdtemp(prefix="mig-swarm-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        database = f"sqlite:///{directory / 'server' / 'mig.sqlite'}"
        if options.database == "postgresql":
            database = stack.enter_context(postgres_server())
        investigator = stack.enter_context(temporary_investigator())
        settings = "relay_cluster = true" if options.volatile else ""
        platform = Platform(directory, investigator, database=database, server_settings=settings)
        stack.callback(platform.stop)
        platform.start()
        if not options.volatile:
            spare_files(platform, options.agents)
        swarm = Swarm(platform, database, options)
        stack.callback(swarm.stop)
        login_s = swarm.start_agents()
        print(f"{swarm.expected} agents after {login_s:.1f} s", file=sys.stderr)
        if options.storm:
            storms = []
            for _ in range(options.runs):
                storms.append(swarm.storm())
                print(storms[-1], file=sys.stderr)
            _report_storm(swarm, login_s, storms)
            return
        # The broker asks the server about each agent's first answer in half an hour.
        print(f"to warm up: {_describe(swarm.ask())}", file=sys.stderr)
        rounds = []
        for _ in range(options.runs):
            rounds.append(swarm.ask())
            print(_describe(rounds[-1]), file=sys.stderr)
        idle = _idle(swarm, options) if options.idle else {}
        _report(swarm, login_s, rounds, idle)


def _describe(one: Round) -> str:
    known: dict[str, Any] = {
        **one._asdict(),
        "cpu_s": {key: round(value, 2) for key, value in one.cpu_s.items()},
    }
    return json.dumps(
        {key: round(value, 3) if isinstance(value, float) else value for key, value in known.items()}
    )


if __name__ == "__main__":
    main()
