"""What a module is: the contract between `agent/modules/*.py` and whatever runs them.

A module is one file in `agent/modules/` that defines, at its top level:

* its docstring: what question it answers, what `found` means, what it cannot see; shown as help;
* `Params`: a frozen, keyword-only `ModuleParams` whose every field has a description;
* `Record`: a frozen, keyword-only `ModuleRecord` whose every field has a description (and unit);
* `run(params, context)`: yields records. It never prints, never reads configuration, and calls
  `context.check()` in every loop;
* optional `PLATFORMS`: the `sys.platform` prefixes it works on (default: all);
* optional `EXAMPLES`: command lines for its help, each with a word on what it asks;
* optional `FLAGS`: a tuple of `Flag`, where the parameters nest and flags cannot be derived from the fields,
  together with `from_flags(values) -> dict`, which makes the parameters of the given flag values;
* `PATHS`, where its parameters name paths that it reads: selectors such as `searches.*.paths`, each member's
  name or `*` for all of them; `()` where none do. It holds what it opens to `context.paths`
  (`agent.scan.fence`). A module that does not say is refused by an ACL entry that limits paths;
* optional `MINIMUM_WEIGHT`: the weight that its signers need at least where no ACL entry is its own
  (default: 1); what looks at what passes by, or removes something, asks for two people so;
* optional `FLAG_ALIASES`, beside derived flags: by parameter further spellings of its flag that the client
  understands, such as the ancestor's;
* optional `FIELDS`: selectors, as in `PATHS`, of parameters that ask for matched text itself instead of
  counts; such an operation is refused unless the ACL entry says `fields = true`;
* optional `upgrade(parameters) -> dict`: rewrites the ancestor's spellings to canonical ones; called by the
  client before signing and by local runs, never by the gate;
* optional `review(params)`: called by the client before signing, never by the gate, with decoded parameters:
  raises `InvalidInput` for what the declaration cannot tell (rules that do not compile), yields notes;
* optional `ALIASES`: other names of the module that the client accepts;
* optional `watch(config, context)`: it runs as long as the agent does and tells what it sees
  (`agent.watching`).

The file must import on every system: whatever is tied to one lives in `agent/platform/`.
"""

import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import msgspec

from protocol.acl import PathRules
from protocol.errors import InvalidInput

Statistic = Union[int, float, str, Dict[str, int]]
MAX_NOTES = 200
ANYWHERE = PathRules()


class ModuleParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of every module's parameters: unknown members are refused."""


class ModuleRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of every module's records."""


class Flag(NamedTuple):
    """One command-line flag of a module: `--name`; `repeat` collects values into a tuple.

    `aliases` are spellings that are understood and not shown; `field` is the parameter that a derived flag is
    for, where its name is another.
    """

    name: str
    help: str
    repeat: bool = False
    is_bool: bool = False
    type: type = str
    default: Any = None
    metavar: Optional[str] = None
    aliases: Tuple[str, ...] = ()
    field: str = ""


class Cancelled(Exception):
    """The run was told to stop; what was found so far stands."""


class DeadlineReached(Exception):
    """The run's time is over; what was found so far stands."""


class Limits(NamedTuple):
    """What one operation may use. Times in seconds of the monotonic clock, sizes in bytes."""

    wall_s: float = 300.0
    max_records: int = 100_000
    output_bytes: int = 900_000


class Budget(NamedTuple):
    """What a scan may take from the machine that it runs on; 0 is without a bound of its own.

    `cpu_percent` is of one processor (50 is half of one, 200 two whole ones), over all processes of the scan;
    `read_bytes_per_s` is what is read of files; `workers` are processes beside the first: without a bound, as
    many as there are usable processors, 8 at most.
    """

    cpu_percent: int = 0
    read_bytes_per_s: int = 0
    workers: int = 0

    def lowered(self, other: "Budget") -> "Budget":
        """Return what both allow."""
        return Budget(*(min(pair) if all(pair) else max(pair) for pair in zip(self, other)))


