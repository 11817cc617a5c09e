"""Keeps account of one action: who was asked, who answered, who did not and why; and what that is worth.

The exit code is the least favourable of what happened: out of reach (5) before refused (4) before missing
answers (3) before found (0) or not (1). An agent that failed, timed out, or cannot run the module has not
answered the question.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from client.answers import Answer, UnreadableAnswer
from client.coverage import ANSWERED, SKIPPED, Coverage
from protocol.documents import Campaign, Command
from protocol.errors import (
    EXIT_FOUND,
    EXIT_MISSING_ANSWERS,
    EXIT_NOTHING_FOUND,
    EXIT_OUT_OF_REACH,
    EXIT_REFUSED,
)
from protocol.result import OperationResult, Result

# A hostile server can send answers without end; a few tell enough.
_MAX_HOSTILE = 100
_REASONS = {
    "pending": "the broker has not taken the command",
    "sent": "the command waits for the agent",
    "acknowledged": "the agent is working on it",
    "expired": "the action expired before the agent answered",
    "cancelled": "the action was cancelled",
}


class Missing(NamedTuple):
    """An agent without an answer: its command's state, and why in words."""

    agent: str
    agent_name: str
    state: str
    reason: str


class Tally:
    """The account of one action over the agents that it was sent to."""

    def __init__(self, action_id: str, modules: Iterable[str], roster: Iterable[Command]) -> None:
        self.action_id = action_id
        self.coverage = [Coverage(module) for module in modules]
        self.roster = {command.agent: command for command in roster}
        self.answered: set[str] = set()
        self.found_on: set[str] = set()
        self.problems: dict[str, Result] = {}
        self.unreadable: dict[str, UnreadableAnswer] = {}
        self.hostile: list[str] = []
        self.hostile_count = 0
        self.warnings: list[str] = []
        self.is_out_of_reach = False
        self.elapsed_s: float | None = None  # from the submission to the last answer, where both were here
        self.campaign: Campaign | None = None
        self.has_deleted = False  # the server says that some answers are there no more
        self._is_refused = False
        self._is_incomplete = False

    def add(self, answer: Answer) -> bool:
        """Count a verified answer; return whether it is to be shown now.

        An answer that comes twice counts once. A refusal or failure is kept until `missing`, since an answer
        may still overtake it: the same action can come again with a second signature.
        """
        if answer.agent in self.answered:
            return False
        if not answer.result.results:
            self.problems[answer.agent] = answer.result
            return False
        self.problems.pop(answer.agent, None)
        self.unreadable.pop(answer.agent, None)
        self.answered.add(answer.agent)
        for coverage, result in zip(self.coverage, answer.result.results, strict=True):
            coverage.add(result)
            self._judge(result)
        if any(result.found for result in answer.result.results):
            self.found_on.add(answer.agent)
        return True

    def add_unreadable(self, answer: UnreadableAnswer) -> None:
        """Count an answer that cannot be opened here: for this investigator it is a missing one."""
        if answer.agent not in self.answered:
            self.unreadable[answer.agent] = answer

    def disbelieve(self, detail: str) -> None:
        """Count an answer that does not verify; the first ones are kept to be shown."""
        self.hostile_count += 1
        if len(self.hostile) < _MAX_HOSTILE:
            self.hostile.append(detail)

    def _judge(self, result: OperationResult) -> None:
        if result.status == "refused":
            self._is_refused = True
        elif result.status == SKIPPED:
            return
        elif result.status not in ANSWERED or (result.status == "limit" and not result.found):
            self._is_incomplete = True

    @property
    def is_complete(self) -> bool:
        """Tell whether every agent has answered, or said why it does not."""
        said = self.answered | self.problems.keys() | self.unreadable.keys()
        return len(said) >= len(self.roster)

    def update_roster(self, roster: Iterable[Command]) -> None:
        """Take the newest states of the commands."""
        self.roster.update((command.agent, command) for command in roster if command.agent in self.roster)

    def missing(self) -> list[Missing]:
        """Return who has not answered and why, by name; what a verified refusal says stands first."""
        lines = []
        for agent, command in self.roster.items():
            if agent in self.answered:
                continue
            sealed, result = self.unreadable.get(agent), self.problems.get(agent)
            if sealed is not None:
                lines.append(Missing(agent, command.agent_name, sealed.status, sealed.detail))
            elif result is not None:
                problem = result.problem
                reason = f"{problem.code}: {problem.detail}" if problem is not None else "no reason given"
                lines.append(Missing(agent, command.agent_name, result.status, reason))
            else:
                reason = _why_missing(command, has_deleted=self.has_deleted)
                lines.append(Missing(agent, command.agent_name, command.state, reason))
        return sorted(lines, key=lambda line: (line.agent_name, line.agent))

    @property
    def exit_code(self) -> int:
        """The exit code of design's table."""
        if self.is_out_of_reach:
            return EXIT_OUT_OF_REACH
        missing = self.missing()
        if self.hostile_count or self._is_refused or any(line.state == "refused" for line in missing):
            return EXIT_REFUSED
        if missing or self._is_incomplete or not self.answered:
            return EXIT_MISSING_ANSWERS
        return EXIT_FOUND if self.found_on else EXIT_NOTHING_FOUND

    def summary(self) -> dict[str, Any]:
        """Return the account as JSON members."""
        return {
            "action": self.action_id,
            "agents": len(self.roster),
            "answered": len(self.answered),
            "found_on": len(self.found_on),
            "operations": [coverage.members() for coverage in self.coverage],
            "missing": [line._asdict() for line in self.missing()],
            "hostile": list(self.hostile),
            "hostile_count": self.hostile_count,
            "warnings": list(self.warnings),
            **({"elapsed_s": round(self.elapsed_s, 4)} if self.elapsed_s is not None else {}),
            **({"campaign": msgspec.to_builtins(self.campaign)} if self.campaign is not None else {}),
            "exit": self.exit_code,
        }


def _why_missing(command: Command, *, has_deleted: bool) -> str:
    if command.state == "pending" and command.wave == 0:
        return "the command is held back"
    if command.state == "cancelled" and command.problem is not None:
        return f"{command.problem.code}: {command.problem.detail}"
    if command.state in _REASONS:
        return _REASONS[command.state]
    return "its answer was deleted because of its age" if has_deleted else "its answer has not been received"
