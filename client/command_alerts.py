"""`mig alerts`: what agents saw without being asked, each alert verified here."""

import contextlib
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgspec

from client.action import parse_duration
from client.alerts import Seen, SeenAlert, verify_alert
from client.api import Api
from client.connect import connect
from client.follow import say
from client.render import dump_json, time_text
from client.screen import printable
from protocol.alert import SEVERITIES
from protocol.alert_documents import AlertItem
from protocol.errors import EXIT_FOUND, EXIT_NOTHING_FOUND, EXIT_REFUSED, InvalidInput, MigError
from protocol.target import upgrade_target

_MAX_RECORD = 400


@click.command()
@click.option(
    "-t", "--target", metavar="CONDITION", default=None, help="Only of agents that match. Default: all."
)
@click.option("--module", "modules", multiple=True, metavar="NAME", help="Only by this module; repeatable.")
@click.option(
    "--severity", type=click.Choice(SEVERITIES), default="low", help="Only so bad, or worse. Default: low."
)
@click.option(
    "--since",
    metavar="DURATION",
    default="1d",
    help="That came so long ago at most: 30m, 12h, 7d. Default: 1d.",
)
@click.option("--follow", is_flag=True, help="Go on with new ones, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one object per alert.")
def alerts(
    *,
    target: str | None,
    modules: tuple[str, ...],
    severity: str,
    since: str,
    follow: bool,
    as_json: bool,
) -> int:
    """Show what agents saw without being asked: changed files, programs that were started, and the like.

    Each alert is shown only under its agent's own signature. Where all alerts of an agent are asked for, a
    line on standard error says how many are missing between them. Exit 0: there are some, 1: none, 4: one
    does not verify.
    """
    query: dict[str, Any] = {}
    if target is not None:
        query["target"] = str(upgrade_target(target))
    if modules:
        query["module"] = list(modules)
    if severity != SEVERITIES[0]:
        query["severity"] = list(SEVERITIES[SEVERITIES.index(severity) :])
    came = datetime.now(UTC) - timedelta(seconds=parse_duration(since))
    reader = _Reader(as_json=as_json)
    api = connect().api
    last = reader.read_stored(api, {**query, "since": came.isoformat()})
    if not modules and severity == SEVERITIES[0]:
        for line in reader.seen.missing():
            say(line)
    if follow:
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            reader.follow(api, query, last)
    if reader.refused:
        return EXIT_REFUSED
    return EXIT_FOUND if reader.shown else EXIT_NOTHING_FOUND


class _Reader:
    """Verifies and prints alerts, and counts them."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.seen = Seen()
        self.shown = self.refused = 0

    def read_stored(self, api: Api, query: dict[str, Any]) -> int:
        """Print what the server has; return behind which number to go on."""
        after: int | None = 0
        last = 0
        while after is not None:
            page = api.list_alerts(query, after)
            for item in page.alerts:
                self.show(item)
            last = page.last
            if page.next is not None and page.next <= after:
                raise InvalidInput("bad-document", "the server's pages of alerts do not advance")
            after = page.next
        return last

    def follow(self, api: Api, query: dict[str, Any], after: int) -> None:
        """Print new ones, for ever."""

        def on_trouble(error: MigError) -> None:
            say(str(error))

        for event in api.follow_alerts(query, after, on_trouble):
            if event.kind == "alert":
                try:
                    self.show(msgspec.json.decode(event.data, type=AlertItem))
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    raise InvalidInput("bad-document", "the server's event has another shape") from None

    def show(self, item: AlertItem) -> None:
        """Print one alert, if it is one and was not shown."""
        try:
            seen = verify_alert(item)
        except InvalidInput as error:
            self.refused += 1
            say(f"not shown: {error.detail}")
            return
        if self.seen.is_new(seen):
            self.shown += 1
            click.echo(_json_line(seen) if self._as_json else _line(seen))
            sys.stdout.flush()  # whoever reads a pipe wants alerts as they come


def _json_line(seen: SeenAlert) -> str:
    told = {"agent_name": seen.agent_name, "digest": seen.digest, **msgspec.to_builtins(seen.alert)}
    return dump_json(told)


def _line(seen: SeenAlert) -> str:
    alert = seen.alert
    said = "  ".join(f"{name}={_short(value)}" for name, value in alert.record.items())
    count = f"  x{alert.count:,}" if alert.count > 1 else ""
    lost = "".join(
        f"  ({number:,} {what} before)"
        for number, what in ((alert.suppressed, "suppressed"), (alert.dropped, "dropped"))
        if number
    )
    name = printable(seen.agent_name, 64)
    head = f"{time_text(alert.time.replace(microsecond=0))}  {alert.severity:<8}  {name}  {alert.agent}"
    return f"{head}  {alert.module} {alert.kind}{count}  {printable(said, _MAX_RECORD)}{lost}"


def _short(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
