"""`-t local`: runs an action's operations on this machine, without signature, server or gate."""

import platform
import sys
from datetime import UTC, datetime

import msgspec

from agent.local import run_operations
from agent.progress_line import progress_line
from client.answers import Answer
from client.options import Choices
from client.render import dump_json, make_writer
from client.tally import Tally
from protocol.action import Action
from protocol.command import CommandState
from protocol.documents import Command
from protocol.result import OperationResult, Result

# An agent's id is the hash of its key; this machine has none to show.
_NOBODY = "0" * 32


def ask_here(action: Action, choices: Choices) -> int:
    """Run an action on this machine, show what it found, and return the exit code.

    With `--json` each operation's result is printed as an agent would send it.
    """
    started = datetime.now(UTC)
    with progress_line(sys.stderr) as line:
        answers = list(run_operations(action.operations, line.show))
    results = msgspec.convert(answers, tuple[OperationResult, ...])
    modules = tuple(operation.module for operation in action.operations)
    name = platform.node() or "local"
    command = Command(id=_NOBODY, agent=_NOBODY, agent_name=name, state=CommandState.DONE)
    tally = Tally("", modules, (command,))
    answer = Answer(_NOBODY, name, _result(action, results, started))
    tally.add(answer)
    if choices.format_name == "table":
        writer = make_writer("table", sys.stdout, choices.show)
        writer.write_answer(answer, modules)
        writer.close(tally, modules)
    else:
        for members in answers:
            sys.stdout.write(dump_json(members) + "\n")
    return tally.exit_code


def _result(action: Action, results: tuple[OperationResult, ...], started: datetime) -> Result:
    return Result(
        action=action.id,
        action_sha256="0" * 64,
        occurrence="",
        agent=_NOBODY,
        started=started,
        finished=datetime.now(UTC),
        status="done",
        results=results,
    )
