"""Options that several commands share, and what was chosen by them."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import click

from client.action import parse_duration
from client.render import Show
from client.sending import Sending, choose_sending, sending_options
from protocol.errors import InvalidInput


class Choices(NamedTuple):
    """How to ask and what to show, as chosen on the command line."""

    target: str | None = None
    expire_s: int | None = None
    assume_yes: bool = False
    format_name: str = "table"
    show: Show | None = None
    is_sealed: bool = False
    sealed_to: tuple[str, ...] = ()
    sending: Sending = Sending()


def asking_options() -> list[click.Parameter]:
    """Return fresh options for commands that ask something of agents."""
    return [
        click.Option(
            ["-t", "--target"],
            metavar="CONDITION",
            help="Which endpoints, e.g. \"os = 'linux' AND name LIKE 'web%'\"; `local` is this machine. "
            "Default: status = 'online'.",
        ),
        *expiry_options(),
        *seal_options(),
        *sending_options(),
        click.Option(["-y", "--yes", "assume_yes"], is_flag=True, help="Do not ask for confirmation."),
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            help="JSON lines: one object per agent and operation, then a summary.",
        ),
        *show_options(),
    ]


def expiry_options() -> list[click.Parameter]:
    """Return a fresh `--expire` option."""
    return [
        click.Option(
            ["-e", "--expire"],
            metavar="DURATION",
            help="How long it is valid: 90s, 5m, 1h30m, 2d. Default: 5m.",
        )
    ]


def seal_options() -> list[click.Parameter]:
    """Return fresh options that say who alone may read the answers."""
    return [
        click.Option(
            ["--seal", "is_sealed"], is_flag=True, help="Seal the answers to you: nobody else can read them."
        ),
        click.Option(
            ["--sealed-to"],
            metavar="FINGERPRINT",
            multiple=True,
            help="Seal the answers to this investigator too, besides you; may be repeated.",
        ),
    ]


def show_options() -> list[click.Parameter]:
    """Return fresh options that choose which answers are shown."""
    return [
        click.Option(
            ["--found", "show"], flag_value="found", help="Show what was found (default of tables)."
        ),
        click.Option(["--not-found", "show"], flag_value="not-found", help="Show who found nothing."),
        click.Option(["--all", "show"], flag_value="all", help="Show every answer (default of JSON)."),
    ]


def with_options(
    options: list[click.Parameter],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds options to a command."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        held = cast("Any", function)
        # The attribute in which click's own decorators collect parameters, last one first.
        held.__click_params__ = [*getattr(held, "__click_params__", []), *reversed(options)]
        return function

    return decorate


def choose(options: dict[str, Any]) -> Choices:
    """Return what was chosen by `asking_options`.

    Raises:
        InvalidInput: `usage`.

    """
    expire = options.get("expire")
    return Choices(
        target=options.get("target"),
        expire_s=None if expire is None else parse_duration(expire),
        assume_yes=bool(options.get("assume_yes")),
        format_name="jsonl" if options.get("as_json") else "table",
        show=options.get("show"),
        is_sealed=bool(options.get("is_sealed") or options.get("sealed_to")),
        sealed_to=tuple(options.get("sealed_to") or ()),
        sending=choose_sending(options),
    )


def is_interactive() -> bool:
    """Tell whether a person can be asked: both what they type and what they read is a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def require_confirmable(choices: Choices) -> None:
    """Raise where nobody could confirm.

    Raises:
        InvalidInput: `usage`.

    """
    if not choices.assume_yes and not is_interactive():
        raise InvalidInput("usage", "there is no terminal to confirm on: add --yes")
