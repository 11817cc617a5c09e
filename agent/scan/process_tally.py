"""What a question about processes counts, and what it says of those that could not be judged.

Rules:

* One that ended while it was looked at is counted, and is no trouble. One that may not be looked at, or of
  which something is not known that a filter asks for, is an error, counted by what is not known.
* A fact that is missing in an answer is said, and the answer stands.
* Notes are by fact and reason, with how many processes it is about: never one for each process.
"""

from collections import Counter
from typing import Callable, Collection, Optional, Tuple, TypeVar

from agent.module import Context
from agent.platform.process_memory import ProcessGone
from agent.platform.process_programs import Programs
from agent.platform.process_subject import NotKnown
from agent.scan.process_checks import AnySubject

_ENDED = "ended"
_T = TypeVar("_T")


class ProcessTally:
    """Counts, and says at the end; `named` are the processes that were asked for by number."""

    def __init__(self, context: Context, named: Collection[int] = ()) -> None:
        self.counts: Counter[str] = Counter(processes_seen=0, processes_matched=0, kernel_threads=0)
        self._context = context
        self._named = frozenset(named)
        self._skipped: Counter[str] = Counter()
        self._not_judged: Counter[Tuple[str, str]] = Counter()
        self._not_told: Counter[Tuple[str, str]] = Counter()

    def lose(self, pid: int, reason: str) -> None:
        """Count a process that could not be looked at, ended or hidden; one that was asked for is named."""
        self._skipped[reason] += 1
        if reason == _ENDED and pid in self._named:
            self._context.note(f"process {pid}: there is none")

    def judge(self, subject: AnySubject, record: Callable[[AnySubject], Optional[_T]]) -> Optional[_T]:
        """Return what is told of a process; None where it is not wanted, or that cannot be known."""
        self.counts["processes_seen"] += 1
        self.counts["kernel_threads"] += subject.facts.is_kernel_thread
        try:
            return record(subject)
        except ProcessGone:
            self.lose(subject.facts.pid, _ENDED)
        except NotKnown as error:
            self._skipped[error.what] += 1
            self._not_judged[error.what, error.reason] += 1
        finally:
            for what in subject.cut:
                self._not_told[what, "longer than is read, and matched as far as that"] += 1
        return None

    def told(self, ask: Callable[[], _T], otherwise: _T) -> _T:
        """Return a fact for an answer, or what stands for it where it is not known."""
        try:
            return ask()
        except NotKnown as error:
            self._not_told[error.what, error.reason] += 1
            return otherwise

    def check(self, programs: Programs) -> None:
        """Let the run be ended, and be seen, between processes and while a large program is read."""
        self._context.check()
        self._tell(programs)
        self._context.progress()

    def finish(self, programs: Programs) -> None:
        """Tell the counts, and say in words what was not judged or not told."""
        self._tell(programs)
        if self._skipped["hidden"]:
            self._context.note(f"{self._skipped['hidden']} processes may not be looked at at all")
        for (what, reason), count in sorted(self._not_judged.items()):
            self._context.note(f"{count} processes could not be judged: {what}: {reason}")
        for (what, reason), count in sorted(self._not_told.items()):
            self._context.note(f"of {count} processes told in part only: {what}: {reason}")

    def _tell(self, programs: Programs) -> None:
        skipped = dict(sorted(self._skipped.items()))
        self._context.statistics.update(self.counts)
        self._context.statistics.update(
            files_hashed=programs.files_hashed,
            bytes_read=programs.bytes_read,
            skipped=skipped,
            errors=sum(count for reason, count in skipped.items() if reason != _ENDED),
        )
