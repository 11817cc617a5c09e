"""Asks a question of endpoints: preview, confirmation, signature, submission, answers, exit code."""

import sys
import time
from datetime import UTC, datetime
from typing import Any

import click

from client.action import DEFAULT_EXPIRE_S, Completion, SignedAction, complete_action
from client.config import data_dir
from client.connect import Connection, connect
from client.follow import Follower, say, say_all
from client.names import KnownAgents
from client.options import Choices, require_confirmable
from client.render import dump_json, make_writer
from client.screen import printable
from client.sending import Sending
from client.unsealing import name_readers, require_openable
from protocol.action import Action, encode_action
from protocol.envelope import ACTION, encode_envelope
from protocol.errors import EXIT_FOUND, InvalidInput
from protocol.target import parse_target

LOCAL = "local"


def ask(template: Any, choices: Choices) -> int:
    """Complete, preview, sign, submit and follow an action; return the exit code.

    Raises:
        InvalidInput, EnvironmentFailure: with the reason, and nothing left half done.

    """
    if choices.target == LOCAL:
        if choices.is_sealed:
            raise InvalidInput("usage", "nothing leaves this machine: there is no answer to seal")
        if choices.sending.is_paced:
            raise InvalidInput("usage", "this machine is one: there is nothing to hold back")
        from client.local import ask_here  # noqa: PLC0415  (what runs modules is not needed to ask others)

        return ask_here(complete(template, choices._replace(target=None)), choices)
    require_confirmable(choices)
    connection = connect()
    template = name_readers(template, choices, connection.config.fingerprint)
    action = complete(template, choices)
    require_openable(connection.signer, action.sealed_to, datetime.now(UTC))
    if not choices.assume_yes:
        confirm(connection, action, choices.sending)
        # A prompt may stand for longer than the action would be valid.
        action = complete(template, choices, is_repeated=True)
    envelope = connection.signer.sign(ACTION, encode_action(action))
    return submit_and_follow(connection, SignedAction(envelope, action), choices)


def ask_signed(signed: SignedAction, choices: Choices) -> int:
    """Submit an action that is signed already and follow it; return the exit code.

    Raises:
        InvalidInput: also where a target or expiry was given, since both are signed.

    """
    if choices.target is not None or choices.expire_s is not None or choices.is_sealed:
        raise InvalidInput("usage", "the action is signed: target, expiry and readers cannot be changed")
    require_confirmable(choices)
    connection = connect()
    if not choices.assume_yes:
        confirm(connection, signed.action, choices.sending)
    return submit_and_follow(connection, signed, choices)


def complete(template: Any, choices: Choices, *, is_repeated: bool = False) -> Action:
    """Return the complete action, and say what was changed on the way.

    Raises:
        InvalidInput: `bad-action`, `bad-target`, `unknown-module` or `bad-parameters`.

    """
    completed = complete_action(
        template,
        Completion(
            now=datetime.now(UTC),
            target=choices.target,
            expire_s=choices.expire_s or DEFAULT_EXPIRE_S,
        ),
    )
    for note in () if is_repeated else completed.notes:
        say(note)
    return completed.action


def confirm(connection: Connection, action: Action, sending: Sending) -> None:
    """Show how many agents an action would ask, and ask the investigator.

    Raises:
        InvalidInput: `no-agents` or `too-many-agents`.
        click.Abort: the investigator said no.

    """
    page = connection.api.find_agents(action.target, limit=3)
    if not page.total:
        raise InvalidInput("no-agents", f"no agent matches {action.target}")
    sending.require_few(page.total, page.max_agents)
    names = ", ".join(printable(agent.name, 64) for agent in page.agents)
    more = ", ..." if page.total > len(page.agents) else ""
    say(action.name)
    say_operations(action)
    say(f"{page.total:,} {'agent' if page.total == 1 else 'agents'} would be asked: {names}{more}")
    # Computed here: what a server says of a target is not what endpoints enforce.
    if sending.is_paced:
        if problem := sending.too_slow(page.total, action.expireafter - datetime.now(UTC)):
            raise InvalidInput("usage", problem)
        say(f"they are asked {sending.describe()}")
    say(f"endpoints enforce: {parse_target(action.target).enforced()}")
    if action.sealed_to:
        say(f"answers are sealed to {', '.join(action.sealed_to)}")
    click.confirm("Ask them?", abort=True, err=True)


def warn_of_rate(sending: Sending, count: int, action: Action) -> None:
    """Say where a paced action expires before all of it is sent."""
    if problem := sending.too_slow(count, action.expireafter - datetime.now(UTC)):
        say(f"warning: the last ones will not be asked: {problem}")


def say_operations(action: Action) -> None:
    """Say what an action would run, from what is signed and whole: who signs or asks must not miss a part."""
    for index, operation in enumerate(action.operations):
        needed = operation.depends_on(index)
        condition = "" if needed is None else f" if operation {needed} has {operation.when}"
        say_all(f"runs {operation.module} {dump_json(operation.parameters)}{condition}")


def submit_and_follow(connection: Connection, signed: SignedAction, choices: Choices) -> int:
    """Hand over a signed action, show its answers, and return the exit code."""
    began = time.monotonic()
    submitted = connection.api.submit(encode_envelope(signed.envelope), choices.sending.query())
    action = signed.action
    if submitted.new:
        count = f"{submitted.commands:,} {'agent' if submitted.commands == 1 else 'agents'}"
        say(f"action {action.id} asks {count}; endpoints enforce: {parse_target(action.target).enforced()}")
        warn_of_rate(choices.sending, submitted.commands, action)
    else:
        say(f"action {action.id} was submitted before; here is what it brings")
    if action.schedule is not None:
        say(f"it recurs: mig schedule show {action.id}; answers: mig results {action.id}")
        return EXIT_FOUND
    follower = Follower(
        api=connection.api,
        action=action,
        envelope=signed.envelope,
        writer=make_writer(choices.format_name, sys.stdout, choices.show),
        known=KnownAgents(data_dir() / "agents.json"),
        opener=connection.opener,
        submitted=began if submitted.new else None,
    )
    return follower.follow().exit_code
