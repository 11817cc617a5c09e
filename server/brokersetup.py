"""`mig-server broker setup`: makes a RabbitMQ that is already there ready for a MIG platform.

Rules:
1. Every step looks first and does only what is missing, so it may be run again at any time.
2. What it does not understand is refused before anything is changed: another version, a setting of ours that
   stands elsewhere with another value, a file of our name that we did not write.
3. Only one file is written, `90-mig.conf` in `conf.d`; nothing else of the broker's configuration is touched,
   and the broker is never restarted from here.
4. Passwords go through standard input, never into arguments, which everybody on the host can read.

Source: https://www.rabbitmq.com/docs/configure, rabbitmqctl(8), rabbitmq-plugins(8).
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from protocol.errors import EnvironmentFailure, InvalidInput
from server.brokerctl import BrokerControl
from server.brokerfiles import (
    AUTH_PLUGIN,
    CACHE_PLUGIN,
    HANDSHAKE_MS,
    MAX_CHANNELS,
    MAX_MESSAGE_BYTES,
    VHOST,
    agents_settings,
)
from server.certificates import TlsFiles, describe_certificate
from server.config import ServerConfig

FRAGMENT = "90-mig.conf"
# Everything that the server declares begins with it; agents have no permissions here, our listener answers.
PERMISSIONS = r"^mig\."
PLACEHOLDER = "PASSWORD"
_HEADER = "# Written by `mig-server broker setup`, which replaces it when it is run again.\n"
_OLDEST = (3, 10)
_DEPRECATES = (4, 0)
_SETTING = re.compile(r"\s*([a-z][A-Za-z0-9_.$-]*)\s*=\s*(.*?)\s*(?:#.*)?\Z")
_LISTS = {"auth_backends", "auth_cache", "auth_mechanisms", "auth_http", "ssl_options"}
_ADVANCED = (
    "auth_backends",
    "auth_backend_cache",
    "auth_mechanisms",
    "ssl_options",
    "tcp_listeners",
    "ssl_listeners",
)


class Request(NamedTuple):
    """What to set up: the server's configuration, the broker's directory, and what to listen with.

    `delete_guest` is asked when there is a `guest`; `set_password` writes a new password into the server's
    configuration and is called only where that still says PASSWORD.
    """

    config: ServerConfig
    conf_directory: Path
    tls: TlsFiles | None
    tls_port: int
    delete_guest: Callable[[], bool]
    new_password: Callable[[], str]
    set_password: Callable[[str], None]


class _Account(NamedTuple):
    name: str
    password: str
    is_tls: bool
    port: int


class BrokerSetup:
    """Sets up one broker. `run` yields one line for each step: what is well, was done, or would be done."""

    def __init__(self, request: Request, control: BrokerControl, *, dry_run: bool) -> None:
        self._request = request
        self._control = control
        self._dry_run = dry_run
        self._account = _read_account(request.config)
        self._fragment = request.conf_directory / "conf.d" / FRAGMENT
        self._version: tuple[int, ...] = ()

    def run(self) -> Iterator[str]:
        """Look at the broker, and do what is missing.

        Raises:
            InvalidInput: `bad-config` or `conflict`: nothing was changed.
            EnvironmentFailure: `broker-away`, `tool-missing`, `state-failed`.

        """
        yield self._require_version()
        text = self._fragment_text()
        self._require_no_conflict(text)
        if self._request.tls is not None:
            yield describe_certificate(self._request.tls)
        yield self._make_vhost()
        yield from self._make_account()
        yield self._delete_guest()
        yield from self._enable_plugins()
        yield from self._write_fragment(text)

    def _step(self, what: str, *, is_done: bool, do: Callable[[], object]) -> str:
        if is_done:
            return f"ok    {what}"
        if self._dry_run:
            return f"would {what}"
        do()
        return f"did   {what}"

    def _require_version(self) -> str:
        version = self._control.ask("status").get("rabbitmq_version", "")
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        self._version = numbers
        if numbers < _OLDEST:
            raise InvalidInput(
                "conflict", f"RabbitMQ {version or '?'} is older than 3.10, the oldest that is known"
            )
        return f"ok    RabbitMQ {version} runs"

    def _make_vhost(self) -> str:
        vhosts = {entry["name"] for entry in self._control.ask("list_vhosts", "name")}
        return self._step(
            f"virtual host {VHOST}",
            is_done=VHOST in vhosts,
            do=lambda: self._control.run("add_vhost", VHOST),
        )

    def _make_account(self) -> Iterator[str]:
        control, name, password = self._control, self._account.name, self._account.password
        users = {entry["user"]: entry["tags"] for entry in control.ask("list_users")}
        if password == PLACEHOLDER:
            password = self._request.new_password()
            yield self._step(
                "a new password in relay of the server's configuration",
                is_done=False,
                do=lambda: self._request.set_password(password),
            )
        if name not in users:
            yield self._step(
                f"account {name}", is_done=False, do=lambda: control.run("add_user", name, secret=password)
            )
        else:
            yield self._step(
                f"account {name} with the password in relay",
                is_done=self._is_password(name, password),
                do=lambda: control.run("change_password", name, secret=password),
            )
            yield self._step(
                f"account {name} without administrator's rights",
                is_done=not users[name],
                do=lambda: control.run("set_user_tags", name),
            )
        wanted = [PERMISSIONS] * 3
        yield self._step(
            f"permissions of {name} on {VHOST}: {PERMISSIONS}",
            is_done=self._permissions(name) == wanted,
            do=lambda: control.run("set_permissions", "-p", VHOST, name, *wanted),
        )

    def _is_password(self, name: str, password: str) -> bool:
        try:
            self._control.run("authenticate_user", name, secret=password)
        except EnvironmentFailure:
            return False
        return True

    def _permissions(self, name: str) -> list[str]:
        try:
            listed = self._control.ask("list_permissions", "-p", VHOST)
        except EnvironmentFailure:
            return []  # no such virtual host yet
        for entry in listed:
            if entry["user"] == name:
                return [entry["configure"], entry["write"], entry["read"]]
        return []

    def _delete_guest(self) -> str:
        users = {entry["user"] for entry in self._control.ask("list_users")}
        if "guest" not in users:
            return "ok    no account guest"
        if not self._request.delete_guest():
            return "warn  the account guest stays: its password is known to everybody"
        return self._step(
            "delete the account guest", is_done=False, do=lambda: self._control.run("delete_user", "guest")
        )

    def _enable_plugins(self) -> Iterator[str]:
        enabled = self._control.run(
            "list", "--enabled", "--minimal", "--quiet", tool="rabbitmq-plugins"
        ).split()
        for plugin in (AUTH_PLUGIN, CACHE_PLUGIN):
            enable = partial(self._control.run, "enable", "--quiet", plugin, tool="rabbitmq-plugins")
            yield self._step(f"plugin {plugin}", is_done=plugin in enabled, do=enable)

    def _write_fragment(self, text: str) -> Iterator[str]:
        path = self._fragment
        is_done = path.exists() and path.read_text("utf-8", "replace") == text
        if self._dry_run and not is_done:
            yield f"would write {path}:\n{text.rstrip()}"
            return
        yield self._step(f"write {path}", is_done=is_done, do=lambda: _write(path, text))
        if not is_done:
            yield "next  restart RabbitMQ, e.g. systemctl restart rabbitmq-server; then: mig-server doctor"

    def _fragment_text(self) -> str:
        settings = {
            "auth_mechanisms.1": "PLAIN",
            "auth_backends.1": "internal",
            **agents_settings(self._request.config.broker_auth_listen),
            "channel_max": str(MAX_CHANNELS),
            "handshake_timeout": str(HANDSHAKE_MS),
            "max_message_size": str(MAX_MESSAGE_BYTES),
            **(settings_of_cluster(self._version) if self._request.config.is_cluster else {}),
        }
        tls = self._request.tls
        if tls is not None:
            if self._account.is_tls:
                settings["listeners.tcp"] = "none"
            else:
                settings["listeners.tcp.1"] = f"127.0.0.1:{self._account.port}"
            settings |= {
                "listeners.ssl.1": str(self._request.tls_port),
                "ssl_options.cacertfile": str(tls.ca),
                "ssl_options.certfile": str(tls.certificate),
                "ssl_options.keyfile": str(tls.key),
                # Agents show who they are by their login, not by a certificate.
                "ssl_options.verify": "verify_none",
                "ssl_options.fail_if_no_peer_cert": "false",
                "ssl_options.versions.1": "tlsv1.3",
                "ssl_options.versions.2": "tlsv1.2",
            }
        return _HEADER + "".join(f"{name} = {value}\n" for name, value in settings.items())

    def _require_no_conflict(self, text: str) -> None:
        if self._fragment.exists() and not self._fragment.read_text("utf-8", "replace").startswith(_HEADER):
            raise InvalidInput("conflict", f"{self._fragment} is there and was not written by this command")
        ours = dict(_settings(text))
        directory = self._request.conf_directory
        for path in [directory / "rabbitmq.conf", *sorted((directory / "conf.d").glob("*.conf"))]:
            if path != self._fragment and path.exists():
                for name, value in _settings(path.read_text("utf-8", "replace")):
                    wanted = ours.get(name)
                    if wanted != value and (wanted is not None or _group(name) in map(_group, ours)):
                        raise InvalidInput(
                            "conflict", f"{path} sets {name} = {value}; take it out there first"
                        )
        advanced = directory / "advanced.config"
        if advanced.exists():
            found = [word for word in _ADVANCED if word in advanced.read_text("utf-8", "replace")]
            if found:
                raise InvalidInput("conflict", f"{advanced} sets {found[0]}; take it out there first")


def settings_of_cluster(version: tuple[int, ...]) -> dict[str, str]:
    """Return what a node of a cluster has to be told: agents' queues go with their node (`server.topology`).

    RabbitMQ calls that deprecated from 4.0 on, and must be asked for it from 4.3 on; 3.10 does not start with
    the setting. Source: https://www.rabbitmq.com/docs/deprecated-features
    """
    return {"deprecated_features.permit.transient_nonexcl_queues": "true"} if version >= _DEPRECATES else {}


def _read_account(config: ServerConfig) -> _Account:
    nodes = [urlsplit(url) for url in config.relays]
    if len({(node.scheme, node.username, node.password, node.path) for node in nodes}) > 1:
        raise InvalidInput("bad-config", "relay: all nodes have one account, one scheme and one virtual host")
    parts = nodes[0]
    name, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme not in {"amqp", "amqps"} or not name or not password:
        raise InvalidInput("bad-config", "relay: give the account to be made: amqp://NAME:PASSWORD@HOST/mig")
    if name == "guest":
        raise InvalidInput("bad-config", "relay: the server needs an account of its own, not guest")
    if unquote(parts.path[1:]) != VHOST:
        raise InvalidInput("bad-config", f"relay: the virtual host must be {VHOST}")
    is_tls = parts.scheme == "amqps"
    return _Account(name, password, is_tls, parts.port or (5671 if is_tls else 5672))


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        match = _SETTING.match(line)
        if match is not None:
            yield match[1], match[2]


def _group(name: str) -> str:
    """Return what a setting is part of: lists such as auth_backends.1 are replaced as a whole."""
    head = name.split(".", maxsplit=1)[0]
    return head if head in _LISTS else name


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(mode=0o755, exist_ok=True)
        partial = path.with_name(path.name + ".new")  # not *.conf: the broker would read it
        partial.write_text(text, "utf-8")
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        raise EnvironmentFailure("state-failed", f"{error.filename}: {error.strerror}") from None
