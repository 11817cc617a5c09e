"""The answers of one agent, ready to be signed: results, refusals, and what a crash interrupted.

The resident composes the payload: fixed members first, then `results` as the child gave them. A child that is
out of control could at most repeat members, and every receiver refuses a document with duplicate keys.
Standard library only: the resident agent imports this module.
"""

import base64
import logging
import signal
from collections import OrderedDict
from datetime import datetime
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple

from agent.runtime.audit import AuditLog
from agent.runtime.journal import Journal, JournalEntry, format_time
from protocol.envelope import RESULT, SEALED_RESULT
from protocol.names import command_id
from protocol.strictjson import encode_json

_LOG = logging.getLogger("mig.agent.answers")
# An action without a schedule has the empty occurrence; one with a schedule has one for each time it is due.
NO_OCCURRENCE = ""
_MAX_DETAIL = 2000
_REFUSALS_REMEMBERED = 1024
_LOG_EVERY_S = 60.0


class Answer(NamedTuple):
    """One answer, ready to be signed: `payload` is a `protocol.result.Result` in JSON, or a `SealedResult`.

    `kind` is the envelope's type, which says which.

    `status` is how a command of the journal ended, and `entry` that command with what was signed.

    `is_refusal` says that the command is not in the journal, so there is nothing to mark as answered there.
    """

    command_id: str
    digest: str
    occurrence: str
    payload: bytes
    is_refusal: bool
    kind: str = RESULT
    status: str = ""
    entry: Optional[JournalEntry] = None


class Problem(NamedTuple):
    """Why a command has no results: a code of `protocol.errors`, the gate's step or 0, and one line."""

    code: str
    step: int
    detail: str


def clean_text(text: str, limit: int = _MAX_DETAIL) -> str:
    """Return text that can be encoded: JSON may name halves of characters, UTF-8 cannot."""
    return text[:limit].encode("utf-8", "replace").decode("utf-8")


def compose_result(
    *,
    action_id: str,
    digest: str,
    occurrence: str,
    agent_id: str,
    started: datetime,
    finished: datetime,
    status: str,
    problem: Optional[Problem] = None,
    results: bytes = b"",
) -> bytes:
    """Return a result's payload. `results` is a JSON list, taken as it is."""
    members: Dict[str, Any] = {
        "action": action_id,
        "action_sha256": digest,
        "occurrence": occurrence,
        "agent": agent_id,
        "started": format_time(started),
        "finished": format_time(finished),
        "status": status,
    }
    if problem is not None:
        members["problem"] = {**problem._asdict(), "detail": clean_text(problem.detail)}
    fixed = encode_json(members)
    return fixed[:-1] + b',"results":' + results + b"}" if results else fixed


def compose_sealed_result(
    *,
    action_id: str,
    digest: str,
    occurrence: str,
    agent_id: str,
    status: str,
    sealed_to: Sequence[str],
    sealed: bytes,
) -> bytes:
    """Return a sealed result's payload: who answers what, and an OpenPGP message to `sealed_to`."""
    return encode_json(
        {
            "action": action_id,
            "action_sha256": digest,
            "occurrence": occurrence,
            "agent": agent_id,
            "status": status,
            "sealed_to": list(sealed_to),
            "sealed": base64.b64encode(sealed).decode("ascii"),
        }
    )


