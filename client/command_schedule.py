"""`mig schedule ...`: actions that recur, signed once by a person; no server holds a key for them."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec

from client.action import Completion, SignedAction, complete_action, parse_duration, read_action_file
from client.ask import confirm
from client.command_action import fetch_action
from client.connect import connect
from client.follow import say
from client.options import Choices, require_confirmable, with_options
from client.render import dump_json, time_text
from client.screen import printable
from client.sending import all_agents_option, choose_sending
from protocol.action import Action, encode_action
from protocol.envelope import ACTION, encode_envelope
from protocol.errors import EXIT_FOUND, InvalidInput
from protocol.schedule import Schedule

_SHOWN = 5
_PAGE = 1000


@click.group()
def schedule() -> None:
    """Actions that recur: signed once, started by each endpoint's own reckoning of the signed schedule."""


@schedule.command("new")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--cron", metavar="EXPRESSION", help="When, in UTC: five fields, e.g. '0 3 * * MON'.")
@click.option("--every", metavar="DURATION", help="Or how often, counted from now: 30m, 1h, 7d.")
@click.option("--until", metavar="DURATION", default="30d", help="For how long. Default: 30d; 90d at most.")
@click.option(
    "--max-runs", type=click.IntRange(min=1), help="At most so many occurrences, from the first on."
)
@click.option("--grace", metavar="DURATION", default="10m", help="How late one may start. Default: 10m.")
@click.option(
    "-t", "--target", metavar="CONDITION", help="Which endpoints, instead of the file's own target."
)
@click.option("-y", "--yes", "assume_yes", is_flag=True, help="Do not ask for confirmation.")
@with_options([all_agents_option()])
@click.option("--json", "as_json", is_flag=True, help="Print id and next occurrences as one JSON object.")
def new(file: Path, *, assume_yes: bool, as_json: bool, **options: Any) -> int:
    """Sign FILE, an action as people write it, to recur; submit it, and print its id.

    \b
    mig file --path /etc/passwd --print > watch.json
    mig schedule new watch.json --cron '0 3 * * *' --until 30d
    """  # noqa: D301  (\b is click's mark for lines to be kept)
    require_confirmable(Choices(assume_yes=assume_yes))
    sending = choose_sending(options)
    now = datetime.now(UTC).replace(microsecond=0)
    action = _complete(file, options, now)
    calendar = action.calendar
    coming = [] if calendar is None else list(islice(calendar.upcoming(now), _SHOWN))
    if not coming:
        raise InvalidInput(
            "bad-action", f"the schedule has no occurrence until {time_text(action.expireafter)}"
        )
    for moment in coming:
        say(f"occurrence {time_text(moment)}")
    connection = connect()
    if not assume_yes:
        confirm(connection, action, sending)
    envelope = connection.signer.sign(ACTION, encode_action(action))
    connection.api.submit(encode_envelope(envelope), sending.query())
    say(f"answers: mig results {action.id}; to end it: mig action cancel {action.id}")
    members = {"id": action.id, "occurrences": [time_text(moment) for moment in coming]}
    click.echo(dump_json(members) if as_json else action.id)
    return EXIT_FOUND


def _complete(file: Path, options: dict[str, Any], now: datetime) -> Action:
    if (options["cron"] is None) == (options["every"] is None):
        raise InvalidInput("usage", "give either --cron or --every")
    read = read_action_file(Path("/dev/stdin") if str(file) == "-" else file)
    if isinstance(read, SignedAction):
        raise InvalidInput("usage", f"{file} is signed already: a schedule is part of what is signed")
    if not isinstance(read, dict):
        raise InvalidInput("bad-action", "an action is a JSON object")
    members = {
        "cron": options["cron"],
        "every_s": None if options["every"] is None else parse_duration(options["every"]),
        "grace_s": parse_duration(options["grace"]),
        "max_runs": options["max_runs"],
    }
    end = now + timedelta(seconds=parse_duration(options["until"]))
    template = {
        **read,
        "validfrom": time_text(now),
        "expireafter": time_text(end),
        "schedule": {name: value for name, value in members.items() if value is not None},
    }
    completed = complete_action(template, Completion(now, options["target"]))
    for note in completed.notes:
        say(note)
    return completed.action


@schedule.command("list")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one object per action.")
def list_schedules(*, as_json: bool) -> int:
    """List actions that recur and have not ended, newest first."""
    for stored in connect().api.list_actions(limit=_PAGE).actions:
        if stored.next_start is None:
            continue
        if as_json:
            click.echo(dump_json(msgspec.to_builtins(stored)))
        else:
            last = stored.occurrence or "none yet"
            cells = (stored.id, stored.name, f"last {last}", f"next about {time_text(stored.next_start)}")
            click.echo("  ".join(printable(cell, 200) for cell in cells))
    return EXIT_FOUND


@schedule.command("show")
@click.argument("action_id")
def show(action_id: str) -> int:
    """Show when a stored action recurs, by what was signed."""
    action = fetch_action(connect(), action_id).action
    if action.schedule is None or action.calendar is None:
        raise InvalidInput("usage", f"action {action_id} has no schedule")
    click.echo(printable(action.name, 200))
    click.echo(f"{_describe(action.schedule)}, until {time_text(action.expireafter)}")
    for moment in islice(action.calendar.upcoming(datetime.now(UTC)), _SHOWN):
        click.echo(f"next {time_text(moment)}")
    return EXIT_FOUND


def _describe(found: Schedule) -> str:
    when = f"cron {found.cron!r} (UTC)" if found.cron is not None else f"every {found.every_s:,} s"
    runs = f", {found.max_runs:,} times at most" if found.max_runs is not None else ""
    return f"{when}{runs}, late by {found.grace_s:,} s at most"
