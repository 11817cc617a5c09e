"""What the API shows of an action's commands: how each stands, how far it is, what changes."""

from protocol.command import CommandState
from protocol.documents import Command, CommandEvent, Progress, ProgressEvent
from server.rows import Change, CommandRow


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
