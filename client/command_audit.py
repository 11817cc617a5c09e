"""`mig audit`: read the server's audit log, and check it against what agents have seen of it."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import click

from client.agent_logs import check_log_file, require_heads
from client.audit import Auditor, check_export, open_witnesses, read_export, remembered_head, remembered_logs
from client.config import load_config
from client.connect import connect
from client.screen import printable
from protocol.audit import Entry, decode_entry
from protocol.errors import EXIT_FOUND, EXIT_MISSING_ANSWERS, EXIT_REFUSED, InvalidInput
from protocol.names import is_agent_id

_FILE = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="A log that `mig audit export` wrote, instead of the server's.",
)


@click.group()
def audit() -> None:
    """Read the server's audit log, and check it.

    The module audit, which tells of endpoints' kernels, is asked as `mig kaudit`.
    """


@audit.command()
@_FILE
@click.option(
    "--agent",
    metavar="ID",
    help="FILE is this agent's own log (`mig-agent log --json`): compare it with what the agent signed.",
)
@click.option(
    "--archive",
    "archives",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="What `mig-server audit cut` wrote: compare older heads with it; repeatable.",
)
def verify(path: Path | None, agent: str | None, archives: tuple[Path, ...]) -> int:
    """Check the log from its start to its head; exit 0, or 4 with a line for each thing that is wrong.

    The server's log is also compared with the heads that agents have signed in their heartbeats, and with the
    one that this client saw last: a head that does not stand in the log shows that the log was written anew,
    or that its end is withheld. What each agent signs of its own log is compared with what it signed before:
    a log that was written anew or went back shows. With --file and --agent the log itself is compared.
    """
    if path is not None and archives:
        raise InvalidInput("usage", "--archive goes with the server's log; --file checks one file by itself")
    if agent is not None:
        return _verify_agent(path, agent)
    if path is not None:
        head = check_export(path)
        click.echo(f"{path}: entries up to {head.seq} in one chain, head {head.sha256}")
        return EXIT_FOUND
    connection = connect()
    config = connection.config
    verdict = Auditor(connection.api, remembered_head(config), remembered_logs(config)).verify(archives)
    for line in verdict.lines:
        click.echo(printable(line))
    return EXIT_REFUSED if verdict.is_broken else EXIT_FOUND


def _verify_agent(path: Path | None, agent: str) -> int:
    """Compare an agent's own log with what it signed; exit 3 where the file ends before that."""
    if path is None or not is_agent_id(agent):
        raise InvalidInput("usage", "--agent takes an agent's id, and --file its log")
    connection = connect()
    heads = [*remembered_logs(connection.config).heads_of(agent)]
    for witness in connection.api.list_witnesses():
        if witness.agent == agent:
            heads += [head for heartbeat in open_witnesses(witness).all() for head in heartbeat.own_heads]
    checked = check_log_file(read_export(path), require_heads(heads, agent))
    for line in (*checked.wrong, *checked.unknown):
        click.echo(line)
    click.echo(f"{path}: entries up to {checked.head.seq} in one chain, head {checked.head.sha256}")
    click.echo(f"{checked.confirmed} of {len(set(heads))} heads that the agent signed stand in it")
    if checked.wrong:
        return EXIT_REFUSED
    return EXIT_MISSING_ANSWERS if checked.unknown else EXIT_FOUND


@audit.command()
@click.argument("agent_ids", metavar="ID...", nargs=-1, required=True)
def forget(agent_ids: Sequence[str]) -> int:
    """Begin anew with what this client remembers of agents' own logs, once it is known why they changed.

    The server keeps what it has until the agent is approved again: mig agents approve ID.
    """
    logs = remembered_logs(load_config())
    for agent_id in agent_ids:
        if not logs.forget(agent_id):
            raise InvalidInput("not-found", f"nothing is remembered of agent {printable(agent_id, 64)}")
    logs.save()
    return EXIT_FOUND


@audit.command()
@_FILE
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only entries behind this number.")
def show(path: Path | None, after: int) -> int:
    """Print the log for people: number, time, kind, who, what."""
    lines = read_export(path) if path else connect().api.read_audit(after)
    for line in lines:
        entry = decode_entry(line)
        if entry.seq > after:
            click.echo(printable(_describe(entry)))
    return EXIT_FOUND


@audit.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=None, help="Default: standard output."
)
def export(output: Path | None) -> int:
    """Write the log as it was hashed, one entry per line, to be kept elsewhere and verified there."""
    lines = connect().api.read_audit(0)
    if output is None:
        _write_lines(sys.stdout.buffer, lines)
        return EXIT_FOUND
    try:
        with output.open("wb") as stream:
            _write_lines(stream, lines)
    except OSError as error:
        raise InvalidInput("usage", f"{output}: {error.strerror}") from None
    return EXIT_FOUND


def _write_lines(stream: BinaryIO, lines: Iterable[bytes]) -> None:
    stream.writelines(line + b"\n" for line in lines)


def _describe(entry: Entry) -> str:
    said = "  ".join(f"{name}={_short(value)}" for name, value in entry.what.items())
    return f"{entry.seq}  {entry.time}  {entry.kind}  {','.join(entry.who)}  {said}"


def _short(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return f"{len(value)} of them"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)
