"""What a module counts beside its records: what it looked at, and what it left out and why.

Every name that is counted stands in the statistics from the beginning: that nothing was counted is told too.
"""

from typing import Dict

from agent.module import Context

_NAMED = 20


class Counts:
    """The statistics of one run: `names` from 0 on, `errors`, and `skipped` by its reason.

    Of what was skipped for one reason the first are noted by name, and `finish` says how many there were.
    """

    def __init__(self, context: Context, *names: str) -> None:
        self._context = context
        self._counts: Dict[str, int] = dict.fromkeys((*names, "errors"), 0)
        self._skipped: Dict[str, int] = {}
        self._tell()

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def add(self, name: str, count: int = 1) -> None:
        """Count something more."""
        self._counts[name] += count
        self._tell()

    def set(self, name: str, count: int) -> None:
        """Say how much there is of something by now."""
        self._counts[name] = count
        self._tell()

    def skip(self, reason: str, text: str) -> None:
        """Count what could not be looked at, by its reason, and note it."""
        self._skipped[reason] = self._skipped.get(reason, 0) + 1
        self._counts["errors"] += 1
        self._tell()
        if self._skipped[reason] <= _NAMED:
            self._context.note(text)

    def finish(self) -> None:
        """Note how many were skipped for a reason where not all were named."""
        for reason, count in self._skipped.items():
            if count > _NAMED:
                self._context.note(f"{reason}: {count} were skipped, of which {_NAMED} are named")

    def _tell(self) -> None:
        self._context.statistics.update(self._counts)
        self._context.statistics["skipped"] = dict(self._skipped)
