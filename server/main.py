"""`mig-server`: the platform's operator's command line.

The commands are thin: each opens what it needs, calls one thing, prints lines. Errors are one line and the
exit code of `protocol.errors`.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from protocol.errors import EXIT_OUT_OF_REACH, EXIT_USAGE, EnvironmentFailure, InvalidInput, MigError
from protocol.names import is_agent_id, is_fingerprint
from protocol.openpgp import parse_certificate
from protocol.version import VERSION
from server.broker import PrivateBroker
from server.config import DEFAULT_PATH, ServerConfig, load_config
from server.database import Database
from server.doctor import examine
from server.logs import set_up_logs
from server.migrations import migrate as migrate_database
from server.parts import utc_now
from server.rows import RIGHTS, Right
from server.setup import write_first_config
from server.shutout import delete_agent_queue
from server.store import Store

_DEFAULT_STATE = Path("/var/lib/mig-server")
_INTERRUPTED = 130

_config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_PATH,
    show_default=True,
    envvar="MIG_CONFIG",
    show_envvar=True,
    help="The configuration; only its table [server] is read.",
)
_broker_state_option = click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=_DEFAULT_STATE / "rabbitmq",
    show_default=True,
    help="Where the node keeps all it has.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="mig-server")
def cli() -> None:
    """Run and administer a MIG platform: API and scheduler in one process.

    \b
    First steps, as root:
      mig-server init --private-broker
      mig-server broker up
      mig-server migrate
      mig-server investigator add --name "Ada" ada.asc
      mig-server doctor
      mig-server serve
    """  # noqa: D301  (click wants the character, not a raw string)


@cli.command()
@_config_option
@click.option("--verbose", is_flag=True, help="Log more.")
def serve(config_path: Path, *, verbose: bool) -> None:
    """Run the API and the scheduler until SIGTERM or Ctrl-C.

    The database is brought to this version's tables first. A broker that is away is waited for.
    """
    # The API's libraries take half a second to import, and no other command needs them.
    from server.serve import serve as serve_until_stopped  # noqa: PLC0415

    set_up_logs(logging.DEBUG if verbose else logging.INFO)
    serve_until_stopped(load_config(config_path))


@cli.command()
@_config_option
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=_DEFAULT_STATE,
    show_default=True,
    help="Where the server keeps its database and its lock.",
)
@click.option("--private-broker", is_flag=True, help="Use a private RabbitMQ node (`mig-server broker up`).")
def init(config_path: Path, state_dir: Path, *, private_broker: bool) -> None:
    """Write a commented configuration and make the state directory; nothing that exists is changed."""
    for line in write_first_config(config_path, state_dir, private_broker=private_broker):
        click.echo(line)


@cli.command()
@_config_option
def migrate(config_path: Path) -> None:
    """Bring the database to this version's tables; `serve` does so too."""
    config = load_config(config_path)
    _make_sqlite_directory(config)
    with _open_database(config) as database:
        migrate_database(database)
    click.echo("the database is up to date")


@cli.command()
@_config_option
def doctor(config_path: Path) -> None:
    """Check configuration, state, database, broker, ports and agents; exit 5 where something is wrong."""
    is_well = True
    for finding in examine(config_path):
        click.echo(f"{'ok  ' if finding.is_well else 'FAIL'}  {finding.subject}: {finding.text}")
        is_well = is_well and finding.is_well
    if not is_well:
        sys.exit(EXIT_OUT_OF_REACH)


@cli.group()
def investigator() -> None:
    """Who may use the API. What agents obey is baked into them, and never decided here."""


