"""A RabbitMQ cluster of some nodes on this machine: each a process of its own, all on loopback.

The nodes are private ones (`server.broker`) with names of their own, one cookie, and one epmd that they share
and that outlives each of them: a node is killed without taking the others' names along.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from server.broker import PrivateBroker
from server.brokerctl import BrokerControl
from server.daemon import Daemon
from tests.support.gpg import Investigator
from tests.support.platform import Platform, wait_until
from tests.support.ports import free_port

_PATIENCE_S = 30.0
# As docs/operating.md advises for three nodes: of two parts that do not see each other the larger goes on.
_CONFIG = (
    "cluster_partition_handling = pause_minority\ncluster_formation.peer_discovery_backend = classic_config\n"
)


class _NoEpmd(Daemon):
    """Stands where a private node has a port mapper of its own."""

    def acquire(self) -> None:
        """Take nothing."""

    def spawn(self, *_words: Any, **_options: Any) -> None:
        """Start nothing."""

    def stop(self, *, patience_s: float) -> None:
        """End nothing."""


class ClusterNode(PrivateBroker):
    """One node; `others` are the names of all nodes, this one too."""

    def __init__(
        self, directory: Path, name: str, others: Sequence[str], *, cookie: str, epmd: int, auth_listen: str
    ) -> None:
        super().__init__(directory, auth_listen=auth_listen)
        self.name = name
        self._others = others
        self._cookie = cookie
        self._epmd_port = epmd
        self._epmd = _NoEpmd(self.directory, "epmd")

    def _environment(self) -> dict[str, str]:
        shared = {"ERL_EPMD_PORT": str(self._epmd_port), "RABBITMQ_NODENAME": self.name}
        return super()._environment() | shared

    def _write_files(self) -> None:
        super()._write_files()
        config = self.directory / "rabbitmq.conf"
        names = [
            f"cluster_formation.classic_config.nodes.{place} = {name}\n"
            for place, name in enumerate(self._others, 1)
        ]
        password = f"default_pass = {self._read_state().password}\n"
        assert password in config.read_text()
        config.write_text(config.read_text() + _CONFIG + "".join(names))
        cookie = self.directory / "home" / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(self._cookie)
            cookie.chmod(0o400)

    @property
    def control(self) -> BrokerControl:
        """The package's tools, for this node."""
        return BrokerControl(self.rabbitmqctl)

    def kill(self) -> None:
        """End the node as a power cut would; what its channels held is gone, its disk stays."""
        os.kill(int((self.directory / "rabbitmq.pid").read_text()), signal.SIGKILL)
        wait_until(lambda: not self.is_running(), f"the end of {self.name}")
        self.stop()


class LocalCluster:
    """The nodes; the account of the first is that of all."""

    def __init__(self, directory: Path, auth_listens: Sequence[str]) -> None:
        self.directory = directory
        self._epmd_port = free_port()
        self._epmd = Daemon(directory, "epmd")
        cookie = secrets.token_hex(16).upper()
        names = [f"mig{number}@localhost" for number in range(1, len(auth_listens) + 1)]
        self.nodes = [
            ClusterNode(
                directory / name.partition("@")[0],
                name,
                names,
                cookie=cookie,
                epmd=self._epmd_port,
                auth_listen=auth_listen,
            )
            for name, auth_listen in zip(names, auth_listens, strict=True)
        ]

    def start(self) -> None:
        """Start the nodes one after the other: each joins those that are there."""
        epmd = shutil.which("epmd")
        assert epmd is not None, "RabbitMQ is not installed"
        self._epmd.acquire()
        self._epmd.spawn(
            [epmd, "-address", "127.0.0.1", "-port", str(self._epmd_port)],
            {"PATH": os.environ.get("PATH", os.defpath)},
            outlives_parent=False,
        )
        self._epmd.release()
        for node in self.nodes:
            node.start()
        assert self.running() == {node.name for node in self.nodes}

    def running(self) -> set[str]:
        """Return the nodes that the first one of those that run sees running."""
        node = next(node for node in self.nodes if node.is_running())
        return set(node.control.ask("cluster_status")["running_nodes"])

    @property
    def urls(self) -> list[str]:
        """The server's URLs, one for each node, with the password that the first node made."""
        account = self.nodes[0].url.rpartition("@")[0]
        return [f"{account}@{node.url.rpartition('@')[2]}" for node in self.nodes]

    @property
    def agent_urls(self) -> list[str]:
        """The agents' URLs, one for each node."""
        return [node.agent_url for node in self.nodes]

    def stop(self) -> None:
        """End all of it."""
        for node in self.nodes:
            node.stop()
        self._epmd.stop(patience_s=_PATIENCE_S)


