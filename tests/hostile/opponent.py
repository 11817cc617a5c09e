"""The opponent: owns broker, database and server, knows every public key, has every byte that ever passed.

What it lacks is the investigators' private keys and the agents'. It takes envelopes apart and puts them
together again, and delivers what it likes, when it likes, as often as it likes; a story says what it did and
what came of it.
"""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from agent.config import Baked
from agent.runtime.audit import AuditLog
from agent.runtime.journal import Journal, read_journal
from agent.runtime.loop import SelectorLoop
from agent.runtime.supervisor import Answer, Supervisor
from protocol.envelope import ACTION, Envelope, Signature, decode_envelope, encode_envelope
from protocol.result import Result, decode_result
from tests.support.endpoint import AGENT_ID, FACTS, utc_now

LONGEST_S = 60.0
SILENCE = "silence"  # nothing ran and nothing was answered


class Endpoint:
    """A real agent's gate, journal and children; the opponent is its broker, and may change its clock."""

    def __init__(self, directory: Path, baked: Baked, *, max_entries: int = 10_000) -> None:
        self._directory = directory
        self._baked = baked
        self._max_entries = max_entries
        self.skew = timedelta()
        self.answers: list[Answer] = []
        self.deliveries = self.acknowledged = 0
        self._start()

    def _start(self) -> None:
        self._loop = SelectorLoop()
        self._journal = Journal(self._directory / "journal", clock=self.now, max_entries=self._max_entries)
        self._audit = AuditLog(self._directory, clock=self.now)
        self.supervisor = Supervisor(
            loop=self._loop,
            journal=self._journal,
            baked=self._baked,
            agent_id=AGENT_ID,
            facts=lambda: FACTS,
            clock=self.now,
            on_answer=self._keep,
            audit=self._audit,
        )
        self.supervisor.start()

    def _keep(self, answer: Answer) -> None:
        self.answers.append(answer)
        if not answer.is_refusal:
            self._journal.mark_answered(answer.digest, answer.occurrence)

    def now(self) -> datetime:
        """Return what this endpoint takes for the time."""
        return utc_now() + self.skew

    def deliver(self, body: bytes) -> str:
        """Deliver, and return what came of it: `done`, the code of an answered refusal, or `SILENCE`."""
        before = len(self.answers)
        self.hand_over(body)
        self.settle()
        codes = [outcome(answer) for answer in self.answers[before:]]
        assert self.deliveries == self.acknowledged
        return ", ".join(codes) or SILENCE

    def hand_over(self, body: bytes) -> None:
        """Deliver without waiting for what comes of it."""
        self.deliveries += 1
        self.supervisor.submit(body, self._count_acknowledgement)

    def _count_acknowledgement(self) -> None:
        self.acknowledged += 1

    def settle(self) -> None:
        """Let the endpoint work until there is nothing left to do."""
        over: list[bool] = []
        timer = self._loop.call_later(LONGEST_S, lambda: over.append(True))
        self._loop.run_until(lambda: self.supervisor.is_idle or bool(over))
        self._loop.cancel(timer)
        assert self.supervisor.is_idle

    def restart(self) -> None:
        """End the agent and start it again on the same state; what it did not acknowledge is lost with it."""
        self.close()
        self.deliveries = self.acknowledged
        self._start()

    def ran(self) -> list[str]:
        """Return the names of the actions that were ever let run, by the journal on the disk."""
        return [entry.name for entry in read_journal(self._directory / "journal").entries]

    def close(self) -> None:
        self.supervisor.close()
        self._audit.close()
        self._journal.close()
        self._loop.close()


def outcome(answer: Answer) -> str:
    """Return what an answer says: `done`, or the code of its problem."""
    result: Result = decode_result(answer.payload)
    return result.problem.code if result.problem is not None else result.status


# -- what the opponent does to envelopes ---------------------------------------------------------------------


def opened(body: bytes) -> Envelope:
    """Return the envelope that was delivered."""
    return decode_envelope(body, ACTION)


def resigned(body: bytes, *signatures: Signature) -> bytes:
    """Return the same payload under other signatures."""
    return encode_envelope(opened(body)._replace(signatures=signatures))


def edited(body: bytes, **changes: Any) -> bytes:
    """Return an action with members changed and its signatures kept."""
    members = {**json.loads(opened(body).payload), **changes}
    return encode_envelope(opened(body)._replace(payload=json.dumps(members).encode()))


def rewrapped(body: bytes, number: int) -> bytes:
    """Return the same signed payload in another spelling of the envelope."""
    return b" " * number + body
