"""`mig-server broker ...`: a private node, or one that is there already."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from protocol.errors import EnvironmentFailure
from server.broker import PrivateBroker
from server.options import DEFAULT_STATE

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