@investigator.command("add")
@_config_option
@click.option("--name", help="As people know them; by default the key's first user id.")
@click.option(
    "--rights", default=",".join(RIGHTS), show_default=True, help="Some of read, submit, manage; with commas."
)
@click.argument("key", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def investigator_add(config_path: Path, name: str | None, rights: str, key: Path) -> None:
    """Let the holder of KEY, an OpenPGP public key, use the API; once more: change name and rights."""
    chosen = _parse_rights(rights)
    certificate_bytes = key.read_bytes()
    try:
        certificate = parse_certificate(certificate_bytes)
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{key}: {error.detail}") from None
    known_as = name or next(iter(certificate.user_ids), certificate.fingerprint)
    with _open_store(config_path) as store:
        store.add_investigator(certificate.fingerprint, known_as, certificate_bytes, chosen, utc_now())
    click.echo(f"{certificate.fingerprint}  {known_as}  {','.join(chosen)}")


@investigator.command("list")
@_config_option
def investigator_list(config_path: Path) -> None:
    """List investigators."""
    with _open_store(config_path) as store:
        for row in store.list_investigators():
            click.echo(f"{row.fingerprint}  {row.status:8}  {','.join(row.rights):18}  {_shown(row.name)}")


@investigator.command("disable")
@_config_option
@click.argument("fingerprint")
def investigator_disable(config_path: Path, fingerprint: str) -> None:
    """End an investigator's sessions, and let them log in no more."""
    if not is_fingerprint(fingerprint):
        raise InvalidInput("usage", "a fingerprint has 40 hexadecimal digits, in upper case")
    with _open_store(config_path) as store:
        store.set_investigator_status(fingerprint, "disabled", utc_now())
    click.echo(f"disabled {fingerprint}")


@cli.group()
def agent() -> None:
    """Which agents may take part."""


@agent.command("list")
@_config_option
@click.option("--pending", is_flag=True, help="Only those that wait for `approve`.")
def agent_list(config_path: Path, *, pending: bool) -> None:
    """List agents: id, status, last heartbeat, name."""
    now = utc_now()
    page = 1000
    with _open_store(config_path) as store:
        offset, total = 0, 1
        while offset < total:
            total, rows = store.find_agents(None, now, page, offset)
            offset += page
            for row in rows:
                if pending and row.enrolment != "pending":
                    continue
                seen = "never" if row.heartbeattime is None else f"{row.heartbeattime:%Y-%m-%dT%H:%M:%SZ}"
                click.echo(f"{row.id}  {row.status(now):8}  {seen:20}  {_shown(row.name)}")


@agent.command("approve")
@_config_option
@click.argument("agent_id", metavar="ID")
def agent_approve(config_path: Path, agent_id: str) -> None:
    """Let an agent take part, also one that was revoked; it comes by itself within a minute or so."""
    with _open_store(config_path) as store:
        store.approve_agent(_require_agent_id(agent_id), utc_now())
    click.echo(f"approved {agent_id}")


@agent.command("revoke")
@_config_option
@click.argument("agent_id", metavar="ID")
def agent_revoke(config_path: Path, agent_id: str) -> None:
    """Shut an agent out: it gets no more commands, is believed nothing, and cannot log in again.

    Its queue is deleted, which ends its consumer at once; what it still sends is not believed.
    """
    config = load_config(config_path)
    with _open_database(config) as database:
        Store(database).revoke_agent(_require_agent_id(agent_id), utc_now())
    try:
        asyncio.run(delete_agent_queue(config.relay, agent_id))
    except EnvironmentFailure as error:
        raise EnvironmentFailure(
            error.code, f"revoked, but its queue still stands; say it again later: {error.detail}"
        ) from None
    click.echo(f"revoked {agent_id}")


@cli.group()
def broker() -> None:
    """A private RabbitMQ node on loopback, for one machine."""


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


@contextmanager
def _open_database(config: ServerConfig) -> Iterator[Database]:
    database = Database(config.database)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def _open_store(config_path: Path) -> Iterator[Store]:
    with _open_database(load_config(config_path)) as database:
        yield Store(database)


def _make_sqlite_directory(config: ServerConfig) -> None:
    """Make the state directory, where the database usually lies."""
    try:
        Path(config.state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailure("state-failed", f"{error.filename}: {error.strerror}") from None


def _parse_rights(text: str) -> tuple[Right, ...]:
    asked = {word.strip() for word in text.split(",")}
    if not asked or not asked <= set(RIGHTS):
        raise InvalidInput("usage", f"rights are some of {', '.join(RIGHTS)}")
    return tuple(right for right in RIGHTS if right in asked)


def _require_agent_id(text: str) -> str:
    if not is_agent_id(text):
        raise InvalidInput("usage", "an agent's id has 32 hexadecimal digits, in lower case")
    return text


def _shown(text: str) -> str:
    """Return what an endpoint says of itself without characters that a terminal would obey."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        cli.main(args=None if argv is None else list(argv), prog_name="mig-server", standalone_mode=False)
    except MigError as error:
        click.echo(f"mig-server: {error.code}: {error.detail}", err=True)
        sys.exit(error.info.exit)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        hint = (
            f" ({error.ctx.command_path} --help)" if isinstance(error, click.UsageError) and error.ctx else ""
        )
        click.echo(f"mig-server: {_shown(error.format_message())}{hint}", err=True)
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    sys.exit(0)


if __name__ == "__main__":
    main()