@contextmanager
def local_cluster(*auth_listens: str) -> Iterator[LocalCluster]:
    """Run a cluster with one node for each address at which a server answers about agents."""
    with tempfile.TemporaryDirectory(prefix="mig-cluster-") as directory:
        cluster = LocalCluster(Path(directory), auth_listens)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


class ClusterPlatform(Platform):
    """A platform on a cluster of three nodes, with a server beside each, all on one PostgreSQL.

    The servers are `server`, `server2` and `server3`; each prefers the node that asks it about agents.
    """

    def __init__(self, directory: Path, investigator: Investigator, *, database: str, modules: Path) -> None:
        super().__init__(directory, investigator, database=database, modules=modules)
        self._listens = [(self.api_port, self.auth_port)]
        self._listens += [(free_port(), free_port()) for _ in range(2)]
        self.cluster = LocalCluster(directory, [f"127.0.0.1:{auth}" for _, auth in self._listens])
        self.broker = self.cluster.nodes[0]

    def start(self, *agents: str) -> None:
        """Start the nodes, the servers, and one agent of each name; returns when all agents are online."""
        self.cluster.start()
        self._agent_table = {"relay": self.cluster.agent_urls, "heartbeat_s": 5}
        self.start_without_broker()
        for number in range(2, len(self._listens) + 1):
            self.start_other_server(number)
        for name in agents:
            self.start_agent(name)
        for name in agents:
            wait_until(partial(self.is_online, name), f"agent {name}", seconds=_PATIENCE_S * 4)

    def write_config(self) -> None:
        """Write the first server's and the client's config.toml."""
        super().write_config()
        self._set_relay(self.config, 1)

    def _set_relay(self, config: Path, first: int) -> None:
        urls = self.cluster.urls[first - 1 :] + self.cluster.urls[: first - 1]
        text = config.read_text()
        assert text.count(f'relay = "{self.broker.url}"') == 1
        config.write_text(text.replace(f'relay = "{self.broker.url}"', f"relay = {json.dumps(urls)}"))

    def start_other_server(self, number: int) -> None:
        """Start one of the other servers, and wait until its API answers."""
        super().write_config()
        text = self.config.read_text()
        self.write_config()
        api, auth = self._listens[number - 1]
        text = text.replace(f'listen = "127.0.0.1:{self.api_port}"', f'listen = "127.0.0.1:{api}"')
        text = text.replace(f'"127.0.0.1:{self.auth_port}"', f'"127.0.0.1:{auth}"')
        state = self.directory / f"server{number}"
        state.mkdir(exist_ok=True)
        text = text.replace(f'state_dir = "{self.directory / "server"}"', f'state_dir = "{state}"')
        config = self.directory / f"config{number}.toml"
        config.write_text(text)
        config.chmod(0o600)
        self._set_relay(config, number)
        command = [sys.executable, "-B", "-m", "server.main", "serve", "--config", str(config)]
        self.spawn(f"server{number}", command)

        def is_up() -> bool:
            assert self.processes[f"server{number}"].poll() is None, self.log(f"server{number}")
            return can_connect(api)

        wait_until(is_up, f"server {number}")

    def stop(self) -> None:
        """End everything."""
        super().stop()
        self.cluster.stop()


def can_connect(port: int) -> bool:
    """Tell whether somebody listens on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
