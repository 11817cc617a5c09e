"""The server's configuration: the table `[server]` of config.toml.

The file is shared with the agent's builder and the client, whose tables are not looked at here. In our own
table a name that is not known is refused: a misspelt setting must not silently mean its default.
"""

import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from protocol.errors import InvalidInput
from server.verifiers import MOST
from server.webhook_config import WebhookConfig, require_webhooks

DEFAULT_PATH = Path("/etc/mig/config.toml")
_TABLES = frozenset({"agent", "server", "client"})
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\Z")
_MAX_PORT = 65535
_LONGEST_DAYS = 36500
_Url = Annotated[str, Meta(min_length=1)]


class Listen(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen: a host name or address, and a TCP port."""

    host: str
    port: int


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[server]`.

    `name` is what agents sign into their broker logins, `url` what investigators sign into theirs;
    `enrolment` says how a new agent comes to take part: by an enrolment token (`token`), by an approval for
    which it waits (`approval`), or at once (`open`). `rabbitmqctl` is the broker's own tool, with which
    the connections of revoked agents are closed; empty where it cannot be run. `relay` is the broker's URL,
    or a list of the URLs of a cluster's nodes, tried in this order; `relay_cluster` says that one URL leads
    to a cluster, which several do by themselves (`server.topology`). `relay_ca` is a file of the
    only authorities that may vouch for the broker, in PEM; empty for the system's. `metrics_listen` is where
    a monitoring system may ask for figures, without a login; empty for nowhere. `trust_roots` is a directory
    of the certificates (`*.asc`) of which `trust_threshold` must have signed a trust bundle that is taken, as
    `[agent.trust]` names them; empty to take what anybody signed, and leave it to the agents.
    An action reaches at most `max_agents` agents unless its submission says that it is meant for all. Answers
    are deleted `keep_answers_days` after they came, actions, with all that belongs to them,
    `keep_actions_days` after they were over, alerts `keep_alerts_days` after they came; 0 for never.
    `verifiers` is the number of processes that check the signatures of answers; 0 leaves it to the server.
    `webhook` are where alerts are brought to.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")]
    url: str
    listen: str
    broker_auth_listen: str
    database: Annotated[str, Meta(min_length=1)]
    relay: _Url | Annotated[tuple[_Url, ...], Meta(min_length=1, max_length=8)]
    enrolment: Literal["token", "approval", "open"] = "token"
    state_dir: str
    agents_dir: str
    rabbitmqctl: str = ""
    relay_ca: str = ""
    relay_cluster: bool = False
    metrics_listen: str = ""
    trust_roots: str = ""
    trust_threshold: Annotated[int, Meta(ge=1, le=8)] = 1
    max_agents: Annotated[int, Meta(ge=1)] = 1000
    keep_answers_days: Annotated[int, Meta(ge=0, le=_LONGEST_DAYS)] = 0
    keep_actions_days: Annotated[int, Meta(ge=0, le=_LONGEST_DAYS)] = 0
    keep_alerts_days: Annotated[int, Meta(ge=0, le=_LONGEST_DAYS)] = 0
    verifiers: Annotated[int, Meta(ge=0, le=MOST)] = 2
    webhook: Annotated[tuple[WebhookConfig, ...], Meta(max_length=32)] = ()

    @property
    def relays(self) -> tuple[str, ...]:
        """The URLs of the broker's nodes."""
        return (self.relay,) if isinstance(self.relay, str) else self.relay

    @property
    def is_cluster(self) -> bool:
        """Whether what must survive the loss of a node is kept on several."""
        return self.relay_cluster or len(self.relays) > 1

    @property
    def api_address(self) -> Listen:
        """Where the API listens."""
        return parse_listen(self.listen)

    @property
    def broker_auth_address(self) -> Listen:
        """Where the broker asks whether an agent may log in."""
        return parse_listen(self.broker_auth_listen)

    @property
    def metrics_address(self) -> Listen | None:
        """Where a monitoring system may ask for figures, if anywhere."""
        return parse_listen(self.metrics_listen) if self.metrics_listen else None


def load_config(path: Path) -> ServerConfig:
    """Read config.toml.

    Raises:
        InvalidInput: `bad-config`, with what is wrong and where.

    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InvalidInput("bad-config", f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput("bad-config", f"{path}: not UTF-8 at byte {error.start}") from None
    try:
        return decode_config(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput("bad-config", f"{path}: {error}") from None
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{path}: {error.detail}") from None


def decode_config(document: dict[str, Any]) -> ServerConfig:
    """Turn a decoded config.toml into the server's configuration.

    Raises:
        InvalidInput: `bad-config`.

    """
    unknown = sorted(set(document) - _TABLES)
    if unknown:
        raise InvalidInput("bad-config", f"unknown table [{unknown[0]}]")
    if "server" not in document:
        raise InvalidInput("bad-config", "no table [server]")
    try:
        config = msgspec.convert(document["server"], ServerConfig)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-config", f"[server]: {error}") from None
    _require_url(config.url)
    require_webhooks(config.webhook)
    for path in filter(None, _paths(config)):
        if not Path(path).is_absolute():
            raise InvalidInput("bad-config", f"[server]: {path!r} is not an absolute path")
    if config.keep_actions_days and not 0 < config.keep_answers_days <= config.keep_actions_days:
        raise InvalidInput(
            "bad-config",
            "[server]: keep_answers_days must be from 1 to keep_actions_days: answers go with their action",
        )
    addresses = [config.api_address, config.broker_auth_address]
    if config.metrics_address is not None:
        addresses.append(config.metrics_address)
    if any(one == other for place, one in enumerate(addresses) for other in addresses[:place]):
        raise InvalidInput(
            "bad-config", "[server]: two of listen, broker_auth_listen and metrics_listen are the same"
        )
    return config


def _paths(config: ServerConfig) -> tuple[str, ...]:
    return (config.state_dir, config.agents_dir, config.rabbitmqctl, config.relay_ca, config.trust_roots)


def parse_listen(text: str) -> Listen:
    """Parse `host:port`, with an IPv6 address in brackets.

    Raises:
        InvalidInput: `bad-config`.

    """
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _MAX_PORT:
        raise InvalidInput("bad-config", f"[server]: {text!r} is not host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_address(host):
            raise InvalidInput("bad-config", f"[server]: {text!r} holds no IPv6 address")
    elif not _HOST_NAME.match(host):
        raise InvalidInput("bad-config", f"[server]: {text!r} is not host:port")
    return Listen(host=host, port=int(port))


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _require_url(text: str) -> None:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInput("bad-config", f"[server]: url {text!r} is not an http or https URL")
