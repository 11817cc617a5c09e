"""`mig results`: the answers to an action that was submitted before, verified again."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import click

from client.action import read_signed
from client.answers import require_occurrence
from client.api import Api
from client.config import data_dir
from client.connect import connect
from client.follow import Follower, say
from client.keys import judge_signatures
from client.names import KnownAgents
from client.options import show_options, with_options
from client.render import Show, make_writer
from client.screen import printable
from protocol.action import Action
from protocol.documents import StoredAction
from protocol.errors import (
    EXIT_FOUND,
    EXIT_MISSING_ANSWERS,
    EXIT_NOTHING_FOUND,
    EXIT_OUT_OF_REACH,
    EXIT_REFUSED,
    InvalidInput,
)

_WORST_FIRST = (EXIT_OUT_OF_REACH, EXIT_REFUSED, EXIT_MISSING_ANSWERS, EXIT_FOUND, EXIT_NOTHING_FOUND)


@click.command()
@click.argument("action_id")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["table", "json", "jsonl", "csv"]),
    default="table",
    help="How to write the answers. Default: table.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format jsonl.")
@click.option("--wait", "is_waiting", is_flag=True, help="Wait for the answers that are not there yet.")
@click.option(
    "--occurrence", metavar="TIME", help="Of an action with a schedule: which. Default: the latest."
)
@click.option("--all-occurrences", "is_all", is_flag=True, help="Of an action with a schedule: all of them.")
@with_options(show_options())
def results(action_id: str, format_name: str, *, as_json: bool, is_waiting: bool, **options: Any) -> int:
    """Print the answers to an action, each verified against what was signed."""
    connection = connect()
    api = connection.api
    stored = api.get_action(action_id)
    signed = read_signed(stored.envelope.encode())
    if signed.action.id != action_id:
        raise InvalidInput("hostile-answer", f"the server shows action {printable(signed.action.id)} instead")
    verdicts = judge_signatures(signed.envelope, connection.signer.export, datetime.now(UTC))
    if all(verdict.reason for verdict in verdicts):
        say("warning: no key in your gpg says who signed this action; what was asked is the server's word")
    show = cast("Show | None", options["show"])
    chosen = "jsonl" if as_json else format_name
    codes = []
    for occurrence in _choose_occurrences(api, stored, signed.action, options):
        if occurrence:
            say(f"occurrence {occurrence}")
        follower = Follower(
            api=api,
            action=signed.action,
            envelope=signed.envelope,
            writer=make_writer(chosen, sys.stdout, show),
            known=KnownAgents(data_dir() / "agents.json"),
            occurrence=occurrence,
            opener=connection.opener,
        )
        follower.tally.campaign = stored.campaign
        follower.tally.has_deleted = bool(stored.deleted_answers)
        tally = follower.follow() if is_waiting else follower.collect()
        codes.append(tally.exit_code)
        if chosen == "csv":
            # A CSV file has no place for the coverage, and answers mean nothing without it.
            modules = tuple(operation.module for operation in signed.action.operations)
            make_writer("table", sys.stderr).close(tally, modules)
    return min(codes, key=_WORST_FIRST.index)


def _choose_occurrences(
    api: Api, stored: StoredAction, action: Action, options: dict[str, Any]
) -> Sequence[str]:
    """Return which occurrences to show: one empty one of an action without a schedule."""
    if action.schedule is None:
        if options["occurrence"] or options["is_all"]:
            raise InvalidInput("usage", "the action has no schedule, and so no occurrences")
        return [""]
    if options["occurrence"]:
        require_occurrence(action, options["occurrence"])
        return [options["occurrence"]]
    if options["is_all"]:
        known = sorted({command.occurrence for command in api.get_roster(action.id).commands})
    else:
        known = [stored.occurrence] if stored.occurrence else []
    if not known:
        raise InvalidInput("not-found", "no occurrence was started yet: mig schedule show " + action.id)
    return known