UNBOUNDED = Budget()


class Context:
    """What a running module is given: notes, statistics, limits, cancellation; nothing else of the agent."""

    def __init__(
        self,
        *,
        limits: Optional[Limits] = None,
        facts: Optional[Dict[str, Any]] = None,
        paths: PathRules = ANYWHERE,
        budget: Budget = UNBOUNDED,
        digest_cache: Optional[int] = None,
        watchers: Optional[Dict[str, Dict[str, Any]]] = None,
        is_cancelled: Callable[[], bool] = lambda: False,
        on_progress: Callable[[Mapping[str, Statistic]], None] = lambda _statistics: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or Limits()
        self.facts: Dict[str, Any] = facts or {}
        self.paths = paths
        self.budget = budget
        # An open descriptor of the endpoint's digest cache (`agent.scan.cache`), where it has one.
        self.digest_cache = digest_cache
        # How each persistent module is that is on (`agent.runtime.watchers`); None where no agent runs.
        self.watchers = watchers
        self.statistics: Dict[str, Statistic] = {}
        self.notes: List[str] = []
        self.truncated = False
        self._is_cancelled = is_cancelled
        self._on_progress = on_progress
        self._monotonic = monotonic
        self._deadline = monotonic() + self.limits.wall_s
        self._withheld_notes = 0

    def check(self) -> None:
        """Raise when the run was cancelled or its time is over; call it in every loop."""
        if self._is_cancelled():
            raise Cancelled
        if self._monotonic() > self._deadline:
            raise DeadlineReached

    def progress(self) -> None:
        """Let the investigator see how far the run is: the numbers that stand in `statistics` now.

        To be called often in what may take long; how often it is told is decided elsewhere.
        """
        self._on_progress(self.statistics)

    def note(self, text: str) -> None:
        """Say something about the coverage: what was skipped, unreadable or cut, and why."""
        if len(self.notes) < MAX_NOTES:
            self.notes.append(text)
        else:
            self._withheld_notes += 1

    def truncate(self, text: str) -> None:
        """Say that the answer is cut by a limit, and which."""
        self.truncated = True
        self.note(text)

    def all_notes(self) -> Tuple[str, ...]:
        """Return the notes, with a last line that counts those withheld."""
        if self._withheld_notes:
            return (*self.notes, f"{self._withheld_notes} further notes withheld")
        return tuple(self.notes)


def decode_params(declared: type, parameters: Any) -> Any:
    """Decode an operation's parameters by a module's declaration; no module code runs.

    Raises:
        InvalidInput: `bad-parameters`, with the member that is wrong.

    """
    try:
        return msgspec.convert(parameters, declared)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-parameters", str(error)) from None


def asks_for_fields(selectors: Sequence[str], parameters: Any) -> bool:
    """Tell whether decoded parameters ask for matched text, by a module's `FIELDS`; no module code runs."""
    return any(value for selector in selectors for value in _selected(selector, parameters))


def named_paths(selectors: Sequence[str], parameters: Any) -> Iterator[str]:
    """Yield the paths that decoded parameters name, by a module's `PATHS`; no module code runs.

    Raises:
        InvalidInput: `bad-parameters`, where a selector leads to something that is no text.

    """
    for selector in selectors:
        for item in _selected(selector, parameters):
            for path in item if isinstance(item, list) else [item]:
                if not isinstance(path, str):
                    raise InvalidInput("bad-parameters", f"{selector} is no path")
                yield path


def _selected(selector: str, parameters: Any) -> List[Any]:
    found = [msgspec.to_builtins(parameters)]
    for name in selector.split("."):
        found = [value for item in found for value in _members(item, name)]
    return found


def _members(item: Any, name: str) -> List[Any]:
    if name != "*":
        # What is left out has its default, which names no path.
        return [item[name]] if isinstance(item, dict) and name in item else []
    return list(item.values()) if isinstance(item, dict) else list(item)
