"""`mig agents` and `mig investigators`: who is there."""

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from client.api import Api
from client.connect import connect
from client.documents import Agent
from client.follow import say
from client.render import dump_json, time_text
from client.screen import printable
from protocol.errors import EXIT_FOUND, EXIT_NOTHING_FOUND
from protocol.target import upgrade_target

_PAGE = 500


def _find_all(api: Api, target: str | None) -> Iterator[Agent]:
    offset = 0
    while True:
        page = api.find_agents(target, limit=_PAGE, offset=offset)
        yield from page.agents
        offset += len(page.agents)
        if not page.agents or offset >= page.total:
            return


@click.command()
@click.option(
    "-t", "--target", metavar="CONDITION", default=None, help="Only those that match. Default: all."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one object per agent.")
def agents(target: str | None, *, as_json: bool) -> int:
    """List agents: name, id, status, version, system, last heartbeat, tags."""
    condition = None
    if target is not None:
        condition = str(upgrade_target(target))
        say(f"endpoints enforce: {upgrade_target(target).enforced()}")
    count = 0
    for agent in _find_all(connect().api, condition):
        count += 1
        if as_json:
            click.echo(dump_json(msgspec.to_builtins(agent)))
        else:
            click.echo(_agent_line(agent))
    if not as_json:
        click.echo(f"{count:,} {'agent' if count == 1 else 'agents'}", err=True)
    return EXIT_FOUND if count else EXIT_NOTHING_FOUND


def _agent_line(agent: Agent) -> str:
    seen = time_text(agent.heartbeattime.replace(microsecond=0)) if agent.heartbeattime else "never"
    tags = ",".join(f"{name}:{value}" for name, value in agent.tags.items())
    cells: list[Any] = [
        agent.name,
        agent.id,
        agent.status,
        agent.version,
        f"{agent.os}/{agent.arch}",
        agent.ident,
    ]
    return "  ".join(
        printable(str(cell), 200) for cell in [*cells, f"seen {seen}", *([tags] if tags else [])]
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one object per investigator.")
def investigators(*, as_json: bool) -> int:
    """List investigators: fingerprint, name, status, rights."""
    found = connect().api.list_investigators().investigators
    for person in found:
        if as_json:
            click.echo(dump_json(msgspec.to_builtins(person)))
        else:
            cells = [person.fingerprint, person.name, person.status, ",".join(person.rights)]
            click.echo("  ".join(printable(cell, 200) for cell in cells))
    return EXIT_FOUND if found else EXIT_NOTHING_FOUND
