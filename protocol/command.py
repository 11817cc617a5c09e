"""The states of a command and the one table of their transitions."""

from enum import Enum
from typing import FrozenSet, Mapping


class CommandState(str, Enum):
    """Where a command stands; the values are what databases and APIs hold."""

    PENDING = "pending"  # in the database, not yet taken by the broker
    SENT = "sent"  # the broker confirmed it
    ACKNOWLEDGED = "acknowledged"  # the agent has it in its journal
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    TIMED_OUT = "timed-out"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    def __str__(self) -> str:
        """Return the value, so that formatting gives it too, with every Python."""
        return str(self.value)


FINAL_STATES: FrozenSet[CommandState] = frozenset(
    {
        CommandState.DONE,
        CommandState.FAILED,
        CommandState.REFUSED,
        CommandState.TIMED_OUT,
        CommandState.EXPIRED,
        CommandState.CANCELLED,
    }
)

OPEN_STATES: FrozenSet[CommandState] = frozenset(CommandState) - FINAL_STATES

_ENDS = FINAL_STATES
# A refusal or an expiry may be overtaken by an answer: the same action can come again with a second
# signature, and an answer that was spooled on the endpoint arrives after the server gave up. A cancel may
# come too late: what ran is shown as it ended.
TRANSITIONS: Mapping[CommandState, FrozenSet[CommandState]] = {
    CommandState.PENDING: _ENDS | {CommandState.SENT, CommandState.ACKNOWLEDGED},
    CommandState.SENT: _ENDS | {CommandState.PENDING, CommandState.ACKNOWLEDGED},
    CommandState.ACKNOWLEDGED: _ENDS,
    CommandState.REFUSED: frozenset(
        {
            CommandState.PENDING,
            CommandState.DONE,
            CommandState.FAILED,
            CommandState.TIMED_OUT,
            CommandState.CANCELLED,
        }
    ),
    CommandState.EXPIRED: frozenset(
        {
            CommandState.DONE,
            CommandState.FAILED,
            CommandState.TIMED_OUT,
            CommandState.REFUSED,
            CommandState.CANCELLED,
        }
    ),
    CommandState.DONE: frozenset(),
    CommandState.FAILED: frozenset(),
    CommandState.TIMED_OUT: frozenset(),
    CommandState.CANCELLED: frozenset({CommandState.DONE, CommandState.FAILED, CommandState.TIMED_OUT}),
}


def is_transition(before: CommandState, after: CommandState) -> bool:
    """Tell whether a command may go from `before` to `after`."""
    return after in TRANSITIONS[before]
