"""`mig action ...`: writing, signing, checking and submitting actions step by step."""

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from client.action import (
    DEFAULT_EXPIRE_S,
    Completion,
    SignedAction,
    canonical_target,
    complete_action,
    parse_duration,
    read_action_file,
    read_signed,
)
from client.ask import confirm, say_operations, warn_of_rate
from client.config import load_config
from client.connect import Connection, connect, make_signer
from client.files import write_file
from client.follow import say, say_all
from client.keys import judge_signatures, load_key_directory
from client.options import Choices, choose, expiry_options, require_confirmable, seal_options, with_options
from client.progress import progress_text
from client.render import dump_json, time_text
from client.screen import printable
from client.sending import campaign_text, choose_sending, sending_options
from client.template import EXPLANATION, new_template
from client.unsealing import name_readers, require_openable
from protocol.action import Action, encode_action
from protocol.cancel import Cancel, encode_cancel
from protocol.documents import ActionSummary, Command
from protocol.envelope import ACTION, CANCEL, encode_envelope
from protocol.errors import EXIT_FOUND, EXIT_REFUSED, InvalidInput

_SIGNED = ".signed.json"
_PAGE = 50
_SHOWN_RUNNING = 20


@click.group()
def action() -> None:
    """Write, sign, check and submit actions step by step."""


@action.command("new")
@click.argument("module", default="file")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write it. Default: standard output."
)
def new(module: str, output: Path | None) -> int:
    """Write an action to start from, for MODULE; what its members mean is explained beside it."""
    text = json.dumps(new_template(module), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        click.echo(text, nl=False)
    elif output.exists():
        raise InvalidInput("usage", f"{output} is there already")
    else:
        write_file(output, text.encode())
    for line in EXPLANATION.splitlines():
        click.echo(line, err=True)
    return EXIT_FOUND


@action.command("sign")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-t", "--target", metavar="CONDITION", help="Which endpoints, instead of the file's own target."
)
@with_options([*expiry_options(), *seal_options()])
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help=f"Where to write it. Default: NAME{_SIGNED}."
)
def sign(file: Path, target: str | None, expire: str | None, output: Path | None, **options: Any) -> int:
    """Sign NAME.json with your key and write NAME.signed.json, whose path is printed.

    A file that is signed already gets your signature added, over the same bytes, and stays where it is.
    """
    read = read_action_file(file)
    signer = make_signer(load_config())
    now = datetime.now(UTC)
    choices = choose(options)
    if isinstance(read, SignedAction):
        if target is not None or expire is not None or choices.is_sealed:
            raise InvalidInput("usage", "the action is signed: target, expiry and readers cannot be changed")
        if read.action.expireafter <= now:
            raise InvalidInput("expired", f"{file} expired at {time_text(read.action.expireafter)}")
        _describe(read.action)
        envelope = signer.add_signature(read.envelope)
        path = output or file
    else:
        completion = Completion(now, target, parse_duration(expire) if expire else DEFAULT_EXPIRE_S)
        completed = complete_action(name_readers(read, choices, signer.fingerprint), completion)
        require_openable(signer, completed.action.sealed_to, now)
        for note in completed.notes:
            say(note)
        envelope = signer.sign(ACTION, encode_action(completed.action))
        path = output or file.with_name(file.name.removesuffix(".json") + _SIGNED)
    write_file(path, encode_envelope(envelope) + b"\n")
    click.echo(str(path))
    return EXIT_FOUND


def _describe(found: Action) -> None:
    say(f"{found.name}; valid until {time_text(found.expireafter)}, from {time_text(found.validfrom)}")
    say_all(f"target {found.target}")
    say_operations(found)
    if found.sealed_to:
        say(f"answers are sealed to {', '.join(found.sealed_to)}")


def _read_signed_file(file: Path) -> SignedAction:
    read = read_action_file(file)
    if not isinstance(read, SignedAction):
        raise InvalidInput("unsigned", f"{file} is not signed: mig action sign {file}")
    return read


