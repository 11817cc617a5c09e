"""Adds up what one operation looked at on all agents: "found nothing" is an answer only with that."""

from collections import Counter
from typing import Any

from protocol.result import OperationResult

# These answered the question that was asked; a limit has cut the answer, and what is there stands.
ANSWERED = frozenset({"ok", "limit"})
# It was not asked there, since an operation that it depends on ended otherwise.
SKIPPED = "skipped"
_MAX_NAMES = 64
# Modules count what they looked at under names that end so; none of it seen is no answer.
_SEEN = "_seen"
# What could not be read, and what changed while it was: of neither the answer can be sure.
_HOLES = ("errors", "changed")
_OTHER = "other"


class Coverage:
    """What one operation of an action covered, over all agents that answered.

    `totals` are the sums of the counters in the agents' statistics, `slowest` the largest of each `_s`
    figure, `counted` the sums of counters by reason (such as `skipped`). Names are the agents' words:
    hostile text.
    """

    def __init__(self, module: str) -> None:
        self.module = module
        self.answered = 0
        self.skipped_on = 0  # not run, since an operation that it depends on ended otherwise
        self.found_on = 0
        self.truncated_on = 0
        self.statuses: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.slowest: dict[str, float] = {}
        self.counted: dict[str, Counter[str]] = {}
        self._blind: Counter[str] = Counter()  # agents that saw nothing at all, by what they count

    def add(self, result: OperationResult) -> None:
        """Add one agent's result."""
        if result.status == SKIPPED:
            self.skipped_on += 1
            return
        self.answered += 1
        self.found_on += result.found
        self.truncated_on += result.truncated
        self.statuses[result.status] += 1
        for name, value in result.statistics.items():
            self._add_figure(name, value)

    def _add_figure(self, name: str, value: Any) -> None:
        if isinstance(value, dict):
            # One agent's endless names must not hide what the others say.
            known = name in self.counted or len(self.counted) < _MAX_NAMES
            reasons = self.counted.setdefault(name if known else _OTHER, Counter())
            for reason, count in value.items():
                if _is_count(count):
                    reasons[reason if reason in reasons or len(reasons) < _MAX_NAMES else _OTHER] += count
        elif name.endswith("_s") and isinstance(value, (int, float)) and not isinstance(value, bool):
            if name in self.slowest or len(self.slowest) < _MAX_NAMES:
                self.slowest[name] = max(self.slowest.get(name, 0.0), float(value))
        elif _is_count(value) and (name in _HOLES or name in self.totals or len(self.totals) < _MAX_NAMES):
            self.totals[name] += value
            if name.endswith(_SEEN) and not value:
                self._blind[name] += 1

    def holes(self) -> tuple[str, ...]:
        """Return in words why "nothing found" is not the whole answer; empty where it is."""
        holes = [
            f"{status} on {_agents(count)}"
            for status, count in sorted(self.statuses.items())
            if status != "ok"
        ]
        if self.truncated_on and not holes:
            holes.append(f"cut short on {_agents(self.truncated_on)}")
        for name, count in self._blind.items():
            holes.append(f"{name} 0" if count == self.answered else f"{name} 0 on {_agents(count)}")
        holes += [f"{self.totals[name]:,} {name}" for name in _HOLES if self.totals.get(name)]
        holes += [f"{name}: {_reasons(reasons)}" for name, reasons in self.counted.items() if +reasons]
        return tuple(holes)

    def describe(self) -> str:
        """Return one line: who answered, on how many something was found, what was looked at."""
        if self.found_on:
            verdict = f"found on {self.found_on:,}"
        elif not self.answered:
            verdict = "so nothing is known"
        elif self.holes():
            verdict = "nothing found in what could be looked at"
        else:
            verdict = "nothing found"
        if self.skipped_on and not self.answered:
            return f"{self.module}: not run on {_agents(self.skipped_on)}, by its condition"
        parts = [f"{self.module}: {_agents(self.answered)} answered, {verdict}"]
        if self.skipped_on:
            parts.append(f"not run on {_agents(self.skipped_on)}, by its condition")
        parts += [f"{name} {value:,}" for name, value in self.totals.items() if value and name not in _HOLES]
        parts += self.holes()
        parts += [f"{name[:-2]} up to {value:.3f} s" for name, value in self.slowest.items()]
        return "; ".join(parts)

    def members(self) -> dict[str, Any]:
        """Return the coverage as JSON members."""
        return {
            "module": self.module,
            "answered": self.answered,
            "found_on": self.found_on,
            "truncated_on": self.truncated_on,
            **({"skipped_on": self.skipped_on} if self.skipped_on else {}),
            "statuses": dict(self.statuses),
            "statistics": {
                **self.totals,
                **{name: dict(reasons) for name, reasons in self.counted.items()},
                **{f"{name}_max": value for name, value in self.slowest.items()},
            },
            "holes": list(self.holes()),
        }


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _agents(count: int) -> str:
    return f"{count:,} agent" if count == 1 else f"{count:,} agents"


def _reasons(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common() if count)
