"""`mig results`: the answers to an action that was submitted before, verified again."""

import sys
from typing import Any, cast

import click

from client.action import read_signed
from client.answers import Question
from client.config import data_dir
from client.connect import connect
from client.follow import Follower
from client.names import KnownAgents
from client.options import show_options, with_options
from client.render import Show, make_writer
from client.screen import printable
from protocol.errors import InvalidInput


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
@with_options(show_options())
def results(action_id: str, format_name: str, *, as_json: bool, is_waiting: bool, **options: Any) -> int:
    """Print the answers to an action, each verified against what was signed."""
    connection = connect()
    api = connection.api
    stored = api.get_action(action_id)
    signed = read_signed(bytes(stored.envelope))
    if signed.action.id != action_id:
        raise InvalidInput("hostile-answer", f"the server shows action {printable(signed.action.id)} instead")
    show = cast("Show | None", options["show"])
    chosen = "jsonl" if as_json else format_name
    follower = Follower(
        api=api,
        action=signed.action,
        envelope=signed.envelope,
        writer=make_writer(chosen, sys.stdout, show),
        known=KnownAgents(data_dir() / "agents.json"),
        opener=connection.opener,
    )
    tally = follower.follow() if is_waiting else follower.collect()
    if chosen == "csv":
        # A CSV file has no place for the coverage, and answers mean nothing without it.
        modules = Question.of(signed.action, signed.envelope, frozenset()).modules
        make_writer("table", sys.stderr).close(tally, modules)
    return tally.exit_code
