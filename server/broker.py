"""A private RabbitMQ node as an ordinary process: loopback only, all of it in one directory.

Rules:
1. The node's own start script is run; the package's /usr/sbin wrapper insists on a user `rabbitmq`.
2. Everything listens on 127.0.0.1, the Erlang port mapper (epmd) and the distribution port too; both are the
   node's own, so neither another node nor another user's epmd is touched.
3. There is no `guest`, no management plugin and no mechanism but PLAIN. The one account of its own database
   is the server's, with a random password; our HTTP listener (`server.brokerauth`) answers for agents.
4. Ports are chosen once and kept: agents know them. They lie below the ephemeral range, so that no outgoing
   connection of somebody else takes one meanwhile.
5. Nothing is left running when a start fails, and nothing outlives the starter unless that was asked for.

Layout: `state.json` (ports, password), `rabbitmq.conf`, `advanced.config`, `enabled_plugins` (all 0600),
`log/`, `data/`, `rabbitmqctl` and `rabbitmq-plugins` (0700), the package's tools for this node, and `url`
(0600), the server's own URL, which is there for as long as the node is up.
Environment: https://www.rabbitmq.com/docs/configure#supported-environment-variables, and epmd(1).
"""

import errno
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import msgspec

from protocol.errors import EnvironmentFailure
from server.brokerfiles import ACCOUNT, ERLANG_FLAGS, VHOST, private_node_files
from server.daemon import Daemon

_START_S = 120.0
_STOP_S = 30.0
_PROBE_S = 0.05
_LOG_LINES = 12
_PORTS = range(20000, 32000)
_INSTALLED = Path("/usr/lib/rabbitmq/lib")
_HELLO = b"AMQP\x00\x00\x09\x01"  # protocol header, AMQP 0-9-1 section 4.2.2
_START_FRAME = b"\x01\x00\x00"  # a method frame on channel 0: connection.start


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a node keeps between its starts: three loopback ports and the server's password."""

    amqp: int
    distribution: int
    epmd: int
    password: str


def _ignore(_text: str) -> None:
    """Show no progress."""


