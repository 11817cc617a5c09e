r"""Scan files and the memory of processes by YARA rules.

Rules are given as text, several sources by a label each; the label is their namespace. `searches` chooses
files as in module file, by the same filters and options, and applies the rules to each; a search without a
filter chooses every file below its paths. `processes` chooses processes by number or name and applies the
rules to their memory. `found` means that at least one rule matched.

There are three outcomes for each file or process. A rule matched: that is a record. No rule did: it is
counted in `files_scanned` or `processes_scanned` and nothing is said of it. It was not scanned:
`not_scanned` counts it by reason, and a note names it: too-large, timed-out, unreadable, changed, ended,
crashed (the rule engine died over it), failed (the engine gave up), in-pieces, own-process (the agent's own
are left out: they hold the rules), no-file.

A file is read whole into memory, up to `max_file_bytes`. Memory is looked at stretch by stretch, mappings
side by side being one, in windows of 32 MiB that overlap by 1 MiB: a rule is judged on one window at a time,
offsets are addresses, and what a rule says of the file (filesize, `at`, module pe) is about that window.
With `together` it is judged on all memory of a process at once, up to 128 MiB, and beyond that in pieces,
which is said. Processes are not stopped. What they never touched and what they map of devices is not read.

Rules cannot include files. Of YARA's modules these may be imported: crx dex dotnet elf hash lnk macho math
pe string time zip. The variables filename, filepath and extension are about the file, or the program of the
process. Records name patterns, offsets and lengths, never what matched.
"""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Dict, Iterator, Optional, Tuple, Union

import msgspec
from msgspec import Meta

from agent.module import Context, Flag, ModuleRecord
from agent.scan.budget import BUDGET_FLAGS, BudgetParams, budget_from_flags, portion
from agent.scan.flags import SEARCH_FLAGS, searches_from_flags, searches_from_line
from agent.scan.helper import Helper
from agent.scan.memory_scan import Chosen, scan_processes
from agent.scan.patterns import require_engine as require_expressions
from agent.scan.patterns import require_pattern, split_inverse
from agent.scan.process_record import RegionRecord, region_record
from agent.scan.rule_scan import Enough, Finding, Tally, scan_files
from agent.scan.rule_work import Bounds, RuleWork
from agent.scan.rules import RuleSet, compile_rules, load_engine
from agent.scan.scan import usable_workers
from agent.scan.search import Count, Label, Regex, Selection
from agent.scan.spellings import upgrade_searches
from agent.scan.texts import path_base64, path_text
from protocol.errors import InvalidInput

PATHS = ("searches.*.paths",)
PLATFORMS = ("linux", "darwin")
EXAMPLES = (
    "mig yara --rules webshell.yar --path /var/www   files that a rule matches",
    "mig yara --rules kit.yar --path /tmp --path /dev/shm --mtime '<7d' --size '<20m'   only what is new",
    "mig yara --rules implant.yar --process '^(sshd|nginx)$'   the memory of these programs",
    "mig yara --rules implant.yar --pid 4711 --path /proc/4711/exe   one process and its program",
)
MAX_RULES_CHARACTERS = 600_000
_MAX_PID = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h
# Beyond its time a scan is given as much to notice it, then its process is killed.
_GRACE_S = 5.0
# How much of a budget is the helpers', and not of those who choose the files.
_HELPERS_QUARTERS = 2

Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}\Z")]
RuleText = Annotated[str, Meta(min_length=1, max_length=MAX_RULES_CHARACTERS)]
Text = Annotated[str, Meta(max_length=4096)]
Bytes = Annotated[int, Meta(ge=1, le=1 << 50)]


