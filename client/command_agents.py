"""`mig agents` and `mig investigators`: who is there, and who may take part."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from client.api import Api
from client.connect import connect
from client.files import write_file
from client.follow import say
from client.options import Choices, require_confirmable
from client.render import dump_json, time_text
from client.screen import printable
from protocol.approval import MAX_AGENTS, Approval, Decision, encode_approval
from protocol.documents import Agent
from protocol.envelope import APPROVAL, encode_envelope
from protocol.errors import EXIT_FOUND, EXIT_NOTHING_FOUND, EXIT_REFUSED, InvalidInput
from protocol.names import is_agent_id
from protocol.target import upgrade_target

_PAGE = 500
_SKEW_SHOWN_S = 300


def _find_all(api: Api, target: str | None) -> Iterator[Agent]:
    offset = 0
    while True:
        page = api.find_agents(target, limit=_PAGE, offset=offset)
        yield from page.agents
        offset += len(page.agents)
        if not page.agents or offset >= page.total:
            return


@click.group(invoke_without_command=True)
@click.option(
    "-t", "--target", metavar="CONDITION", default=None, help="Only those that match. Default: all."
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines: one object per agent.")
@click.pass_context
def agents(context: click.Context, target: str | None, *, as_json: bool) -> int:
    """List agents: name, id, status, version, system, trust, last heartbeat, tags; and what is odd.

    Agents that wait for approval: mig agents -t "status = 'pending'"; then mig agents approve ID.
    """
    if context.invoked_subcommand is not None:
        if target is not None or as_json:
            raise InvalidInput("usage", f"-t and --json are of no use to {context.invoked_subcommand}")
        return EXIT_FOUND
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
            for warning in agent.warnings:
                click.echo(f"  warning: {printable(warning, 300)}")
    if not as_json:
        click.echo(f"{count:,} {'agent' if count == 1 else 'agents'}", err=True)
    return EXIT_FOUND if count else EXIT_NOTHING_FOUND


def _decision_options(command: click.Command) -> click.Command:
    """Add what `approve` and `revoke` share."""
    command.params += [
        click.Argument(["agent_ids"], nargs=-1, metavar="ID..."),
        click.Option(
            ["--file", "list_file"], type=click.Path(path_type=Path), help="A list of ids, one on a line."
        ),
        click.Option(
            ["-o", "--output"],
            type=click.Path(path_type=Path),
            help="Write the signed decision instead, for `mig-server agent ... --file`.",
        ),
        click.Option(["-y", "--yes", "assume_yes"], is_flag=True, help="Do not ask for confirmation."),
    ]
    return command


@_decision_options
@agents.command("approve")
def approve(
    agent_ids: Sequence[str], list_file: Path | None, output: Path | None, *, assume_yes: bool
) -> int:
    """Sign that these agents may take part, and hand it to the server; needs the right `manage`.

    Compare each id with what `mig-agent status` says on the endpoint: name and addresses prove nothing.
    """
    return _decide("approve", _read_ids(agent_ids, list_file), output, assume_yes=assume_yes)


@_decision_options
@agents.command("revoke")
def revoke(agent_ids: Sequence[str], list_file: Path | None, output: Path | None, *, assume_yes: bool) -> int:
    """Sign that these agents may take part no longer; their connections are closed. Needs the right `manage`.

    A later `approve` brings an agent back.
    """
    return _decide("revoke", _read_ids(agent_ids, list_file), output, assume_yes=assume_yes)


def _decide(decision: Decision, ids: tuple[str, ...], output: Path | None, *, assume_yes: bool) -> int:
    require_confirmable(Choices(assume_yes=assume_yes))
    connection = connect()
    if not assume_yes:
        click.confirm(f"{decision.capitalize()} {len(ids):,} agents?", abort=True, err=True)
    approval = Approval(
        server=connection.config.server, decision=decision, agents=ids, time=datetime.now(UTC)
    )
    envelope = encode_envelope(connection.signer.sign(APPROVAL, encode_approval(approval)))
    if output is not None:
        write_file(output, envelope + b"\n")
        click.echo(str(output))
        return EXIT_FOUND
    done = connection.api.decide_on_agents(envelope)
    for agent_id in done.done:
        click.echo(f"{decision}d {printable(agent_id, 64)}")
    for agent_id in done.unknown:
        say(f"unknown {printable(agent_id, 64)}")
    for agent_id in done.stale:
        say(f"not {decision}d {printable(agent_id, 64)}: a later decision stands")
    if done.problem:
        say(f"connections may still be open: {printable(done.problem, 300)}")
    return EXIT_REFUSED if done.unknown or done.stale or done.problem else EXIT_FOUND


def _read_ids(agent_ids: Sequence[str], list_file: Path | None) -> tuple[str, ...]:
    words = list(agent_ids)
    if bool(words) == bool(list_file):
        raise InvalidInput("usage", "name agents, or a file with --file")
    if list_file is not None:
        try:
            lines = list_file.read_text("utf-8", "replace").splitlines()
        except OSError as error:
            raise InvalidInput("usage", f"{list_file}: {error.strerror}") from None
        words = [word for line in lines for word in line.split("#")[0].split()[:1]]
    for word in words:
        if not is_agent_id(word):
            raise InvalidInput("usage", f"{printable(word, 64)!r} is no agent's id of 32 hexadecimal digits")
    if not 0 < len(words) <= MAX_AGENTS:
        raise InvalidInput("usage", f"one decision is on 1 to {MAX_AGENTS:,} agents")
    return tuple(dict.fromkeys(words))


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
        _trust_text(agent),
    ]
    waiting = []
    if agent.status == "pending":
        waiting = [f"from {agent.peer or '?'}", f"says {agent.environment.get('addresses', '')}"]
    if agent.clock_skew_s is not None and abs(agent.clock_skew_s) > _SKEW_SHOWN_S:
        # It refuses actions that are not valid by its clock, and nothing else would say why.
        waiting.append(f"clock off by {agent.clock_skew_s:+.0f} s")
    return "  ".join(
        printable(str(cell), 200) for cell in [*cells, f"seen {seen}", *([tags] if tags else []), *waiting]
    )


def _trust_text(agent: Agent) -> str:
    if agent.trust_version is None:
        return "trust unknown" if agent.trust_state is None else f"trust {agent.trust_state}"
    state = " expired" if agent.trust_state == "expired" else ""
    return f"trust {agent.trust_version}{state}"


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