@action.command("payload")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--signature", "number", type=int, help="Print the raw signature of this number instead, from 1."
)
def payload(file: Path, number: int | None) -> int:
    """Print the signed bytes of FILE, so that gpg alone can check them.

    \b
    mig action payload FILE > signed-bytes
    mig action payload FILE --signature 1 > signature
    gpg --verify signature signed-bytes
    """  # noqa: D301  (\b is click's mark for lines to be kept)
    envelope = _read_signed_file(file).envelope
    data = envelope.signed_bytes
    if number is not None:
        if not 1 <= number <= len(envelope.signatures):
            raise InvalidInput("usage", f"{file} has {len(envelope.signatures)} signatures, counted from 1")
        data = envelope.signatures[number - 1].sig
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return EXIT_FOUND


@action.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--keys", type=click.Path(path_type=Path), help="Directory of keys. Default: your gpg's own.")
def verify(file: Path, keys: Path | None) -> int:
    """Say who signed FILE, and whether an agent with these keys would believe it.

    Keys are never taken from the server: whoever holds it could then vouch for anybody.
    """
    read = _read_signed_file(file)
    now = datetime.now(UTC)
    if keys is None:
        find = make_signer(load_config()).export
    else:
        directory = load_key_directory(keys)

        def find(fingerprint: str) -> bytes:
            return directory.get(fingerprint, b"")

    verdicts = judge_signatures(read.envelope, find, now)
    for verdict in verdicts:
        who = f"{verdict.keyid} {verdict.user_id}".rstrip()
        click.echo(f"refused {who}: {printable(verdict.reason)}" if verdict.reason else f"accepted {who}")
    _describe(read.action)
    if read.action.expireafter <= now:
        raise InvalidInput("expired", f"{file} expired at {time_text(read.action.expireafter)}")
    if not any(not verdict.reason for verdict in verdicts):
        raise InvalidInput("unsigned", f"{file}: no signature is accepted")
    return EXIT_REFUSED if any(verdict.reason for verdict in verdicts) else EXIT_FOUND


@action.command("submit")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-y", "--yes", "assume_yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print id and number of commands as one JSON object.")
@with_options(sending_options())
def submit(file: Path, *, assume_yes: bool, as_json: bool, **options: Any) -> int:
    """Hand FILE, signed, to the server, print the action's id and do not wait for answers."""
    read = _read_signed_file(file)
    sending = choose_sending(options)
    require_confirmable(Choices(assume_yes=assume_yes))
    connection = connect()
    if not assume_yes:
        confirm(connection, read.action, sending)
    submitted = connection.api.submit(encode_envelope(read.envelope), sending.query())
    state = f"{submitted.commands:,} commands" if submitted.new else "was submitted before"
    say(f"{state}; answers: mig results {read.action.id}")
    warn_of_rate(sending, submitted.commands, read.action)
    members = {"id": read.action.id, "commands": submitted.commands, "new": submitted.new}
    click.echo(dump_json(members) if as_json else read.action.id)
    return EXIT_FOUND


@action.command("show")
@click.argument("action_id")
@click.option("--json", "as_json", is_flag=True, help="The signed action as JSON, as it was signed.")
def show(action_id: str, *, as_json: bool) -> int:
    """Show a stored action: what was asked, by whom, of whom, how it stands, and how far it is."""
    connection = connect()
    stored = connection.api.get_action(action_id)
    signed = read_signed(stored.envelope.encode())
    if signed.action.id != action_id:
        raise InvalidInput("hostile-answer", f"the server shows action {printable(signed.action.id)} instead")
    if as_json:
        click.echo(dump_json(msgspec.to_builtins(signed.action)))
        return EXIT_FOUND
    click.echo(_summary_line(stored))
    click.echo(f"target {printable(signed.action.target)}")
    window = time_text(signed.action.validfrom), time_text(signed.action.expireafter)
    click.echo(f"valid from {window[0]} until {window[1]}")
    if stored.deleted_answers:
        click.echo(f"{stored.deleted_answers:,} answers were deleted because of their age")
    if stored.campaign is not None:
        click.echo(campaign_text(stored.campaign))
    for fingerprint in signed.action.sealed_to:
        click.echo(f"answers sealed to {fingerprint}")
    for signature in signed.envelope.signatures:
        click.echo(f"signed by {printable(signature.keyid, 64)} (not verified here: mig action verify)")
    for operation in signed.action.operations:
        click.echo(f"{operation.module} {dump_json(operation.parameters)}")
    _show_running(connection.api.get_roster(action_id).commands)
    return EXIT_FOUND


