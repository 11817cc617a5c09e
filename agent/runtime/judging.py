"""What follows from a child's verdict: a command may run, is refused, or is known; with journal and answer.

Rules:
1. A command is permitted by the journal's insert, on the disk, then the delivery's acknowledgement, then the
   record that it started.
2. Steps 1 to 3 refused: counted, logged at a limited rate, acknowledged, never answered. A later refusal is
   answered once for the same payload. Neither enters the journal.
3. A delivery that the journal holds unanswered is acknowledged and no more; an answered one is `replayed`.
4. What was accepted before a crash is answered whatever the verdict is now.

Standard library only: the resident agent imports this module.
"""

import logging
from datetime import datetime
from enum import Enum
from typing import Callable

from agent.runtime.answers import Answers, Problem
from agent.runtime.audit import AuditLog
from agent.runtime.delivery import Command
from agent.runtime.journal import ANSWERED, Journal, JournalEntry
from agent.runtime.verdict import Verdict, decode_verdict
from protocol.envelope import ACTION, decode_envelope
from protocol.errors import CODES, InvalidInput
from protocol.names import command_id
from protocol.strictjson import decode_json

_LOG = logging.getLogger("mig.agent.judging")
_LAST_SILENT_STEP = 3
_STEP_OF_PERMISSION = 6  # decided here: the child has admitted it, and waits


class Judged(Enum):
    """How the judging of a command ended."""

    PERMITTED = "it stands in the journal as started, and may run"
    REFUSED = "the child has run nothing and may judge the next"
    SETTLED = "nothing runs, and the child, which waits for a permission, is of no more use"
    UNREADABLE = "the child is out of control"


class Judge:
    """Decides by verdict and journal.

    Args:
        journal: open for writing.
        audit: the machine's own log.
        answers: takes refusals.
        agent_id: this agent's id.
        clock: now, aware UTC.

    """

    def __init__(
        self,
        *,
        journal: Journal,
        audit: AuditLog,
        answers: Answers,
        agent_id: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._journal = journal
        self._audit = audit
        self._answers = answers
        self._agent_id = agent_id
        self._clock = clock

    def judge(self, command: Command, said: bytes) -> Judged:
        """Decide what becomes of a command whose child said this.

        Raises:
            EnvironmentFailure: the journal cannot be written; nothing has happened, but that a command which
                is inserted already is acknowledged.

        """
        try:
            verdict = decode_verdict(said)
        except InvalidInput as error:
            _LOG.error("a child's verdict cannot be read: %s", error)
            return Judged.UNREADABLE
        if verdict.problem is not None:
            return self._refuse(command, verdict.problem, verdict.action_id, verdict.occurrence)
        command.sealed_to = verdict.sealed_to
        return self._permit(command, self._make_entry(command, verdict))

    def _make_entry(self, command: Command, verdict: Verdict) -> JournalEntry:
        return JournalEntry(
            digest=command.digest,
            occurrence=verdict.occurrence,
            command_id=command_id(verdict.action_id, self._agent_id, verdict.occurrence),
            action_id=verdict.action_id,
            name=verdict.name,
            signers=verdict.signers,
            modules=verdict.modules,
            expireafter=verdict.expireafter,
            envelope=command.body,
        )

    def _permit(self, command: Command, entry: JournalEntry) -> Judged:
        """Step 6 and rule 1: what is on the disk, and only that, may run."""
        try:
            if command.entry is None:
                if not self._journal.insert(entry):
                    return self._refuse_known(command, entry)
                command.entry = entry
            command.acknowledge()
            self._require_unchanged(command.entry, entry)
            self._journal.mark_started(*entry.key)
        except InvalidInput as error:
            problem = Problem(error.code, _STEP_OF_PERMISSION, error.detail)
            return self._refuse(command, problem, entry.action_id, entry.occurrence)
        self._audit.asked(entry, command.body)
        return Judged.PERMITTED

    def _require_unchanged(self, accepted: JournalEntry, entry: JournalEntry) -> None:
        """Raise where what was accepted before a crash may not be run any more, although it passed again."""
        if accepted.occurrence != entry.occurrence:
            raise InvalidInput("not-due", f"a later occurrence than {accepted.occurrence} is due")
        if self._journal.is_cancelled(entry.digest, entry.signers):
            raise InvalidInput("cancelled")

    def _refuse_known(self, command: Command, entry: JournalEntry) -> Judged:
        """Refuse an occurrence that the journal holds: one without an answer gets one anyway."""
        if self._journal.state_of(*entry.key) == ANSWERED:
            self._answer_replayed(command, entry.action_id, entry.occurrence)
        command.acknowledge()
        return Judged.SETTLED

    def refuse_replay(self, command: Command) -> None:
        """Refuse what the journal holds answered, without asking a child."""
        # These very bytes passed the gate once, so their id has its shape.
        action_id = decode_json(decode_envelope(command.body, ACTION).payload)["id"]
        self._answer_replayed(command, action_id, "")
        command.acknowledge()

    def _answer_replayed(self, command: Command, action_id: str, occurrence: str) -> None:
        problem = Problem("replayed", _STEP_OF_PERMISSION, CODES["replayed"].text)
        self._answers.refuse(command.body, command.digest, problem, action_id, occurrence)

    def _refuse(self, command: Command, problem: Problem, action_id: str, occurrence: str) -> Judged:
        if command.entry is not None:
            command.acknowledge()
            status = "cancelled" if problem.code == "cancelled" else "refused"
            self._answers.answer(command.entry, self._clock(), status, problem)
            return Judged.SETTLED
        if problem.step <= _LAST_SILENT_STEP or not action_id:
            self._answers.count_silently(problem.code)
        else:
            self._answers.refuse(command.body, command.digest, problem, action_id, occurrence)
        command.acknowledge()
        return Judged.SETTLED if problem.step == _STEP_OF_PERMISSION else Judged.REFUSED

    def give_up(self, command: Command) -> None:
        """Drop a command whose judging ends the child each time: it must not come for ever."""
        if command.entry is None:
            self._answers.count_silently("child-failed")
        else:
            problem = Problem("child-failed", 0, "judging it ended the child")
            self._answers.answer(command.entry, self._clock(), "failed", problem)
        command.acknowledge()