class PrivateBroker:
    """One private node in `directory`.

    `auth_listen` is where the server answers for agents ("host:port", the configuration's
    `broker_auth_listen`). `outlives_parent` leaves the node running when the starter ends. `installed` is
    where the packages of Debian and Ubuntu put RabbitMQ.
    """

    def __init__(
        self,
        directory: Path,
        *,
        auth_listen: str = "127.0.0.1:1665",
        outlives_parent: bool = False,
        installed: Path = _INSTALLED,
    ) -> None:
        self.directory = directory.absolute()
        self.auth_listen = auth_listen
        self._outlives_parent = outlives_parent
        self._installed = installed
        self._log = self.directory / "log" / "node.log"
        self._log_seen = 0  # how much of it was written before this start
        self._epmd = Daemon(self.directory, "epmd")
        self._node = Daemon(self.directory, "rabbitmq")

    @property
    def url(self) -> str:
        """The server's own URL, password included."""
        state = self._read_state()
        return f"amqp://{ACCOUNT}:{quote(state.password)}@127.0.0.1:{state.amqp}/{VHOST}"

    @property
    def agent_url(self) -> str:
        """The URL that agents are given: no credentials in it."""
        return f"amqp://127.0.0.1:{self._read_state().amqp}/{VHOST}"

    def is_running(self) -> bool:
        """Tell whether the node runs, whoever started it."""
        return self._node.is_running()

    def prepare(self) -> None:
        """Make the directory and choose ports and password, unless that was done before.

        Raises:
            EnvironmentFailure: `state-failed` or `disk-full`.

        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._state_file.exists():
                amqp, distribution, epmd = _free_ports(3)
                state = State(
                    amqp=amqp, distribution=distribution, epmd=epmd, password=secrets.token_urlsafe(24)
                )
                _write_private(self._state_file, json.dumps(msgspec.to_builtins(state)))
        except OSError as error:
            raise _state_failure(error) from None

    def start(self, progress: Callable[[str], None] = _ignore) -> None:
        """Start the node and return once it speaks AMQP (about 4 s).

        Raises:
            EnvironmentFailure: `tool-missing`, `state-in-use`, `port-in-use`, `state-failed`, `disk-full`, or
                `broker-away` with the last lines of its log.

        """
        script, epmd = _find_programs(self._installed)
        self.prepare()
        self._node.acquire()
        try:
            progress(f"starting {script.parents[1].name.replace('_server-', ' ')}")
            self._url_file.unlink(missing_ok=True)
            self._write_files()
            self._write_tools(script.parent)
            self._epmd.stop(patience_s=_STOP_S)  # left over from a node that was killed
            self._require_free_ports()
            self._epmd.acquire()
            self._spawn(script, epmd)
            self._wait_until_ready()
            _write_private(self._url_file, self.url + "\n")
        except OSError as error:
            self.stop()
            raise _state_failure(error) from None
        except BaseException:
            self.stop()
            raise
        self._node.release()
        self._epmd.release()

    def stop(self) -> None:
        """Stop the node and its epmd in good order, whoever started them; nothing to stop is no error.

        Raises:
            EnvironmentFailure: `state-failed` where a process cannot be ended.

        """
        self._url_file.unlink(missing_ok=True)
        self._node.stop(patience_s=_STOP_S)
        self._epmd.stop(patience_s=_STOP_S)

    def wait_ended(self) -> None:
        """Wait until a node that was started here has ended by itself."""
        self._node.ended_within(None)

    @property
    def _url_file(self) -> Path:
        return self.directory / "url"

    @property
    def _state_file(self) -> Path:
        return self.directory / "state.json"

    def _read_state(self) -> State:
        try:
            return msgspec.json.decode(self._state_file.read_bytes(), type=State)
        except (OSError, msgspec.DecodeError) as error:
            raise EnvironmentFailure("state-failed", f"{self._state_file}: {error}") from None

    def _write_files(self) -> None:
        state = self._read_state()
        for name in ("log", "data", "home", "none"):
            (self.directory / name).mkdir(mode=0o700, exist_ok=True)
        self._log_seen = self._log.stat().st_size if self._log.exists() else 0
        files = private_node_files(port=state.amqp, password=state.password, auth_listen=self.auth_listen)
        for name, text in files.items():
            _write_private(self.directory / name, text)

    @property
    def rabbitmqctl(self) -> Path:
        """The script that runs the package's `rabbitmqctl` on this node."""
        return self.directory / "rabbitmqctl"

    def _write_tools(self, installed: Path) -> None:
        """Write the package's tools as scripts with this node's environment, whoever runs them."""
        words = " ".join(shlex.quote(f"{name}={value}") for name, value in self._environment().items())
        for name in ("rabbitmqctl", "rabbitmq-plugins"):
            tool = shlex.quote(str(installed / name))
            path = self.directory / name
            _write_private(path, f'#!/bin/sh\nexec env -i {words} {tool} "$@"\n')
            path.chmod(0o700)

    def _require_free_ports(self) -> None:
        state = self._read_state()
        for port in (state.amqp, state.distribution, state.epmd):
            if not _is_free(port):
                raise EnvironmentFailure(
                    "port-in-use", f"127.0.0.1:{port}, which this broker keeps, is taken by another process"
                )

    def _spawn(self, script: Path, epmd: Path) -> None:
        environment = self._environment()
        port = environment["ERL_EPMD_PORT"]
        self._epmd.spawn(
            [str(epmd), "-address", "127.0.0.1", "-port", port],
            environment,
            outlives_parent=self._outlives_parent,
        )
        self._node.spawn([str(script)], environment, outlives_parent=self._outlives_parent)

    def _environment(self) -> dict[str, str]:
        state = self._read_state()
        inside = str(self.directory)
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": f"{inside}/home",  # of the Erlang cookie
            # The script then becomes the node instead of waiting for it, so signals reach the node itself.
            "RUNNING_UNDER_SYSTEMD": "true",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(state.epmd),
            "RABBITMQ_NODENAME": "mig@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(state.amqp),
            "RABBITMQ_DIST_PORT": str(state.distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ERLANG_FLAGS,
            "RABBITMQ_MNESIA_BASE": f"{inside}/data",
            "RABBITMQ_LOG_BASE": f"{inside}/log",
            "RABBITMQ_PID_FILE": f"{inside}/data/node.pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{inside}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{inside}/rabbitmq.conf",
            # The machine's own configuration in /etc/rabbitmq is none of ours.
            "RABBITMQ_CONFIG_FILES": f"{inside}/none",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{inside}/advanced.config",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }

    def _wait_until_ready(self) -> None:
        port = self._read_state().amqp
        deadline = time.monotonic() + _START_S
        while not _speaks_amqp(port):
            code = self._node.ended_within(_PROBE_S)
            if code is not None:
                raise EnvironmentFailure(
                    "broker-away", f"RabbitMQ ended with code {code} while starting:\n{self._last_lines()}"
                )
            if time.monotonic() > deadline:
                raise EnvironmentFailure(
                    "broker-away", f"RabbitMQ did not start within {_START_S:.0f} s:\n{self._last_lines()}"
                )

    def _last_lines(self) -> str:
        """Return what the node said of its end: Erlang names the cause first and buries it in state."""
        said = self._log.read_bytes()[self._log_seen :] if self._log.exists() else b""
        text = (said + self._node.output.read_bytes()).decode("utf-8", "replace")
        lines = [line for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "[error]" in line]
        return "\n".join(errors[:_LOG_LINES] or lines[-_LOG_LINES:])


def _find_programs(installed: Path) -> tuple[Path, Path]:
    """Find the newest installed node's start script, and epmd."""
    scripts = sorted(
        installed.glob("rabbitmq_server-*/sbin/rabbitmq-server"),
        key=lambda path: [int(digits) for digits in re.findall(r"\d+", path.parents[1].name)],
    )
    epmd = shutil.which("epmd")
    if not scripts or epmd is None:
        raise EnvironmentFailure(
            "tool-missing",
            "RabbitMQ is not installed: apt-get install --no-install-recommends rabbitmq-server",
        )
    return scripts[-1], Path(epmd)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    candidates = secrets.SystemRandom().sample(_PORTS, len(_PORTS))
    free = (port for port in candidates if _is_free(port))
    return [port for port, _ in zip(free, range(count), strict=False)]


def _speaks_amqp(port: int) -> bool:
    """Tell whether a broker answers the protocol header; its listeners open last, when all else is up."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection:
            connection.sendall(_HELLO)
            return connection.recv(len(_START_FRAME)) == _START_FRAME
    except OSError:
        return False


def _write_private(path: Path, text: str) -> None:
    """Replace a file in one step; nobody else can read it, at no moment."""
    partial = path.with_name(path.name + ".new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    partial.replace(path)


def _state_failure(error: OSError) -> EnvironmentFailure:
    code = "disk-full" if error.errno == errno.ENOSPC else "state-failed"
    return EnvironmentFailure(code, f"{error.filename or 'state directory'}: {error.strerror or error}")