class Answers:
    """Composes each answer and hands it on.

    Args:
        journal: is told how each command ended.
        audit: likewise, for the machine's owner.
        agent_id: this agent's id.
        clock: now, aware UTC.
        on_answer: takes what is composed.

    """

    def __init__(
        self,
        *,
        journal: Journal,
        audit: AuditLog,
        agent_id: str,
        clock: Callable[[], datetime],
        on_answer: Callable[[Answer], None],
    ) -> None:
        self._journal = journal
        self._audit = audit
        self._agent_id = agent_id
        self._clock = clock
        self._on_answer = on_answer
        self._refused: OrderedDict[Tuple[str, str], None] = OrderedDict()
        self._logged: Optional[datetime] = None
        self.refused_silently = 0

    def answer(
        self,
        entry: JournalEntry,
        started: datetime,
        status: str,
        problem: Optional[Problem] = None,
        results: bytes = b"",
    ) -> None:
        """Answer a command that stands in the journal."""
        self._journal.note_status(entry.digest, entry.occurrence, status)
        payload = self.compose(entry, started, status, problem, results)
        self._audit.answered(entry, status, problem.code if problem else "", payload)
        self._hand_on(entry, status, payload, RESULT)

    def compose(
        self,
        entry: JournalEntry,
        started: datetime,
        status: str,
        problem: Optional[Problem] = None,
        results: bytes = b"",
    ) -> bytes:
        """Return the result of a command that stands in the journal and has finished now."""
        return compose_result(
            action_id=entry.action_id,
            digest=entry.digest,
            occurrence=entry.occurrence,
            agent_id=self._agent_id,
            started=started,
            finished=self._clock(),
            status=status,
            problem=problem,
            results=results,
        )

    def answer_sealed(
        self, entry: JournalEntry, status: str, sealed_to: Sequence[str], sealed: bytes
    ) -> None:
        """Answer a command of the journal with what its child encrypted."""
        self._journal.note_status(entry.digest, entry.occurrence, status)
        payload = compose_sealed_result(
            action_id=entry.action_id,
            digest=entry.digest,
            occurrence=entry.occurrence,
            agent_id=self._agent_id,
            status=status,
            sealed_to=sealed_to,
            sealed=sealed,
        )
        self._audit.answered(entry, status, "", payload)
        self._hand_on(entry, status, payload, SEALED_RESULT)

    def _hand_on(self, entry: JournalEntry, status: str, payload: bytes, kind: str) -> None:
        self._on_answer(
            Answer(
                entry.command_id,
                entry.digest,
                entry.occurrence,
                payload,
                is_refusal=False,
                kind=kind,
                status=status,
                entry=entry,
            )
        )

    def interrupt(self, entry: JournalEntry) -> None:
        """Answer a command that was running when the agent ended."""
        started = datetime.fromisoformat(entry.changed.replace("Z", "+00:00"))
        detail = "the agent ended while this ran; it is not run again"
        self.answer(entry, started, "failed", Problem("interrupted", 0, detail))

    def refuse(
        self,
        body: bytes,
        digest: str,
        problem: Problem,
        action_id: str,
        occurrence: str = NO_OCCURRENCE,
    ) -> None:
        """Answer a refusal; once for the same payload and occurrence, while it is remembered.

        Whoever delivers can spell one envelope in endless ways; each answer costs a signature and the disk.
        """
        seen = (digest, occurrence)
        if seen in self._refused:
            return
        self._refused[seen] = None
        if len(self._refused) > _REFUSALS_REMEMBERED:
            self._refused.popitem(last=False)
        now = self._clock()
        _LOG.info("refused", extra={"action": action_id, "step": problem.step, "code": problem.code})
        self._audit.refused(body, digest, action_id, problem.step, problem.code)
        payload = compose_result(
            action_id=action_id,
            digest=digest,
            occurrence=occurrence,
            agent_id=self._agent_id,
            started=now,
            finished=now,
            status="cancelled" if problem.code == "cancelled" else "refused",
            problem=problem,
        )
        identifier = command_id(action_id, self._agent_id, occurrence)
        self._on_answer(Answer(identifier, digest, occurrence, payload, is_refusal=True))

    def count_silently(self, code: str) -> None:
        """Count what nobody trusted sent, and log it at a limited rate: the log is not theirs to fill."""
        self.refused_silently += 1
        now = self._clock()
        if self._logged is None or abs((now - self._logged).total_seconds()) >= _LOG_EVERY_S:
            self._logged = now
            _LOG.warning("refused deliveries", extra={"so_far": self.refused_silently, "last": code})


def explain_end(status: Optional[int], cpu_s: int) -> Problem:
    """Say why a child that was running ended, by its exit status."""
    if status == -signal.SIGXCPU:
        return Problem("over-limit", 0, f"it used {cpu_s} s of processor time")
    if status is not None and status < 0:
        return Problem("child-failed", 0, f"the process that ran it was ended by signal {-status}")
    return Problem(
        "child-failed", 0, f"the process that ran it ended with status {status}, without an answer"
    )
