"""`mig-server agent ...`: which agents may take part."""

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path

import click

from protocol.approval import Decision
from protocol.enrolment import SEED_BYTES, decode_token, encode_token, is_token_id
from protocol.envelope import MAX_ENVELOPE_BYTES
from protocol.errors import EnvironmentFailure, InvalidInput
from server.approvals import Decided, apply_approval, check_approval, decide
from server.config import ServerConfig, load_config
from server.oddities import warnings_for
from server.options import config_option, open_database, open_store, parse_duration, require_agent_id, shown
from server.parts import utc_now
from server.rows import AgentRow
from server.shutout import shut_out
from server.store import Store

_PAGE = 1000
_file_option = click.option(
    "--file",
    "list_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A list of ids, one on a line; or what `mig agents approve --output` signed.",
)


@click.group()
def agent() -> None:
    """Which agents may take part."""


@agent.command("list")
@config_option
@click.option("--pending", is_flag=True, help="Only those that wait for `approve`.")
def agent_list(config_path: Path, *, pending: bool) -> None:
    """List agents: id, status, last heartbeat, name; of those that wait, what they say and where they are."""
    now = utc_now()
    with open_store(config_path) as store:
        offset, total = 0, 1
        while offset < total:
            total, rows = store.find_agents(None, now, _PAGE, offset)
            offset += _PAGE
            warnings = warnings_for(store, rows, now)
            for row in rows:
                if row.enrolment == "pending" or not pending:
                    seen = "never" if row.heartbeattime is None else f"{row.heartbeattime:%Y-%m-%dT%H:%M:%SZ}"
                    click.echo(f"{row.id}  {row.status(now):8}  {seen:20}  {shown(row.name)}{_waiting(row)}")
                    for warning in warnings[row.id]:
                        click.echo(f"  warning: {shown(warning)}")


def _waiting(row: AgentRow) -> str:
    if row.enrolment != "pending":
        return ""
    said = row.environment.get("addresses", "")
    return f"  from {shown(row.peer) or '?'}" + (f"  says {shown(said)}" if said else "")


@agent.command("approve")
@config_option
@_file_option
@click.argument("agent_ids", metavar="ID...", nargs=-1)
def agent_approve(config_path: Path, list_file: Path | None, agent_ids: Sequence[str]) -> None:
    """Let agents take part, also those that were revoked; they come by themselves within a minute or so.

    Compare each id with what `mig-agent status` says on the endpoint: name and addresses prove nothing.
    """
    _decide(config_path, "approve", agent_ids, list_file)


@agent.command("revoke")
@config_option
@_file_option
@click.argument("agent_ids", metavar="ID...", nargs=-1)
def agent_revoke(config_path: Path, list_file: Path | None, agent_ids: Sequence[str]) -> None:
    """Shut agents out: they get no more commands, are believed nothing, and cannot log in again.

    Connections that are open are closed, where the server may run `rabbitmqctl`; queues are deleted.
    """
    _decide(config_path, "revoke", agent_ids, list_file)


def _decide(config_path: Path, decision: Decision, agent_ids: Sequence[str], list_file: Path | None) -> None:
    config = load_config(config_path)
    if bool(agent_ids) == bool(list_file):
        raise InvalidInput("usage", "name agents, or a file with --file")
    with open_database(config) as database:
        decided = _carry_out(Store(database), config, decision, _read_ids(agent_ids, list_file))
    for agent_id in decided.done:
        click.echo(f"{decided.decision}d {agent_id}")
    if decided.decision == "revoke" and decided.done:
        try:
            asyncio.run(shut_out(config, decided.done))
        except EnvironmentFailure as error:
            raise EnvironmentFailure(
                error.code,
                f"revoked, but its queue or connection still stands; say it again later: {error.detail}",
            ) from None
    if decided.unknown:
        raise InvalidInput("not-found", f"no agent {', '.join(decided.unknown)}")
    if decided.stale:
        raise InvalidInput("replayed", f"a later decision stands on {', '.join(decided.stale)}")


def _read_ids(agent_ids: Sequence[str], list_file: Path | None) -> list[str] | bytes:
    """Return ids, or the bytes of a signed decision."""
    if list_file is None:
        return [require_agent_id(agent_id) for agent_id in agent_ids]
    with list_file.open("rb") as stream:
        content = stream.read(MAX_ENVELOPE_BYTES + 1)
    if content.lstrip().startswith(b"{"):
        return content.strip()
    lines = (line.split("#")[0].split() for line in content.decode("utf-8", "replace").splitlines())
    return [require_agent_id(words[0]) for words in lines if words]


def _carry_out(store: Store, config: ServerConfig, decision: Decision, chosen: list[str] | bytes) -> Decided:
    now = utc_now()
    if not isinstance(chosen, bytes):
        return decide(store, decision, chosen, now)
    approval, signers = check_approval(chosen, store.list_investigators(), config.url, now)
    if approval.decision != decision:
        raise InvalidInput("usage", f"what was signed says {approval.decision}, not {decision}")
    return apply_approval(store, approval, signers, now)


@agent.group()
def token() -> None:
    """Enrolment tokens: who shows one may take part, for as long and as often as it says.

    A token baked into the agent's file is as public as the file: it only limits who may ask.
    """


@token.command("new")
@config_option
@click.option("--uses", type=click.IntRange(1, 1_000_000), help="For so many agents; by default any number.")
@click.option("--expires", default="7d", show_default=True, help="For so long: 30m, 12h, 7d.")
@click.option("--label", default="", help="What it is for.")
def token_new(config_path: Path, uses: int | None, expires: str, label: str) -> None:
    """Make a token and print it, this once: only what it is checked with is kept."""
    now = utc_now()
    text = encode_token(secrets.token_bytes(SEED_BYTES))
    with open_store(config_path) as store:
        row = store.add_token(
            decode_token(text).public_key,
            label=label,
            expires=now + parse_duration(expires),
            uses=uses,
            now=now,
        )
    often = "any number of agents" if uses is None else f"{uses} agent{'s' if uses > 1 else ''}"
    click.echo(f"token {row.id} for {often}, until {row.expires:%Y-%m-%dT%H:%M:%SZ}", err=True)
    click.echo(text)


@token.command("list")
@config_option
def token_list(config_path: Path) -> None:
    """List tokens: id, state, agents enrolled, expiry, label."""
    now = utc_now()
    with open_store(config_path) as store:
        for row in store.list_tokens():
            used = f"{row.used}/{'any' if row.uses is None else row.uses}"
            until = f"{row.expires:%Y-%m-%dT%H:%M:%SZ}"
            click.echo(f"{row.id}  {row.state(now):8}  {used:10}  {until}  {shown(row.label)}")


@token.command("revoke")
@config_option
@click.argument("token_id", metavar="TOKEN_ID")
def token_revoke(config_path: Path, token_id: str) -> None:
    """Let a token count no more. Agents that it enrolled stay: `mig-server agent revoke`."""
    if not is_token_id(token_id):
        raise InvalidInput("usage", "a token's id has 16 hexadecimal digits: mig-server agent token list")
    with open_store(config_path) as store:
        store.revoke_token(token_id)
    click.echo(f"revoked token {token_id}")