class ProcessSearch(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Which processes to look into: those with one of the numbers, and those with one of the names."""

    pids: Annotated[
        Tuple[Annotated[int, Meta(ge=1, le=_MAX_PID)], ...],
        Meta(description="numbers of processes", max_length=1000),
    ] = ()
    names: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on the process's own name (of 15 bytes) and on the name"
            " of its program's file, any of them; a leading ! leaves out",
            max_length=1000,
        ),
    ] = ()
    matchlimit: Annotated[
        Count, Meta(description="report at most so many processes of this search; 0 is without limit")
    ] = 0

    def __post_init__(self) -> None:
        """Refuse what could choose nothing; msgspec makes its own error of it."""
        if not (self.pids or self.names):
            raise ValueError("the search names no process: give pids or names")
        for name in self.names:
            require_pattern(split_inverse(name)[0], "names")


class Params(BudgetParams, frozen=True, kw_only=True):
    """Which rules to apply to what, and what it may cost."""

    rules: Annotated[
        Dict[Label, RuleText],
        Meta(
            description="text of YARA rules, by a label that is their namespace", min_length=1, max_length=100
        ),
    ]
    searches: Annotated[
        Dict[Label, Selection],
        Meta(description="which files to scan, by a label that names each in the answer", max_length=1000),
    ] = msgspec.field(default_factory=dict)
    processes: Annotated[
        Dict[Label, ProcessSearch],
        Meta(description="whose memory to scan, by a label that names each in the answer", max_length=1000),
    ] = msgspec.field(default_factory=dict)
    together: Annotated[
        bool,
        Meta(description="judge a rule on all memory of a process at once, not on each stretch by itself"),
    ] = False
    variables: Annotated[
        Dict[Identifier, Union[bool, int, float, Text]],
        Meta(description="external variables that the rules use, by name", max_length=100),
    ] = msgspec.field(default_factory=dict)
    timeout_s: Annotated[
        int,
        Meta(description="seconds that the rules may take over one file or window of memory", ge=1, le=600),
    ] = 30
    max_file_bytes: Annotated[
        int, Meta(description="larger files are not scanned; in bytes", ge=1, le=1 << 30)
    ] = 64 << 20
    max_process_bytes: Annotated[Bytes, Meta(description="read at most so many bytes of one process")] = (
        4 << 30
    )
    max_total_bytes: Annotated[Bytes, Meta(description="stop when so many bytes were scanned in all")] = (
        256 << 30
    )

    def __post_init__(self) -> None:
        """Refuse what asks nothing or too much; msgspec turns the ValueError into its own error."""
        if not (self.searches or self.processes):
            raise ValueError("nothing to scan: give searches or processes")
        twice = sorted(set(self.searches) & set(self.processes))
        if twice:
            raise ValueError(f"the label {twice[0]!r} names a search and processes")
        if sum(map(len, self.rules.values())) > MAX_RULES_CHARACTERS:
            raise ValueError(f"the rules have more than {MAX_RULES_CHARACTERS} characters in all")


class MatchRecord(ModuleRecord, frozen=True, kw_only=True):
    """Where a pattern matched."""

    offset: Annotated[int, Meta(description="offset in the file in bytes, or address in the process")]
    length: Annotated[int, Meta(description="length in bytes")]


class PatternRecord(ModuleRecord, frozen=True, kw_only=True):
    """A pattern of a rule that matched."""

    identifier: Annotated[str, Meta(description="its name in the rule, such as $a")]
    count: Annotated[int, Meta(description="how often it matched; from 1000 on: at least")]
    matches: Annotated[Tuple[MatchRecord, ...], Meta(description="where, the first of them")]


class Record(ModuleRecord, frozen=True, kw_only=True):
    """A rule that matched in a file, or in one stretch of the memory of a process."""

    search: Annotated[str, Meta(description="label of the search that chose the file or process")]
    path: Annotated[
        Optional[str],
        Meta(
            description=r"path of the file, or of the process's program; where it is not UTF-8, escaped"
            r" with \xff for a byte and \\ for a backslash"
        ),
    ] = None
    path_b64: Annotated[
        Optional[str], Meta(description="bytes of the path in base64, only where it is not UTF-8")
    ] = None
    size_bytes: Annotated[Optional[int], Meta(description="size of the file in bytes")] = None
    hashes: Annotated[
        Optional[Dict[str, str]],
        Meta(
            description="digests of the file in hexadecimal by algorithm, of those that the search asks for"
        ),
    ] = None
    pid: Annotated[Optional[int], Meta(description="number of the process")] = None
    process: Annotated[Optional[str], Meta(description="what the process calls itself")] = None
    region: Annotated[
        Optional[RegionRecord],
        Meta(description="the mapping of the first match, or where the stretch begins"),
    ] = None
    rule: Annotated[str, Meta(description="name of the rule")]
    namespace: Annotated[str, Meta(description="label of the source that the rule stands in")]
    tags: Annotated[Tuple[str, ...], Meta(description="tags of the rule")] = ()
    meta: Annotated[
        Dict[str, Union[bool, int, float, str]],
        Meta(description="what the rule says of itself; texts are cut at 256 characters"),
    ] = msgspec.field(default_factory=dict)
    patterns: Annotated[Tuple[PatternRecord, ...], Meta(description="patterns of the rule that matched")] = ()


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each rule that matched in a file or in a stretch of memory, and each search.

    Raises:
        InvalidInput: `unsupported` without yara-x or for memory elsewhere than on Linux; `bad-parameters` for
            rules that do not compile; `acl-refused` where path rules forbid to read memory.

    """
    if any(one.names for one in params.processes.values()):
        require_expressions("a search for processes by name")
    rules = compile_rules(params.rules, params.variables, check=context.check)
    bounds = Bounds(params.timeout_s, params.max_file_bytes, params.max_process_bytes)
    budget = params.budget(context)
    # The work is the helpers': one beside each process that judges files, or one for memory.
    work = RuleWork(
        rules, bounds, budget=portion(budget, _HELPERS_QUARTERS), share=max(1, usable_workers(budget))
    )
    tally = Tally(context, params.max_total_bytes)
    with closing(Helper(work, silence_s=params.timeout_s + _GRACE_S, check=context.check)) as helper:
        try:
            for finding in _findings(params, helper, bounds, tally, context):
                yield _record(finding, rules)
        except Enough:
            return
        finally:
            tally.finish()
            tally.tell()


def _findings(
    params: Params, helper: Helper, bounds: Bounds, tally: Tally, context: Context
) -> Iterator[Finding]:
    if params.processes:
        chosen = {
            label: Chosen(one.pids, one.names, one.matchlimit)
            for label, one in sorted(params.processes.items())
        }
        yield from scan_processes(chosen, helper, tally, context, is_together=params.together)
    if params.searches:
        budget = portion(params.budget(context), 4 - _HELPERS_QUARTERS)
        yield from scan_files(params.searches, helper, bounds, tally, context, budget=budget)


def _record(finding: Finding, rules: RuleSet) -> Record:
    rule, place, file, process = finding.hit.rule, finding.hit.place, finding.file, finding.process
    facts = rules.facts[rule.source, rule.rule]
    path = file.path if file is not None else process.executable if process is not None else b""
    return Record(
        search=finding.search,
        path=path_text(path) if path else None,
        path_b64=path_base64(path),
        size_bytes=file.status.st_size if file is not None else None,
        hashes=dict(file.digests) or None if file is not None else None,
        pid=process.pid if process is not None else None,
        process=path_text(process.name) if process is not None else None,
        region=None
        if place is None
        else region_record(place.start, place.end, place.permissions, place.path),
        rule=rule.rule,
        namespace=rule.source,
        tags=facts.tags,
        meta=facts.meta,
        patterns=tuple(
            PatternRecord(
                identifier=pattern.identifier,
                count=pattern.count,
                matches=tuple(MatchRecord(offset=at, length=length) for at, length in pattern.matches),
            )
            for pattern in rule.patterns
        ),
    )


def review(params: Params) -> Iterator[str]:
    """Yield what is worth knowing before the rules are signed.

    Raises:
        InvalidInput: `bad-parameters`, with the place in the rules.

    """
    if load_engine() is None:
        yield "the rules were not compiled here (this mig is built without yara-x): each endpoint will tell"
        return
    yield from compile_rules(params.rules, params.variables).warnings


def upgrade(parameters: Any) -> Any:
    """Rewrite the ancestor's parameters and looser spellings; a lone text of rules gets a label.

    Raises:
        InvalidInput: `bad-parameters` or `usage`, for the ancestor's `filesearch` where it makes no search.

    """
    if not isinstance(parameters, dict):
        return parameters
    upgraded = dict(parameters)
    if isinstance(upgraded.get("filesearch"), str):
        upgraded.update(searches_from_line(upgraded.pop("filesearch")))
    if "yara" in upgraded:
        upgraded.setdefault("rules", upgraded.pop("yara"))
    if isinstance(upgraded.get("rules"), str):
        upgraded["rules"] = {"rules": upgraded["rules"]}
    return upgrade_searches(upgraded) if isinstance(upgraded.get("searches"), dict) else upgraded


_OWN_FLAGS = (
    Flag("rules", "file with YARA rules; its name is their namespace", repeat=True, metavar="FILE"),
    Flag("pid", "number of a process whose memory to scan", repeat=True, type=int),
    Flag("process", "regular expression on a process's name; ! leaves out", repeat=True, metavar="REGEX"),
    Flag("together", "judge a rule on all memory of a process at once", is_bool=True, default=False),
    Flag("variable", "external variable of the rules, as NAME=VALUE", repeat=True, metavar="NAME=VALUE"),
    Flag("timeout", "seconds that the rules may take over one file", type=int),
    Flag("maxsize", "bytes of the largest file to scan", type=int),
)
FLAGS = (*_OWN_FLAGS, *SEARCH_FLAGS, *BUDGET_FLAGS)


def from_flags(values: Dict[str, Any]) -> Dict[str, Any]:
    """Make the parameters of the command line's flags; the files with rules are read here.

    Raises:
        InvalidInput: `usage`, for flags that contradict each other or are missing, or a file not to be read.

    """
    if not values.get("rules"):
        raise InvalidInput("usage", "name at least one file with --rules")
    parameters: Dict[str, Any] = {"rules": _read_rules(values["rules"]), **budget_from_flags(values)}
    if values.get("path"):
        parameters.update(searches_from_flags(values))
    if values.get("pid") or values.get("process"):
        chosen = {"pids": list(values.get("pid") or ()), "names": list(values.get("process") or ())}
        limit = {"matchlimit": values.get("matchlimit", 1000)}
        parameters["processes"] = {
            "p1": {**{name: value for name, value in chosen.items() if value}, **limit}
        }
    if not ("searches" in parameters or "processes" in parameters):
        raise InvalidInput("usage", "name at least one --path, --pid or --process to scan")
    if values.get("together"):
        parameters["together"] = True
    if values.get("variable"):
        parameters["variables"] = dict(map(_variable, values["variable"]))
    for flag, name in (("timeout", "timeout_s"), ("maxsize", "max_file_bytes")):
        if values.get(flag):
            parameters[name] = values[flag]
    return parameters


def _read_rules(names: Tuple[str, ...]) -> Dict[str, str]:
    rules: Dict[str, str] = {}
    for name in names:
        path = Path(name)
        label = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in path.stem)[:64]
        if label in rules:
            raise InvalidInput("usage", f"two files with rules are called {label}")
        try:
            rules[label] = path.read_text("utf-8")
        except OSError as error:
            raise InvalidInput("usage", f"{name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InvalidInput("usage", f"{name}: is not UTF-8 text") from None
    return rules


def _variable(text: str) -> Tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise InvalidInput("usage", f"{text!r} is not NAME=VALUE")
    try:
        return name, msgspec.json.decode(value, type=Union[bool, int, float])
    except msgspec.DecodeError:
        return name, value