def _show_running(commands: Iterable[Command]) -> None:
    """Say how far those are that run, by their own word and no proof of anything."""
    running = [(command, command.progress) for command in commands if command.progress is not None]
    for command, progress in running[:_SHOWN_RUNNING]:
        who = f"{printable(command.agent_name, 64)} ({printable(command.agent, 32)})"
        counted = progress_text([progress]) or "no counts yet"
        click.echo(f"runs on {who} for {progress.elapsed_s:,.0f} s: {counted}")
    if len(running) > _SHOWN_RUNNING:
        click.echo(f"runs on {len(running) - _SHOWN_RUNNING:,} more")


@action.command("cancel")
@click.argument("action_id")
@click.option("--reason", metavar="TEXT", help="Why; it is signed, and endpoints' owners can read it.")
@click.option("-y", "--yes", "assume_yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's account as one JSON object.")
def cancel(action_id: str, reason: str | None, *, assume_yes: bool, as_json: bool) -> int:
    """Take an action back that you signed: what waits is dropped, what runs is stopped.

    What agents found so far is answered. Of an action with a schedule no further occurrence runs.
    """
    require_confirmable(Choices(assume_yes=assume_yes))
    connection = connect()
    signed = fetch_action(connection, action_id)
    if not assume_yes:
        _describe(signed.action)
        click.confirm("Cancel it?", abort=True, err=True)
    payload = Cancel(
        action=signed.action.id,
        action_sha256=signed.envelope.digest,
        expireafter=signed.action.expireafter,
        time=datetime.now(UTC),
        reason=reason,
    )
    envelope = connection.signer.sign(CANCEL, encode_cancel(payload))
    done = connection.api.cancel(action_id, encode_envelope(envelope))
    say(f"{done.cancelled:,} commands cancelled before they were sent; {done.agents:,} agents are told")
    click.echo(dump_json(msgspec.to_builtins(done)) if as_json else signed.action.id)
    return EXIT_FOUND


def fetch_action(connection: Connection, action_id: str) -> SignedAction:
    """Return a stored action; its signatures are not verified here.

    Raises:
        InvalidInput: `hostile-answer` where the server shows another one.

    """
    signed = read_signed(connection.api.get_action(action_id).envelope.encode())
    if signed.action.id != action_id:
        raise InvalidInput("hostile-answer", f"the server shows action {printable(signed.action.id)} instead")
    return signed


@action.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=_PAGE, help=f"How many. Default: {_PAGE}.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one object per action.")
def list_actions(limit: int, *, as_json: bool) -> int:
    """List stored actions, newest first."""
    page = connect().api.list_actions(limit=limit)
    for stored in page.actions:
        click.echo(dump_json(msgspec.to_builtins(stored)) if as_json else _summary_line(stored))
    return EXIT_FOUND


def _summary_line(stored: ActionSummary) -> str:
    counts = ", ".join(f"{state} {count:,}" for state, count in stored.counts.items())
    created = time_text(stored.created.replace(microsecond=0))
    return "  ".join(
        printable(cell, 200) for cell in (stored.id, stored.status, created, stored.name, counts)
    )


def print_template(template: dict[str, Any], target: str | None) -> int:
    """Print an unsigned action that `mig run` and `mig action sign` read."""
    shown = {**template, **({"target": canonical_target(target)} if target else {})}
    click.echo(json.dumps(shown, indent=2, ensure_ascii=True))
    return EXIT_FOUND
