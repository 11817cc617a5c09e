"""`mig audit`: read the server's audit log, and check it against what agents have seen of it."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import click

from client.audit import Auditor, read_export, remembered_head
from client.connect import connect
from client.screen import printable
from protocol.audit import Chain, Entry, Head, decode_entry
from protocol.errors import EXIT_FOUND, EXIT_REFUSED, InvalidInput

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
    """Read the server's audit log, and check it."""


@audit.command()
@_FILE
def verify(path: Path | None) -> int:
    """Check the log from its start to its head; exit 0, or 4 with a line for each thing that is wrong.

    The server's log is also compared with the heads that agents have signed in their heartbeats, and with the
    one that this client saw last: a head that does not stand in the log shows that the log was written anew,
    or that its end is withheld.
    """
    if path is not None:
        head = _check_file(path)
        click.echo(f"{path}: entries up to {head.seq} in one chain, head {head.sha256}")
        return EXIT_FOUND
    connection = connect()
    verdict = Auditor(connection.api, remembered_head(connection.config)).verify()
    for line in verdict.lines:
        click.echo(printable(line))
    return EXIT_REFUSED if verdict.is_broken else EXIT_FOUND


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


def _check_file(path: Path) -> Head:
    chain = Chain()
    for line in read_export(path):
        chain.add(line)
    chain.require_complete()
    return chain.head


def _describe(entry: Entry) -> str:
    said = "  ".join(f"{name}={_short(value)}" for name, value in entry.what.items())
    return f"{entry.seq}  {entry.time}  {entry.kind}  {','.join(entry.who)}  {said}"


def _short(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return f"{len(value)} of them"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value)
