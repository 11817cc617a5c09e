"""What the API shows of an action's commands: how each stands, how far it is, what changes.

These declarations make the OpenAPI description too.
"""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.command import CommandState
from protocol.result import Problem
from server.rows import Change, CommandRow, Progress


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an action's roster; `problem` says why a command did not run."""

    id: str
    agent: str
    agent_name: str
    state: CommandState
    updated: datetime
    problem: Problem | None
    occurrence: str
    wave: Annotated[int, Meta(description="of a paced action: it went out with it; 0 while it is held back")]
    progress: Annotated[Progress | None, Meta(description="of a command that runs, where its agent says so")]


class Roster(msgspec.Struct, frozen=True, kw_only=True):
    """Everyone who was asked, and how far each is."""

    commands: tuple[Command, ...]


class CommandEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A command that changed its state without an answer."""

    id: str
    agent: str
    agent_name: str
    state: CommandState


class ProgressEvent(Progress, frozen=True, kw_only=True):
    """How far a command is that runs, by its agent's word."""

    id: str
    agent: str
    agent_name: str


class DoneEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a stream of events: no command is open."""

    counts: dict[str, int]


def command_document(row: CommandRow, told: Change | None) -> Command:
    """Show one line of a roster; what has ended is no longer under way."""
    return Command(
        id=row.id,
        agent=row.agent_id,
        agent_name=row.agent_name,
        state=row.state,
        updated=row.updated,
        problem=row.problem,
        occurrence=row.occurrence,
        wave=row.wave,
        progress=told.progress if told and row.state is CommandState.ACKNOWLEDGED else None,
    )


def command_event(change: Change) -> CommandEvent:
    """Show a change of state."""
    return CommandEvent(
        id=change.command_id, agent=change.agent_id, agent_name=change.agent_name, state=change.state
    )


def progress_event(change: Change, progress: Progress) -> ProgressEvent:
    """Show how far a command is."""
    return ProgressEvent(
        id=change.command_id,
        agent=change.agent_id,
        agent_name=change.agent_name,
        operation=progress.operation,
        elapsed_s=progress.elapsed_s,
        statistics=progress.statistics,
        told=progress.told,
    )
