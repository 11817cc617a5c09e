"""`mig-server`: the platform's operator's command line.

The commands are thin: each opens what it needs, calls one thing, prints lines. Errors are one line and the
exit code of `protocol.errors`.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from protocol.documents import Right
from protocol.errors import EXIT_OUT_OF_REACH, EXIT_USAGE, EnvironmentFailure, InvalidInput, MigError
from protocol.names import is_fingerprint
from protocol.openpgp import parse_certificate, require_usable_certificate
from protocol.version import VERSION
from server.command_agent import agent
from server.command_audit import audit
from server.command_broker import broker
from server.command_trust import trust
from server.config import ServerConfig, load_config
from server.doctor import Verdict, examine
from server.logs import set_up_logs
from server.migrations import migrate as migrate_database
from server.options import DEFAULT_STATE, config_option, open_database, open_store, shown
from server.parts import utc_now
from server.rows import RIGHTS
from server.setup import write_first_config

_INTERRUPTED = 130


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
@config_option
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
@config_option
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_STATE,
    show_default=True,
    help="Where the server keeps its database and its lock.",
)
@click.option("--private-broker", is_flag=True, help="Use a private RabbitMQ node (`mig-server broker up`).")
def init(config_path: Path, state_dir: Path, *, private_broker: bool) -> None:
    """Write a commented configuration and make the state directory; nothing that exists is changed."""
    for line in write_first_config(config_path, state_dir, private_broker=private_broker):
        click.echo(line)


@cli.command()
@config_option
def migrate(config_path: Path) -> None:
    """Bring the database to this version's tables; `serve` does so too."""
    config = load_config(config_path)
    _make_sqlite_directory(config)
    with open_database(config) as database:
        migrate_database(database)
    click.echo("the database is up to date")


@cli.command()
@config_option
def doctor(config_path: Path) -> None:
    """Look at all that a server needs and say each in one line; exit 5 where something is wrong.

    A warning is for a person to look at; what is said to be FAIL keeps the platform from working.
    """
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # what it says of a refused login is said here
    is_well = True
    for finding in examine(config_path):
        click.echo(f"{finding.verdict:4}  {finding.subject}: {shown(finding.text)}")
        is_well = is_well and finding.verdict is not Verdict.FAIL
    if not is_well:
        sys.exit(EXIT_OUT_OF_REACH)


@cli.group()
def investigator() -> None:
    """Who may use the API. What agents obey is baked into them, and never decided here."""


@investigator.command("add")
@config_option
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
        require_usable_certificate(certificate, utc_now())
    except InvalidInput as error:
        raise InvalidInput(error.code, f"{key}: {error.detail}") from None
    known_as = name or next(iter(certificate.user_ids), certificate.fingerprint)
    with open_store(config_path) as store:
        store.add_investigator(certificate.fingerprint, known_as, certificate_bytes, chosen, utc_now())
    click.echo(f"{certificate.fingerprint}  {known_as}  {','.join(chosen)}")


@investigator.command("list")
@config_option
def investigator_list(config_path: Path) -> None:
    """List investigators."""
    with open_store(config_path) as store:
        for row in store.list_investigators():
            click.echo(f"{row.fingerprint}  {row.status:8}  {','.join(row.rights):18}  {shown(row.name)}")


@investigator.command("disable")
@config_option
@click.argument("fingerprint")
def investigator_disable(config_path: Path, fingerprint: str) -> None:
    """End an investigator's sessions, and let them log in no more."""
    if not is_fingerprint(fingerprint):
        raise InvalidInput("usage", "a fingerprint has 40 hexadecimal digits, in upper case")
    with open_store(config_path) as store:
        store.set_investigator_status(fingerprint, "disabled", utc_now())
    click.echo(f"disabled {fingerprint}")


cli.add_command(agent)
cli.add_command(broker)
cli.add_command(trust)
cli.add_command(audit)


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
        click.echo(f"mig-server: {shown(error.format_message())}{hint}", err=True)
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_INTERRUPTED)
    sys.exit(0)


if __name__ == "__main__":
    main()
