"""`mig-server broker ...`: a private node, or one that is there already."""

import secrets
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from protocol.errors import EnvironmentFailure, InvalidInput
from server.broker import PrivateBroker
from server.brokerctl import BrokerControl
from server.brokersetup import BrokerSetup, Request
from server.certificates import TlsFiles
from server.config import ServerConfig, load_config
from server.options import DEFAULT_STATE, config_option
from server.setup import replace_password

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_broker_state_option = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_STATE / "rabbitmq",
    show_default=True,
    help="Where the node keeps all it has.",
)


@click.group()
def broker() -> None:
    """The broker: a private RabbitMQ node on loopback, for one machine; or one that is there already."""


@broker.command("up")
@_broker_state_option
@click.option(
    "--auth-port",
    type=click.IntRange(1, 65535),
    default=1665,
    show_default=True,
    help="The port of the configuration's broker_auth_listen on 127.0.0.1.",
)
@click.option("--foreground", is_flag=True, help="Stay, and stop the node at SIGTERM or Ctrl-C.")
def broker_up(state_dir: Path, auth_port: int, *, foreground: bool) -> None:
    """Start the node (about 4 s); its URL for [server] relay is in STATE_DIR/url."""
    node = PrivateBroker(state_dir, auth_listen=f"127.0.0.1:{auth_port}", outlives_parent=not foreground)
    with _terminable():
        node.start(click.echo)
        try:
            click.echo(f"up: agents connect to {node.agent_url}; the server's URL is in {state_dir / 'url'}")
            if foreground:
                node.wait_ended()
                raise EnvironmentFailure("broker-away", f"RabbitMQ ended; see {state_dir / 'log'}")
        finally:
            if foreground:
                node.stop()


@broker.command("down")
@_broker_state_option
def broker_down(state_dir: Path) -> None:
    """Stop the node; messages stay."""
    node = PrivateBroker(state_dir)
    was_running = node.is_running()
    node.stop()
    click.echo("down" if was_running else "was not running")


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack, as Ctrl-C does, so that nothing is left running."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@broker.command("setup")
@config_option
@click.option(
    "--rabbitmqctl",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="By default the one in the configuration, or in PATH.",
)
@click.option(
    "--conf-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/etc/rabbitmq"),
    show_default=True,
    help="Where the broker's configuration lies.",
)
@click.option("--tls-cert", type=_FILE, help="Certificate of the broker, with its chain, in PEM.")
@click.option("--tls-key", type=_FILE, help="Its key; the broker's user must be able to read it.")
@click.option("--tls-ca", type=_FILE, help="The authority that made it: what relay_ca names.")
@click.option("--tls-port", type=click.IntRange(1, 65535), default=5671, show_default=True)
@click.option("--delete-guest/--keep-guest", default=None, help="By default asked, where there is a guest.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def broker_setup(config_path: Path, *, dry_run: bool, **options: Any) -> None:
    """Make a RabbitMQ that is already there ready: on its host, as root.

    Virtual host, the server's account and permissions, the plugins that ask the server about agents, and one
    file in conf.d, with a TLS listener where a certificate is given. It may be run again at any time.
    """
    config = load_config(config_path)
    request = Request(
        config=config,
        conf_directory=options["conf_dir"],
        tls=_tls_files(options["tls_cert"], options["tls_key"], options["tls_ca"]),
        tls_port=options["tls_port"],
        delete_guest=partial(_may_delete_guest, options["delete_guest"], dry_run=dry_run),
        new_password=lambda: secrets.token_urlsafe(24),
        set_password=partial(replace_password, config_path, config.relays),
    )
    control = BrokerControl(_find_rabbitmqctl(options["rabbitmqctl"], config))
    for line in BrokerSetup(request, control, dry_run=dry_run).run():
        click.echo(line)
    if request.tls is None:
        click.echo("warn  no TLS: what agents say can be read on its way; --tls-cert, --tls-key, --tls-ca")


def _tls_files(certificate: Path | None, key: Path | None, ca: Path | None) -> TlsFiles | None:
    if certificate and key and ca:
        return TlsFiles(certificate.absolute(), key.absolute(), ca.absolute())
    if certificate or key or ca:
        raise InvalidInput("usage", "TLS needs all three of --tls-cert, --tls-key and --tls-ca")
    return None


def _may_delete_guest(chosen: bool | None, *, dry_run: bool) -> bool:  # noqa: FBT001  (click's three states)
    if chosen is not None or dry_run:
        return chosen is not False
    if not sys.stdin.isatty():
        raise InvalidInput("usage", "there is an account guest: say --delete-guest or --keep-guest")
    return click.confirm("Delete the account guest, whose password everybody knows?", default=True, err=True)


def _find_rabbitmqctl(given: Path | None, config: ServerConfig) -> Path:
    found = given or config.rabbitmqctl or shutil.which("rabbitmqctl")
    if not found:
        raise EnvironmentFailure("tool-missing", "rabbitmqctl is not in PATH: run this on the broker's host")
    return Path(found).absolute()
