"""A whole platform of real parts in one directory: broker, server, agents, and an investigator's `mig`.

Every part is a process of its own, as in production; all listen on loopback, and all end with `stop`.
"""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from protocol.target import parse_target
from server.broker import PrivateBroker
from server.database import Database
from server.main import cli as mig_server_commands
from server.store import Store
from tests.support.forked import run_program
from tests.support.gpg import Investigator
from tests.support.ports import free_port
from tests.support.routed import Network

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 180  # of a slow machine with much else to do; what comes sooner is not waited for longer
# No command takes so long; on a machine with much else to do, one that reads all programs may take minutes.
LONGEST_S = 280


def wait_until(is_there: Callable[[], Any], what: str, *, seconds: float = START_S) -> Any:
    """Wait until something is there, and return it; fails with its name when it does not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = is_there()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} is not there after {seconds:g} s")


def bake(
    tree: Path, agent_table: dict[str, Any], keys: dict[str, bytes], roots: dict[str, bytes] | None = None
) -> None:
    """Make a source tree that carries configuration and keys, by fingerprint, as a built agent does.

    Byte code that lies beside the sources comes along: an isolated interpreter looks for it nowhere else.
    """
    ignore = shutil.ignore_patterns("baked")
    for package in ("agent", "protocol"):
        shutil.copytree(ROOT / package, tree / package, ignore=ignore)
    baked = tree / "agent" / "baked"
    (baked / "keys").mkdir(parents=True)
    (baked / "config.json").write_text(json.dumps(agent_table))
    names = [f"{fingerprint}.asc" for fingerprint in keys]
    build = {"version": "0.0-test", "platform": "test", "build": "test", "keys": names}
    (baked / "build.json").write_text(json.dumps(build))
    for fingerprint, key in keys.items():
        (baked / "keys" / f"{fingerprint}.asc").write_bytes(key)
    (baked / "roots").mkdir()
    for fingerprint, key in (roots or {}).items():
        (baked / "roots" / f"{fingerprint}.asc").write_bytes(key)


class Platform:
    """One platform. `start` brings up what is asked for; single parts may be ended and started again."""

    def __init__(
        self,
        directory: Path,
        investigator: Investigator,
        *,
        database: str = "",
        agent_table: Any = None,
        enrolment: str = "open",
        roots: Sequence[Investigator] = (),
        modules: Path | None = None,
        network: Network | None = None,
        broker_settings: str = "",
        server_settings: str = "",
        webhook: str = "",
    ) -> None:
        """Keep what a platform is made of.

        With a `network` server and agents run on its hosts `server` and `agents`, the broker on this machine.
        """
        self.directory = directory
        self.investigator = investigator
        self.api_port = free_port()
        self.auth_port = free_port()
        self._network = network
        self._broker_settings = broker_settings
        self._server_settings = server_settings
        self.host = network.address("server") if network else "127.0.0.1"
        self.url = f"http://{self.host}:{self.api_port}"
        self.config = directory / "config.toml"
        self.database = database or f"sqlite:///{directory / 'server' / 'mig.sqlite'}"
        self._agent_table = agent_table or {}
        self._enrolment = enrolment
        self._webhook = f'webhook = [{{ name = "siem", url = "{webhook}" }}]' if webhook else ""
        self._modules = modules  # a directory of more modules for its agents
        self._roots = {root.fingerprint: root.public_key for root in roots}
        self.broker = PrivateBroker(directory / "rabbitmq", auth_listen=f"{self.host}:{self.auth_port}")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.prologues: dict[str, str] = {}  # code that a part runs before it begins

    # -- parts

    def start(self, *agents: str) -> None:
        """Start broker and server, and one agent of each name; returns when all agents are online."""
        self.start_broker()
        self.start_without_broker()
        for name in agents:
            self.start_agent(name)
        for name in agents:
            wait_until(partial(self.is_online, name), f"agent {name}")

    def start_broker(self) -> None:
        """Start the broker, within reach of the network's hosts where there are some."""
        if self._broker_settings:
            more = self.broker.directory / "none"  # where it looks for further settings
            more.mkdir(parents=True, exist_ok=True)
            (more / "test.conf").write_text(self._broker_settings)
        self.broker.start()
        if self._network is not None:
            port = urlsplit(self.broker.agent_url).port
            listen = f'rabbit_networking:start_tcp_listener({{"{self._network.here}", {port}}}, 2).'
            subprocess.run([str(self.broker.rabbitmqctl), "eval", listen], check=True, capture_output=True)

    def _reach(self, url: str) -> str:
        """Return the broker's URL as server and agents reach it."""
        return url.replace("127.0.0.1", self._network.here) if self._network else url

    def start_without_broker(self) -> None:
        """Start the server alone; where its broker does not run, the server waits for it."""
        (self.directory / "server").mkdir(parents=True, exist_ok=True)
        self.broker.prepare()
        self.write_config()
        key = self.directory / f"{self.investigator.fingerprint}.asc"
        key.write_bytes(self.investigator.public_key)
        config = ("--config", str(self.config))
        # In this process: an interpreter's start with the server's libraries takes longer than all they do.
        with contextlib.redirect_stdout(io.StringIO()):
            mig_server_commands(["migrate", *config], standalone_mode=False)
            mig_server_commands(
                ["investigator", "add", *config, "--name", "Ada", str(key)], standalone_mode=False
            )
        self.start_server()

    def write_config(self) -> None:
        """Write config.toml for server and client."""
        self.config.write_text(
            f"""
[server]
name = "mig"
url = "{self.url}"
listen = "{self.host}:{self.api_port}"
broker_auth_listen = "{self.host}:{self.auth_port}"
database = "{self.database}"
relay = "{self._reach(self.broker.url)}"
enrolment = "{self._enrolment}"
rabbitmqctl = "{self.broker.rabbitmqctl}"
state_dir = "{self.directory / "server"}"
agents_dir = "{self.directory / "dist"}"
{self._webhook}
{self._server_settings}

[client]
server = "{self.url}"
fingerprint = "{self.investigator.fingerprint}"
gpg_home = "{self.investigator.home}"
"""
        )
        self.config.chmod(0o600)
        (self.directory / "dist").mkdir(exist_ok=True)

    def set_option(self, name: str, value: int) -> None:
        """Add a number to the server's table of the configuration, for its next start."""
        lines = self.config.read_text().splitlines()
        kept = [line for line in lines if not line.startswith(f"{name} =")]
        kept.insert(kept.index("[server]") + 1, f"{name} = {value}")
        self.config.write_text("\n".join(kept) + "\n")

    def start_server(self) -> None:
        """Start mig-server, and wait until its API answers."""
        self.spawn_server()
        wait_until(self.is_listening, "the API")

    def spawn_server(self) -> None:
        """Start mig-server, and wait for nothing."""
        code = f"{self.prologues.get('server', '')}\nfrom server.main import main; main()"
        self.spawn("server", [sys.executable, "-B", "-c", code, "serve", "--config", str(self.config)])

    def agent_tree(self, name: str, **options: Any) -> Path:
        """Return the directory of one agent's baked source tree, made on first use."""
        tree = self.directory / f"agent-{name}"
        if not tree.exists():
            acl = {"default": {"minimum_weight": 1, "investigators": {self.investigator.fingerprint: 1}}}
            table = {
                "relay": self._reach(self.broker.agent_url),
                "broker": "mig",
                "acl": acl,
                "tags": {"name": name},
                "trust": {"roots": list(self._roots)},
                **self._agent_table,
                **options,
            }
            bake(tree, table, {self.investigator.fingerprint: self.investigator.public_key}, self._roots)
            if self._modules is not None:
                shutil.copytree(self._modules, tree / "agent" / "modules", dirs_exist_ok=True)
        return tree

    def agent_command(self, name: str, *words: str, prologue: str = "") -> list[str]:
        """Return the command line of `mig-agent` for one agent."""
        tree = str(self.agent_tree(name))
        begin = f"import sys; sys.path.insert(0, {tree!r})"
        code = f"{begin}\n{prologue}\nfrom agent.main import main; main()"
        return [sys.executable, "-I", "-B", "-c", code, *words]

    def start_agent(self, name: str, **options: Any) -> None:
        """Start one agent in the foreground; `tags->>'name'` is its name, `options` are baked in at first."""
        self.agent_tree(name, **options)
        state = str(self.directory / f"state-{name}")
        self.spawn(name, self.agent_command(name, "run", "--foreground", "--state-dir", state))

    def spawn(self, name: str, command: list[str]) -> None:
        """Start one part as a process of its own."""
        words = self._network.words("server" if name == "server" else "agents") if self._network else []
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*words, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=self.environment(),
            )

    def environment(self) -> dict[str, str]:
        """Return the environment of every program."""
        path = os.environ.get("PATH", "/usr/bin:/bin")
        return {
            "PATH": path,
            "HOME": str(self.directory),
            "MIG_CONFIG": str(self.config),
            "LC_ALL": "C.UTF-8",
        }

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """End one part, by a signal, and wait for it."""
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait(30)

    def stop(self) -> None:
        """End everything, the broker last."""
        for process in self.processes.values():
            process.terminate()
        while self.processes:
            self.processes.popitem()[1].wait(30)
        self.broker.stop()

    def log(self, name: str) -> str:
        """Return what one part has logged."""
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def count_runs(self, name: str, action_id: str) -> int:
        """Return how often an agent has logged that it runs a command of an action."""
        line = rf" msg=running command=\S+ action={re.escape(action_id)}$"
        return len(re.findall(line, self.log(name), re.MULTILINE))

    # -- questions

    def is_listening(self) -> bool:
        """Tell whether the API's port accepts connections."""
        process = self.processes.get("server")
        assert process is None or process.poll() is None, self.log("server")
        try:
            socket.create_connection((self.host, self.api_port), 1).close()
        except OSError:
            return False
        return True

    def health(self) -> dict[str, str]:
        """Return what the server says of itself; fails where it does not within some seconds."""
        answer = urllib3.request("GET", f"{self.url}/api/v1/health", timeout=10, retries=False)
        told: dict[str, str] = answer.json()
        return told

    def is_connected(self) -> bool:
        """Tell whether the server has declared its queues, and the broker takes what is published."""
        try:
            return self.health()["broker"] == "ok"
        except urllib3.exceptions.HTTPError:
            return False  # it listens before it answers

    def is_online(self, name: str) -> bool:
        """Tell whether the platform shows an agent of this name as online."""
        process = self.processes.get(name)
        assert process is None or process.poll() is None, self.log(name)
        target = parse_target(f"tags->>'name' = '{name}' AND status = 'online'")
        # As the API does; a `mig` for each look would take the processor from whom it waits for.
        with contextlib.closing(Database(self.database)) as database:
            return Store(database).find_agents(target, datetime.now(UTC), 1, 0)[0] > 0

    def mig(
        self, *words: str, check: bool = True, timeout: float = LONGEST_S
    ) -> "subprocess.CompletedProcess[str]":
        """Run the investigator's `mig`; with `check`, exit codes other than 0 and 1 fail."""
        done = run_program("client.main", *words, env=self.environment(), timeout=timeout)
        assert not check or done.returncode in {0, 1}, (done.returncode, done.stdout, done.stderr)
        return done

    def start_mig(self, *words: str, stderr: int) -> "subprocess.Popen[str]":
        """Start the investigator's `mig`; what it shows beside the answers goes to `stderr`."""
        return subprocess.Popen(
            [sys.executable, "-B", "-m", "client.main", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=ROOT,
            env={**self.environment(), "TERM": "xterm", "COLUMNS": "200"},
        )

    def mig_json(self, *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Run `mig … --json --yes` and return its answers and its summary."""
        lines = [json.loads(line) for line in self.mig(*words, "--json", "--yes").stdout.splitlines()]
        return lines[:-1], lines[-1]["summary"]

    def agent_says(self, name: str, *words: str) -> str:
        """Run a command of one agent's `mig-agent` on its state, to its end."""
        state = ("--state-dir", str(self.directory / f"state-{name}"))
        command = self.agent_command(name, *words, *state)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    def mig_server(self, *words: str) -> str:
        """Run a command of mig-server to its end."""
        done = run_program("server.main", *words, env=self.environment(), timeout=LONGEST_S)
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout


@contextlib.contextmanager
def running_platform(
    directory: Path, investigator: Investigator, *agents: str, **options: Any
) -> Iterator[Platform]:
    """Run a platform with agents for as long as the block lasts."""
    platform = Platform(directory, investigator, **options)
    try:
        platform.start(*agents)
        yield platform
    finally:
        platform.stop()
